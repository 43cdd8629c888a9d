"""Redaction: replaces keys, tokens, passwords and personal data in a text. Logs, kept prompts and answers, and error
messages of upstreams all use it.

Each kind of secret is a regular expression. They are narrow, since a log in which too much is hidden is useless; a
password in a sentence ("it is hunter2") is not recognised. Each looks ahead a bounded number of characters, so the time
grows in proportion to the text.
"""

import re
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

SHORTEST_SECRET: Final = 8
"""Of known secrets: a shorter one would be found in ordinary words."""

_PREFIXES: Final = (
    r"tg_(?:live|test)_|sb_secret_|sk-(?:or-v1|ant|proj)-|github_pat_|(?<![A-Za-z0-9])(?:sk-|[rs]k_(?:live|test)_|whsec_"
    r"|gh[oprsu]_|tg[eh]_|glpat-|npm_|pypi-|hf_|gsk_|xai-|pplx-|nvapi-|r8_|dop_v1_|xox[abeoprs]-|ya29\.|SG\.|AIza|AKIA|ASIA)"
)
"""The short prefixes count only at the beginning of a word, because of words such as "task-" and "risk-"."""
_NAMES: Final = r"password|passwd|passphrase|secret|client_secret|api_?key|(?:access|auth|refresh)_token"
_VARIABLES: Final = "PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|API_?KEY|ACCESS_KEY|PRIVATE_KEY|SECRET_KEY"


class Form(NamedTuple):
    """How a kind of secret is written. The group `kept` at the beginning of a match stays in the text. A lookbehind
    comes after the first character, which is faster than before it."""

    kind: str
    expression: str
    mark: str = ""
    """Every such secret contains it. A text without it is not searched."""
    proves: Callable[[str], bool] | None = None
    """A match counts only if this returns True."""


def passes_luhn(number: str) -> bool:
    """Whether the check digit of a card number is right."""
    digits = [int(one) for one in reversed(number) if one.isdigit()]
    return (sum(digits[::2]) + sum(sum(divmod(2 * one, 10)) for one in digits[1::2])) % 10 == 0


FORMS: Final = (
    Form(
        "private_key",
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----(?s:.*?)"
        r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----|\Z)",
        mark="-----BEGIN ",
    ),
    Form("password", r"(?P<kept>://)(?::|[^\s/:@]{1,128}:(?!\d{1,5}(?:[/?#\s]|\Z)))\S{1,256}(?=@)", mark="://"),
    Form(
        "secret",
        rf"(?P<kept>(?:{_VARIABLES})[A-Z0-9_]{{0,20}}=[\"']?)(?!\[hidden:)"
        r"(?:(?<=\")[^\"\n]+|(?<=')[^'\n]+|[^\s\"']{4,})",
        mark="=",
    ),
    Form(
        "secret",
        rf"(?P<kept>\"(?i:{_NAMES})\\?\"\s{{0,8}}:\s{{0,8}}\\?\")(?!\[hidden:)[^\"\n\\]+",
        mark='"',
    ),
    Form("token", r"eyJ(?<![A-Za-z0-9]eyJ)[\w-]{8,400}\.[\w-]{8,}(?:\.[\w-]*)*", mark="eyJ"),
    Form("api_key", rf"(?:{_PREFIXES})(?![a-z_-]{{1,100}}(?![\w-]))[\w.-]{{16,}}"),
    Form("token", r"(?P<kept>[Bb](?i:earer)\s{1,4})[\w.~+/=-]{20,}"),
    Form(
        "token",
        r"(?P<kept>(?:[Aa](?i:uthorization[\"']?\s{0,4}[:=]\s{0,4}[\"']?(?:bearer|basic|token)\s{1,4})"
        r"|[Xx](?i:-api-key[\"']?\s{0,4}[:=]\s{0,4}[\"']?)))(?!\[hidden:)[^\s\"',;]{4,}",
    ),
    Form("email", r"(?<![\w.%+-])[\w.%+-]{1,256}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,63}", mark="@"),
    Form(
        "card",
        r"[2-6](?<![\w.-].)(?:\d{12,18}|\d{3}(?:([ -])\d{4}\1\d{4}\1\d{1,7}|([ -])\d{6}\2\d{4,5}))(?!\w)",
        proves=passes_luhn,
    ),
    Form("phone", r"\+(?<![\w+].)\d(?:[ .()-]{0,2}\d){7,14}(?!\d)", mark="+"),
    Form("phone", r"(?:\((?<![\w.-].)\d{3}\) ?|\d(?<![\w.-].)\d{2}[.-])\d{3}[.-]\d{4}(?![\w-])"),
)

INTERNALS: Final = (
    Form("address", r"\b[A-Za-z][A-Za-z0-9+.-]*://(?:\[hidden: \w+\]|\S)+", mark="://"),
    Form("token", r"\b(?i:bearer|basic)\s+(?!\[hidden:)\S+"),
    Form("api_key", r"\b(?i:sk|pk|hf|tg|gsk|xai|key)[-_][\w-]{6,}"),
    Form("pointer", r"\b0[xX][0-9a-fA-F]{6,16}\b"),
    Form("address", r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"),
    Form("path", r"(?<![\w.])(?:[A-Za-z]:)?[/\\][\w.@+-]+(?:[/\\][\w.@+-]+)+"),
    Form("token", r"\b[\w-]{40,}\b"),
)
"""What else an upstream's error message must not tell: where the upstream runs, and anything that may be a key."""


class Redactor:
    """Replaces what has one of the forms, and known secrets."""

    def __init__(self, known: Iterable[str], forms: Iterable[Form] = FORMS) -> None:
        self._known = sorted((secret for secret in known if len(secret) >= SHORTEST_SECRET), key=len, reverse=True)
        self._forms = [(form.mark, re.compile(form.expression).sub, _hiding(form)) for form in forms]

    def __call__(self, text: str, *also_known: str) -> str:
        for secret in (*also_known, *self._known):
            text = text.replace(secret, hidden("known"))
        for mark, substitute, hide in self._forms:
            if mark in text:
                text = substitute(hide, text)
        return text


def hidden(kind: str) -> str:
    """What replaces a secret."""
    return f"[hidden: {kind}]"


def _hiding(form: Form) -> Callable[[re.Match[str]], str]:
    def replaced(found: re.Match[str]) -> str:
        if form.proves and not form.proves(found[0]):
            return found[0]
        return found.groupdict().get("kept", "") + hidden(form.kind)

    return replaced
