"""The cookie of a session: where it is accepted, and the refusal of requests that another site made a browser send."""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.types import Scope

from tollgate.core.errors import BadRequest, CrossSiteRequest, SessionEnded

SECURE_NAME = "__Host-tollgate"
"""Browsers accept a name with this prefix only with Secure and Path=/, and only from this very host."""
NAME = "tollgate"
"""In development, over plain HTTP."""
ACCEPTED_UNDER = ("/admin/", "/user/", "/auth/", "/v1/models")
"""Canonical paths. Elsewhere, on paid endpoints above all, the cookie is ignored."""
TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def name(*, secure: bool) -> str:
    return SECURE_NAME if secure else NAME


def token_of(scope: Scope, headers: Mapping[str, str], cookie: str) -> str | None:
    """The token of the session in the cookie, where one is accepted. A key in the headers takes precedence."""
    if not scope["path"].startswith(ACCEPTED_UNDER) or "authorization" in headers or "x-api-key" in headers:
        return None
    token = sent(headers, cookie)
    if token is None:
        return None
    if not TOKEN.fullmatch(token):
        raise SessionEnded
    refuse_cross_site(scope["method"], headers)
    return token


def sent(headers: Mapping[str, str], cookie: str) -> str | None:
    """The value of the cookie. Of two with the name, the first counts."""
    pairs = (pair.strip().partition("=") for pair in headers.get("cookie", "").split(";"))
    return next((value for name, _, value in pairs if name == cookie), None)


def refuse_cross_site(method: str, headers: Mapping[str, str]) -> None:
    """Refuses a change that does not come from a page of this host, or is not JSON."""
    if method in SAFE_METHODS:
        return
    if not _is_same_origin(headers):
        raise CrossSiteRequest
    kind = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise BadRequest("With a session, a body must be JSON. Send it as application/json.", param="content-type")


def _is_same_origin(headers: Mapping[str, str]) -> bool:
    """By Sec-Fetch-Site, which pages cannot forge; older browsers send Origin alone."""
    if "sec-fetch-site" in headers:
        return headers["sec-fetch-site"] == "same-origin"
    return bool(headers.get("host")) and _host_of(headers.get("origin", "")) == headers["host"].lower()


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
