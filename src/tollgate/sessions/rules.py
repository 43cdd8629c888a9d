"""The tokens of sessions and sign-in links. Randomness is an argument."""

from base64 import urlsafe_b64encode

RANDOM_BYTES = 32
PAGE = "/admin"
"""The page that exchanges a link."""


def token(randomness: bytes) -> str:
    return urlsafe_b64encode(randomness).rstrip(b"=").decode()


def link(base_url: str, secret: str) -> str:
    """The secret is in the fragment, which browsers do not send, so no server logs it."""
    return f"{base_url}{PAGE}#/sign-in/{secret}"
