"""What must not be kept of a text: keys, tokens, passwords, addresses and numbers of people, each by its form.

A form is narrow rather than clever: what is hidden by mistake makes a log useless, and a password in a sentence of its
own ("it is hunter2") has no form at all. Every form looks a bounded way ahead from each place, so that no text, however
it is made, takes longer than its length allows.
"""

import re
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

SHORTEST_SECRET: Final = 8
"""A shorter one would be found in ordinary words."""

_PREFIXES: Final = (
    r"tg_(?:live|test)_|sb_secret_|sk-(?:or-v1|ant|proj)-|github_pat_|(?<![A-Za-z0-9])(?:sk-|[rs]k_(?:live|test)_|whsec_"
    r"|gh[oprsu]_|glpat-|npm_|pypi-|hf_|gsk_|xai-|pplx-|nvapi-|r8_|dop_v1_|xox[abeoprs]-|ya29\.|SG\.|AIza|AKIA|ASIA)"
)
"""The short ones only where a word begins: there is a task-, and a risk-."""
_NAMES: Final = r"password|passwd|passphrase|secret|client_secret|api_?key|(?:access|auth|refresh)_token"
_VARIABLES: Final = "PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|API_?KEY|ACCESS_KEY|PRIVATE_KEY|SECRET_KEY"


class Form(NamedTuple):
    """How a kind of secret is written. A group `kept` at its beginning stays. What must not stand before it is looked
    for behind its first character, which is the faster way to find one."""

    kind: str
    expression: str
    mark: str = ""
    """Without it a text has no such secret."""
    proves: Callable[[str], bool] | None = None
    """What else must hold of it."""


def passes_luhn(number: str) -> bool:
    """Whether the check digit of a card's number is right."""
    digits = [int(one) for one in reversed(number) if one.isdigit()]
    return (sum(digits[::2]) + sum(sum(divmod(2 * one, 10)) for one in digits[1::2])) % 10 == 0


FORMS: Final = (
    Form(
        "private_key",
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----(?s:.*?)"
        r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----|\Z)",
    ),
    Form("password", r"(?P<kept>://)(?::|[^\s/:@]{1,128}:(?!\d{1,5}(?:[/?#\s]|\Z)))\S{1,256}(?=@)"),
    Form(
        "secret",
        rf"(?P<kept>(?:{_VARIABLES})[A-Z0-9_]{{0,20}}=[\"']?)(?!\[hidden:)"
        r"(?:(?<=\")[^\"\n]+|(?<=')[^'\n]+|[^\s\"']{4,})",
        mark="=",
    ),
    Form(
        "secret",
        rf"(?P<kept>\"(?i:{_NAMES})\\?\"\s{{0,8}}:\s{{0,8}}\\?\")(?!\[hidden:)[^\"\n\\]+",
    ),
    Form("token", r"eyJ(?<![A-Za-z0-9]eyJ)[\w-]{8,400}\.[\w-]{8,}(?:\.[\w-]*)*"),
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
        r"[2-6](?<![\d.-].)(?:\d{12,18}|\d{3}(?:([ -])\d{4}\1\d{4}\1\d{1,7}|([ -])\d{6}\2\d{4,5}))(?!\d)",
        proves=passes_luhn,
    ),
    Form("phone", r"\+(?<![\w+].)\d(?:[ .()-]{0,2}\d){7,14}(?!\d)"),
    Form("phone", r"(?:\((?<![\w.-].)\d{3}\) ?|\d(?<![\w.-].)\d{2}[.-])\d{3}[.-]\d{4}(?![\w-])"),
)


class Redactor:
    """Hides what has one of the forms, and secrets that are known, wherever they stand."""

    def __init__(self, known: Iterable[str]) -> None:
        self._known = sorted((secret for secret in known if len(secret) >= SHORTEST_SECRET), key=len, reverse=True)
        self._forms = [(form, re.compile(form.expression)) for form in FORMS]

    def __call__(self, text: str, *also_known: str) -> str:
        for secret in (*also_known, *self._known):
            text = text.replace(secret, hidden("known"))
        for form, expression in self._forms:
            if form.mark in text:
                text = expression.sub(_hiding(form), text)
        return text


def hidden(kind: str) -> str:
    """What stands in the place of a secret."""
    return f"[hidden: {kind}]"


def _hiding(form: Form) -> Callable[[re.Match[str]], str]:
    def replaced(found: re.Match[str]) -> str:
        if form.proves and not form.proves(found[0]):
            return found[0]
        return found.groupdict().get("kept", "") + hidden(form.kind)

    return replaced
