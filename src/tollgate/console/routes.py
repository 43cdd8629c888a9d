"""The web pages: GET /admin, /account and /ui, and what a page loads from /assets.

They are clients of the API, and read no database. `make console` builds them from `console/`. Files keep their names;
their digest is in the address (`?v=`), so a browser may keep them for ever, and asks each time whether the page itself
is still the same.
"""

import gzip
import hashlib
from functools import cache, partial
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollgate.core.errors import NotFound

FILES = Path(__file__).parent / "files"
PAGES = {"/account": "account.html", "/admin": "admin.html", "/ui": "playground.html"}
ASSETS = {"account.js", "admin.js", "playground.js", "style.css"}
MEDIA_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript"}


def content_security(*origins: str) -> str:
    """A page may ask this host, and these origins."""
    return "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data:",
            "media-src data:",
            " ".join(["connect-src 'self'", *origins]),
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ]
    )


class File:
    def __init__(self, name: str) -> None:
        self.plain = (FILES / name).read_bytes()
        self.zipped = gzip.compress(self.plain, mtime=0)
        self.etag = f'"{hashlib.sha256(self.plain).hexdigest()[:12]}"'
        self.media_type = MEDIA_TYPES[Path(name).suffix]


file = cache(File)


def router(*origins: str) -> APIRouter:
    """The origins are those that pages may ask beside this host."""
    headers = {"cache-control": "no-cache", "content-security-policy": content_security(*origins)}
    pages = [Route(path, partial(_page, name, headers), methods=["GET"]) for path, name in PAGES.items()]
    return APIRouter(routes=[*pages, Route("/assets/{name}", _asset, methods=["GET"])])


async def _page(name: str, headers: dict[str, str], request: Request) -> Response:
    return _sent(request, file(name), headers)


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in ASSETS:
        raise NotFound
    found = file(name)
    is_this_version = request.query_params.get("v") == found.etag.strip('"')
    return _sent(
        request, found, {"cache-control": "public, max-age=31536000, immutable" if is_this_version else "no-cache"}
    )


def _sent(request: Request, found: File, headers: dict[str, str]) -> Response:
    headers = headers | {"etag": found.etag, "vary": "accept-encoding"}
    if found.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(found.plain, headers=headers, media_type=found.media_type)
    return Response(found.zipped, headers=headers | {"content-encoding": "gzip"}, media_type=found.media_type)
