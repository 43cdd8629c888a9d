"""The usage of a chat completion under the names of Responses and Messages."""

from typing import Any

Reported = dict[str, Any]
"""{"usage": …}, or {} to leave it out."""


def of_responses(reported: Reported) -> Reported:
    usage = reported.get("usage")
    if not usage:
        return reported
    details = usage["cost_details"]
    return {
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": usage["prompt_tokens_details"]["cached_tokens"]},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": usage["completion_tokens_details"]["reasoning_tokens"]},
            "total_tokens": usage["total_tokens"],
            **_cost(usage),
            "cost_details": {
                "upstream_inference_cost": details["upstream_inference_cost"],
                "upstream_inference_input_cost": details["upstream_inference_prompt_cost"],
                "upstream_inference_output_cost": details["upstream_inference_completions_cost"],
            },
            **_tools(usage),
        }
    }


def of_messages(reported: Reported) -> Reported:
    """Cached tokens are counted apart from the others here."""
    usage = reported.get("usage")
    if not usage:
        return reported
    details, prompt = usage["prompt_tokens_details"], usage["prompt_tokens"]
    read, written = details["cached_tokens"], details.get("cache_write_tokens", 0)
    searches = usage.get("server_tool_use_details", {}).get("web_search_requests", 0)
    return {
        "usage": {
            "input_tokens": prompt - read - written if isinstance(prompt, int) else prompt,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": read,
            "cache_creation": None,
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": None,
            "server_tool_use": {"web_search_requests": searches, "web_fetch_requests": 0} if searches else None,
            "service_tier": "standard",
            "inference_geo": None,
            **_cost(usage),
            "cost_details": usage["cost_details"],
        }
    }


def _cost(usage: dict[str, Any]) -> dict[str, Any]:
    return {"cost": usage["cost"], "is_byok": usage["is_byok"]}


def _tools(usage: dict[str, Any]) -> dict[str, Any]:
    return {name: usage[name] for name in ("server_tool_use_details",) if name in usage}
