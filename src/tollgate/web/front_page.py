"""GET /: the name, the version and where to find what; as a page for browsers, otherwise as JSON."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tollgate import __version__
from tollgate.web import html

LINKS = {
    "playground": "/ui",
    "docs": "/docs",
    "openapi": "/openapi.json",
    "health": "/health",
    "api": "/v1",
    "openrouter_api": "/api/v1",
    "account": "/user",
    "admin": "/admin",
}
BODY = f"""<h1>Tollgate {__version__}</h1>
<p>A credit-billing proxy in front of OpenRouter and your own model servers.</p>
<h2>For people</h2>
<dl>
<dt><a href="account">Account</a></dt><dd>your balance, usage, keys and limits</dd>
<dt><a href="ui">Playground</a></dt><dd>talk to a model, and see what each answer costs</dd>
<dt><a href="admin">Console</a></dt><dd>for operators</dd>
</dl>
<h2>For programs</h2>
<dl>
<dt><code>/v1</code></dt><dd>the base URL for OpenAI clients</dd>
<dt><code>/api/v1</code></dt><dd>the base URL for OpenRouter clients</dd>
<dt><a href="docs">/docs</a></dt><dd>every route</dd>
<dt><a href="openapi.json">/openapi.json</a></dt><dd>the same for programs</dd>
<dt><a href="health">/health</a></dt><dd>the state of this server</dd>
</dl>
"""
VARY = {"vary": "Accept"}


async def front_page(request: Request) -> Response:
    if "text/html" in request.headers.get("accept", ""):
        return html.page("Tollgate", BODY, VARY)
    return JSONResponse({"name": "Tollgate", "version": __version__, "links": LINKS}, headers=VARY)


ROUTE = Route("/", front_page, methods=["GET"])
