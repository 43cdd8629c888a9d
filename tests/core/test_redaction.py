"""No secret of a known form survives, wherever it stands, and ordinary text stays as it was."""

import base64
import io
import json
import random
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.hanging import not_hanging
from tollgate.core.redaction import FORMS, Form, Redactor, hidden, passes_luhn
from tollgate.keys import rules
from tollgate.process import logs
from tollgate.upstreams.dialects import refusals

BASE62 = rules.ALPHABET
BASE64URL = BASE62 + "-_"
KEY_PREFIXES = (
    *("sk-", "sk-proj-", "sk-ant-api03-", "sk-or-v1-", "sb_secret_", "sk_live_", "rk_test_", "whsec_", "ghp_", "gho_"),
    *(
        "github_pat_",
        "glpat-",
        "tge_",
        "tgh_",
        "npm_",
        "pypi-",
        "hf_",
        "gsk_",
        "xai-",
        "pplx-",
        "nvapi-",
        "r8_",
        "xoxb-",
        "AKIA",
        "AIza",
    ),
)
WORDS = st.from_regex(r"\A[A-Za-z]{1,14}\Z") | st.sampled_from(
    [
        "Ωmega",
        "straße",
        "日本語",
        "2024-01-31",
        "3.14",
        "v1.2.3",
        "(42)",
        "10:30",
        "a/b",
        "x = y;",
        "–",
        "…",
        "🙂",
        "100%",
    ]
)
TEXT = st.lists(WORDS, max_size=12).map(" ".join)

FEWER = settings(max_examples=40)

redact = Redactor(["a-secret-of-the-settings", "short"])


def some(characters: str, least: int, most: int) -> st.SearchStrategy[str]:
    return st.text(characters, min_size=least, max_size=most)


@st.composite
def tokens(draw: st.DrawFn) -> str:
    """JSON web tokens."""
    header = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "typ": "JWT"}).encode()).decode().rstrip("=")
    return f"{header}.{draw(some(BASE64URL, 20, 300))}.{draw(some(BASE64URL, 20, 90))}"


@st.composite
def cards(draw: st.DrawFn) -> str:
    lead = draw(st.sampled_from(["4", "51", "2221", "34", "37", "6011", "62", "30"]))
    length = 15 if lead in ("34", "37") else 16
    digits = lead + draw(some("0123456789", length - 1 - len(lead), length - 1 - len(lead)))
    whole = next(digits + check for check in "0123456789" if passes_luhn(digits + check))
    between = draw(st.sampled_from(["", " ", "-"]))
    groups = (4, 6, 5) if length == 15 else (4, 4, 4, 4)
    starts = [sum(groups[:place]) for place in range(len(groups))]
    return between.join(whole[start : start + size] for start, size in zip(starts, groups, strict=True))


@st.composite
def private_keys(draw: st.DrawFn) -> str:
    kind = draw(st.sampled_from(["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "]))
    lines = draw(st.lists(some(BASE62 + "+/", 64, 64), min_size=3, max_size=30))
    end = draw(st.sampled_from([f"\n-----END {kind}PRIVATE KEY-----", ""]))
    between = draw(st.sampled_from(["\n", "\\n"]))
    return f"-----BEGIN {kind}PRIVATE KEY-----{between}" + between.join(lines) + end


@st.composite
def keys(draw: st.DrawFn) -> str:
    body = draw(some(BASE62, 20, 80).filter(lambda text: re.search(r"[A-Z0-9]", text)))
    return draw(st.sampled_from(KEY_PREFIXES)) + body


@st.composite
def addresses(draw: st.DrawFn) -> str:
    name, host = draw(some("abcdefgh.jk_+-z0", 1, 40)), draw(some("abcdefgh", 3, 20))
    return f"{name}@{host}.{draw(st.sampled_from(['com', 'co.uk', 'example', 'de']))}"


PLANTED = {
    "one of our keys": st.binary(min_size=32, max_size=32).map(lambda chance: rules.mint("live", chance)),
    "one of our test keys": st.binary(min_size=32, max_size=32).map(lambda chance: rules.mint("test", chance)),
    "an API key": keys(),
    "a JSON web token": tokens(),
    "a card": cards(),
    "a private key": private_keys(),
    "an address": addresses(),
    "a phone": st.sampled_from(
        ["+15551234567", "+49 170 1234567", "+44 (0)20 7946 0958", "(555) 123-4567", "555-123-4567"]
    ),
    "a secret of the settings": st.just("a-secret-of-the-settings"),
}
"""What must be gone as a whole."""

SAID = {
    "a password in an address": ("postgres://ada:{}@db.example.com:5432/app", "!$%^&*()" + BASE62),
    "a password in a longer address": ("redis://:{}@cache:6379", BASE62 + "/#?"),
    "a bearer": ("Authorization: Bearer {}", BASE64URL),
    "a bearer in code": ("headers={{'Authorization': 'Bearer {}'}}", BASE64URL),
    "a basic header": ("authorization: Basic {}", BASE62),
    "a key's header": ("X-API-Key: {}", BASE62),
    "a variable": ("export DB_PASSWORD={}", BASE62 + "!$%"),
    "a variable in quotes": ('OPENAI_API_KEY="{}"', BASE62 + " "),
    "a variable in other quotes": ("GITHUB_TOKEN='{}'", BASE62 + " "),
    "a member of an object": ('{{"user": "ada", "password": "{}"}}', BASE62 + " !$%&"),
    "a member of an object in a string": (r'"{{\"client_secret\": \"{}\"}}"', BASE62),
}
"""What must be gone from where it is said."""


@pytest.mark.parametrize("what", PLANTED)
@FEWER
@given(data=st.data(), before=TEXT, after=TEXT)
def test_no_planted_secret_survives(what: str, data: st.DataObject, before: str, after: str) -> None:
    secret = data.draw(PLANTED[what])
    around = data.draw(st.sampled_from([" {} ", "\n{}\n", '"{}"', "({})", "<{}>", "'{}', ", "key={} "]))
    shown = redact(before + around.format(secret) + after)
    body = re.sub(r"\W+", "", secret)
    assert secret not in shown
    assert all(part not in shown for part in (body[-12:], secret[-12:], secret[:24]))


@pytest.mark.parametrize("what", SAID)
@FEWER
@given(data=st.data(), before=TEXT, after=TEXT)
def test_no_secret_survives_where_it_is_said(what: str, data: st.DataObject, before: str, after: str) -> None:
    form, characters = SAID[what]
    secret = data.draw(some(characters, 20, 60).filter(lambda text: text.strip() == text and text[-8:] not in form))
    shown = redact(f"{before} {form.format(secret)} {after}")
    assert secret not in shown
    assert secret[-8:] not in shown
    assert form.partition("{}")[0].replace("{{", "{")[:8] in shown, "what it was is still to be seen"


@given(TEXT)
def test_ordinary_text_is_untouched(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "The task-Management-and-Scheduling-2024 board, risk-Averse-Investors-of-2024",
        "pip install sk-learn-contrib-something-longer hf_transfer_enabled_by_default",
        "from sk_test_utilities_of_ours import things",
        "See http://localhost:8080/path?user=me and https://example.com:443 or http://10.0.0.1:9",
        "ratio 3:4 at 10:30:00, 2024-01-02T03:04:05.678Z, 550e8400-e29b-41d4-a716-446655440000",
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "1735689600000 ms, 1735689600000000000 ns, 12345678901234567890, 3.141592653589793238",
        "lodash@4.17.21 user@localhost @decorator a@b",
        "def password(token: str) -> None: self.secret = token; api_key = key",
        "The password must be long. Bearer tokens are opaque; authorization is required. Basic understanding",
        '{"prompt_tokens": 12, "secretary": "Bob", "tokens": "many"}',
        "ISBN 978-3-16-148410-0, 4111 1111 1111 1112, 1.0.0+20240101123456, x+12345678, 555-1234",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "eyJ is how base64 of an object begins, AKIA is a prefix, sk- is another",
    ],
)
def test_what_only_looks_like_a_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_what_was_hidden_is_named() -> None:
    shown = redact("mail ada@example.com, card 4111 1111 1111 1111, postgres://ada:pw-of-ada@db/app")
    assert shown == f"mail {hidden('email')}, card {hidden('card')}, postgres://{hidden('password')}@db/app"


def test_a_password_that_begins_like_a_port_is_none() -> None:
    assert redact("redis://:6379/and-more@cache") == f"redis://{hidden('password')}@cache"
    assert redact("redis://cache:6379/0?from=me@home") == "redis://cache:6379/0?from=me@home"


def test_what_is_known_is_hidden_without_a_form() -> None:
    assert redact("it is chosen-by-an-operator", "chosen-by-an-operator") == f"it is {hidden('known')}"
    assert redact("a-secret-of-the-settings") == hidden("known")
    assert redact("a short one is a word") == "a short one is a word"
    assert Redactor(["part-of-it", "part-of-it-and-more"])("part-of-it-and-more") == hidden("known")


def test_our_own_keys_are_known_in_the_middle_of_a_word() -> None:
    environments: tuple[rules.Environment, ...] = ("live", "test")
    for environment in environments:
        assert redact(f"key:x{rules.mint(environment, bytes(32))}") == f"key:x{hidden('api_key')}"


@given(st.sampled_from([*PLANTED.values()]).flatmap(lambda one: one), TEXT)
def test_redacting_twice_changes_nothing_more(secret: str, text: str) -> None:
    once = redact(f"{text} {secret} {text}")
    assert redact(once) == once


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "-----BEGIN PRIVATE KEY-----",
            "-----BEGIN A ",
            "://a:",
            "://",
            "eyJ",
            "_eyJaaaaaaaaa",
            "eyJaaaaaaaa.",
            "sk-",
        ),
        *("SG.", "TOKEN=", 'TOKEN="', '"password": ', "bearer ", "authorization: ", "x-api-key: ", "A_", "password"),
        *("a.", "a@", "a@a.", "4", "4 ", "4-", "+1", "+1 ", "(555) ", " ", "\\", "😀"),
    ],
)
def test_no_text_takes_longer_than_its_length_allows(piece: str) -> None:
    with not_hanging():
        redact((piece * 400_000)[:400_000])


def test_digits_inside_of_an_id_are_no_card() -> None:
    told = "req_01a2e4111111111111111f00"
    assert Redactor([])(told) == told


def test_a_card_is_known_by_its_check_digit() -> None:
    assert passes_luhn("4111111111111111")
    assert passes_luhn("3782 822463 10005")
    changed = random.Random(1)  # noqa: S311
    for _ in range(100):
        digits = [*"4242424242424242"]
        place = changed.randrange(16)
        digits[place] = str((int(digits[place]) + changed.randrange(1, 9)) % 10)
        assert not passes_luhn("".join(digits))


EXAMPLES = (
    "-----BEGIN PRIVATE KEY-----MIIEvQ-secret-part-----END PRIVATE KEY-----",
    "postgres://ada:secret-part@db",
    "DB_PASSWORD=secret-part",
    '"client_secret": "secret-part"',
    "eyJhbGciOiJIUzI1NiJ9.eyJzZWNyZXQtcGFydCI6MX0.c2VjcmV0LXBhcnQ",
    "sk-ant-api03-0123456789abcdefABCDEF",
    "Bearer 0123456789.abcdef.secret-part",
    "X-API-Key: secret-part",
    "ada@secret-part.example",
    "4111 1111 1111 1111",
    "+49 170 1234567",
    "(555) 123-4567",
)
"""One for each form."""


def in_a_log_line(text: str) -> str:
    out = io.StringIO()
    logs.configure("info", (), out)
    logs.source("application").info("event", said=text)
    return str(json.loads(out.getvalue())["said"])


def in_an_upstreams_error(text: str) -> str:
    answer = refusals.read(500, "application/json", json.dumps({"error": {"message": text}}).encode())
    return str(json.loads(answer.body)["error"]["message"])


@pytest.mark.parametrize("place", [redact, in_a_log_line, in_an_upstreams_error])
@pytest.mark.parametrize(("form", "text"), list(zip(FORMS, EXAMPLES, strict=True)))
def test_every_form_is_hidden_in_kept_text_in_logs_and_in_errors_of_upstreams(
    form: Form, text: str, place: Callable[[str], str]
) -> None:
    found = re.search(form.expression, text)
    assert found, "an example has its form"
    shown = place(f"failed: {text} sadly")
    assert "[hidden: " in shown
    assert found[0].removeprefix(found.groupdict().get("kept", "")) not in shown
