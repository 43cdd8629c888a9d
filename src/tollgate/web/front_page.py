"""GET /: the name, the version and where to find what; as a page for browsers, otherwise as JSON."""

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from tollgate import __version__

LINKS = {
    "docs": "/docs",
    "openapi": "/openapi.json",
    "health": "/health",
    "api": "/v1",
    "openrouter_api": "/api/v1",
    "account": "/user",
    "admin": "/admin",
}
VARY = {"vary": "Accept"}
CSP = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}
STYLE = """
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }
body { max-width: 40rem; margin: 3rem auto; padding: 0 1rem }
code { font-family: ui-monospace, monospace }
dt { font-weight: 600 } dd { margin: 0 0 .75rem }
"""
PAGE = f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Tollgate</title>
<style>{STYLE}</style></head>
<body>
<h1>Tollgate {__version__}</h1>
<p>A credit-billing proxy in front of OpenRouter and your own model servers.</p>
<dl>
<dt><a href="/docs">/docs</a></dt><dd>every route</dd>
<dt><a href="/openapi.json">/openapi.json</a></dt><dd>the same for programs</dd>
<dt><a href="/health">/health</a></dt><dd>the state of this server</dd>
<dt><code>/v1</code></dt><dd>the base URL for OpenAI clients</dd>
<dt><code>/api/v1</code></dt><dd>the base URL for OpenRouter clients</dd>
<dt><code>/user</code></dt><dd>your balance, usage and keys</dd>
<dt><code>/admin</code></dt><dd>for operators</dd>
</dl>
</body>
</html>
"""


async def front_page(request: Request) -> Response:
    if "text/html" in request.headers.get("accept", ""):
        return HTMLResponse(PAGE, headers=VARY | CSP)
    return JSONResponse({"name": "Tollgate", "version": __version__, "links": LINKS}, headers=VARY)


ROUTE = Route("/", front_page, methods=["GET"])
