"""The few pages for people: plain HTML and CSS, without scripts and without anything from another host."""

import re
from html import escape

from starlette.responses import HTMLResponse

CONTENT_SECURITY = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}
STYLE = """
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; --line: light-dark(#ddd, #444); --soft: light-dark(#595959, #aaa) }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere }
code, pre { font: .9em ui-monospace, monospace }
pre { overflow-x: auto; padding: .75rem; border: 1px solid var(--line); border-radius: .25rem }
a { color: light-dark(#0550ae, #7cb7ff) }
dt { font-weight: 600 } dd { margin: 0 0 .75rem }
details { border-bottom: 1px solid var(--line) }
summary { padding: .4rem 0; cursor: pointer }
summary b { display: inline-block; min-width: 4.5rem }
summary span, .soft { color: var(--soft) }
table { width: 100%; border-collapse: collapse; margin: .5rem 0 1rem; font-size: .9rem }
th { text-align: left } td, th { padding: .25rem .75rem .25rem 0; border-top: 1px solid var(--line); vertical-align: top; overflow-wrap: break-word }
nav a { margin-right: 1rem; display: inline-block }
"""  # noqa: E501


def page(title: str, body: str, headers: dict[str, str] | None = None) -> HTMLResponse:
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
    )
    html = f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>\n{body}</body>\n</html>\n'
    return HTMLResponse(html, headers=CONTENT_SECURITY | (headers or {}))


def prose(text: str) -> str:
    """Text with `code` in backticks."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))
