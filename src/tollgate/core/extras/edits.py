"""Writes the bounds that a call's extras were priced with into its body, where the client left them open."""

import json
from functools import partial
from typing import TypeGuard

from tollgate.core.extras.requested import FETCH_TOKENS, FETCH_TOOL, NATIVE_SEARCH_TOOL, SEARCH_TOOLS, Extras
from tollgate.core.strict_json import Edits, edit_items, edit_text, unless_set

SEARCH_OFF = '{"id":"web","enabled":false}'


def edits(extras: Extras, *, search_off: bool) -> Edits:
    """`search_off` switches the web plugin off, which an account's defaults at OpenRouter may have on."""
    if not extras.looped:
        return {"plugins": _without_search} if search_off else {}
    return {
        "plugins": partial(_bounded_plugins, extras.steps, search_off),
        "tools": partial(_bounded_tools, extras.steps),
        **(_bound(extras) if extras.sends_steps else {}),
    }


def _bound(extras: Extras) -> Edits:
    if not extras.by_condition:
        return {"max_tool_calls": str(extras.steps)}
    condition = {"type": "step_count_is", "step_count": extras.steps - 1}
    return {"stop_server_tools_when": json.dumps([condition], separators=(",", ":"))}


def _bounded_plugins(steps: int, search_off: bool, written: str | None) -> str | None:
    bounded = edit_items(written, partial(_bounded_plugin, steps)) if _is_set(written) else written
    return _without_search(bounded) if search_off else bounded


def _bounded_plugin(steps: int, plugin: str) -> str:
    is_fetch = json.loads(plugin).get("id") == "web-fetch"
    return edit_text(plugin, _fetch_bounds(steps)) if is_fetch else plugin


def _bounded_tools(steps: int, written: str | None) -> str | None:
    return edit_items(written, partial(_bounded_tool, steps)) if _is_set(written) else written


def _bounded_tool(steps: int, tool: str) -> str:
    """A search tool without OpenRouter's prefix is also run by providers, which read max_uses beside its type."""
    kind = json.loads(tool).get("type")
    if kind == FETCH_TOOL:
        return edit_text(tool, {"parameters": partial(_edited_object, _fetch_bounds(steps))})
    if kind not in SEARCH_TOOLS and not NATIVE_SEARCH_TOOL.fullmatch(kind or ""):
        return tool
    uses = {"max_uses": unless_set(str(steps))}
    return edit_text(tool, {"parameters": partial(_edited_object, uses)} if kind.startswith("openrouter:") else uses)


def _fetch_bounds(steps: int) -> Edits:
    return {"max_uses": unless_set(str(steps)), "max_content_tokens": unless_set(str(FETCH_TOKENS))}


def _edited_object(edits: Edits, written: str | None) -> str:
    return edit_text(written if _is_set(written) else "{}", edits)


def _without_search(written: str | None) -> str:
    """A web plugin that the client lists is disabled already: enabled, it would cost something."""
    plugins = written if _is_set(written) else "[]"
    listed = json.loads(plugins)
    if any(plugin.get("id") == "web" for plugin in listed):
        return plugins
    return plugins.replace("[", f"[{SEARCH_OFF}," if listed else f"[{SEARCH_OFF}", 1)


def _is_set(written: str | None) -> TypeGuard[str]:
    return written not in (None, "null")
