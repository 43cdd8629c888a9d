"""The tokens of sessions and sign-in links, which passwords are allowed, and which emails count as verified. Randomness
is an argument."""

import re
import unicodedata
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

from tollgate.core.errors import WeakPassword

RANDOM_BYTES = 32
PAGE = "/admin"
"""The page that exchanges a link."""


def token(randomness: bytes) -> str:
    return urlsafe_b64encode(randomness).rstrip(b"=").decode()


def link(base_url: str, secret: str) -> str:
    """The secret is in the fragment, which browsers do not send, so no server logs it."""
    return f"{base_url}{PAGE}#/sign-in/{secret}"


SHORTEST = 12
LONGEST = 1024
LONGEST_BYTES = 4 * LONGEST
MOST_GUESSABLE = 6
"""A password is too easy to guess if fewer characters than this are left without the words that guessers try first."""
SHORTEST_WORD = 3
COMMON = (
    "tollgate", "password", "passwort", "passw0rd", "p@ssword", "p@ssw0rd", "pass", "secret", "welcome", "letmein",
    "iloveyou", "changeme", "admin", "administrator", "operator", "login", "master", "default", "football", "baseball",
    "sunshine", "princess", "monkey", "dragon", "superman", "qwertyuiop", "qwerty", "qwertz", "azerty", "asdfghjkl",
    "asdfgh", "asdf", "zxcvbnm", "zxcvbn", "qazwsx", "1q2w3e4r5t", "1q2w3e4r", "1qaz2wsx", "abcdefgh", "abcdef", "abcd",
    "0123456789", "1234567890", "123456789", "12345678", "1234567", "123456", "12345", "1234", "123", "0987654321",
    "987654321", "87654321", "7654321", "654321", "54321", "4321", "321",
)  # fmt: skip
"""Of these, and of names and emails, the most common passwords are made."""


def normal(password: str) -> str:
    """The same for each way to type a character (NFKC)."""
    return unicodedata.normalize("NFKC", password)


def check_password(password: str, email: str, name: str) -> None:
    """Refuses what NIST SP 800-63B tells to refuse: too short, or among the first that somebody guesses. Kinds of
    characters are not asked for."""
    if len(password) < SHORTEST:
        raise WeakPassword(reason="too_short")
    if len(password) > LONGEST or len(password.encode()) > LONGEST_BYTES:
        raise WeakPassword(reason="too_long")
    left = _without(password.casefold(), [*_words(email), *_words(name), *COMMON])
    if len(left) < MOST_GUESSABLE or len(set(left)) < SHORTEST_WORD:
        raise WeakPassword(reason="easy_to_guess")


def verified_email(user: Mapping[str, Any]) -> str | None:
    """The email of a user of Supabase Auth, if the user has proved to own it.

    `email_confirmed_at` alone does not say so: it is set for everyone where the project does not confirm emails.
    """
    email = (user.get("email") or "").lower()
    identities = [one["identity_data"] for one in user.get("identities") or []]
    verified = {(data.get("email") or "").lower() for data in identities if data.get("email_verified") is True}
    return email if email in verified - {""} and user.get("email_confirmed_at") else None


def _words(text: str) -> list[str]:
    whole = text.casefold()
    return [word for word in (whole, *re.split(r"[\W_]+", whole)) if len(word) >= SHORTEST_WORD]


def _without(password: str, words: list[str]) -> str:
    """The longest are removed first, since they contain others."""
    for word in sorted(words, key=len, reverse=True):
        password = password.replace(word, "")
    return password
