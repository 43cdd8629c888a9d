"""What becomes of each member of a request to /v1/messages."""

from collections.abc import Mapping
from typing import Final

from tollgate.core.dialects.treatments import Table, ignored, refused, translated

_MARK: Final = ignored("It asks for a cheaper answer, not for another one.")
_TYPE: Final = translated("Selects this table.")
_TEXT: Final = {
    "type": _TYPE,
    "text": translated("A `text` part."),
    "cache_control": _MARK,
    "citations": ignored("It describes where an earlier answer quoted from; its text stays."),
}
_KEEPS_ALL: Final = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
"""As Claude Code sends it."""
_CALL_AGAIN: Final = refused("Only tools that the client runs can be called.")

FIELDS: Final[Table] = {
    "model": translated("`model`."),
    "models": translated("`models`: the models to fall back to."),
    "provider": translated("`provider`."),
    "max_tokens": translated("`max_tokens`."),
    "messages": translated("`messages`; neighbours of one role are one message. The last is not the assistant's."),
    "system": translated("The first message, of role `system`."),
    "stop_sequences": translated("`stop`."),
    "stream": translated("`stream`, with `stream_options.include_usage`."),
    "temperature": translated("`temperature`."),
    "top_p": translated("`top_p`."),
    "top_k": translated("`top_k`, which many chat servers know."),
    "metadata": translated("`user_id` becomes `user`."),
    "thinking": translated("`reasoning_effort`, see below. `output_config.effort` wins."),
    "output_config": translated("`effort` becomes `reasoning_effort`, `format` becomes `response_format`."),
    "tools": translated("`tools`, if the client runs them."),
    "tool_choice": translated("`tool_choice` and `parallel_tool_calls`; `any` becomes `required`."),
    "cache_control": _MARK,
    "service_tier": ignored("There is one tier."),
    "speed": refused("There is one speed.", "standard"),
    "container": refused("There are no containers."),
    "context_management": refused("Nothing edits the context.", {"edits": []}, _KEEPS_ALL),
    "diagnostics": refused("There is no diagnosis of cache misses."),
    "inference_geo": refused("The server runs where it runs."),
    "mcp_servers": refused("Only tools that the client runs can be called."),
    "user_profile_id": refused("There are no user profiles."),
    "workspace_id": refused("There are no workspaces."),
}
THINKING: Final[Table] = {
    "type": translated("`disabled` becomes `none`, `enabled` the effort of its budget, `adaptive` nothing."),
    "budget_tokens": translated("Up to 2,048 `low`, up to 8,192 `medium`, beyond `high`."),
    "display": refused("Reasoning is shown as the server sends it.", "summarized"),
}
OUTPUT: Final[Table] = {
    "effort": translated("`reasoning_effort`."),
    "format": translated("`response_format`, with the name `answer`."),
}
FORMAT: Final[Table] = {"type": _TYPE, "schema": translated("`json_schema.schema`.")}
METADATA: Final[Table] = {"user_id": translated("`user`.")}
TOOL: Final[Table] = {
    "type": refused("Only tools that the client runs can be called.", "custom"),
    "name": translated("`function.name`."),
    "description": translated("`function.description`."),
    "input_schema": translated("`function.parameters`."),
    "strict": translated("`function.strict`."),
    "cache_control": _MARK,
    "eager_input_streaming": ignored("Arguments stream as the server sends them."),
    "allowed_callers": refused("Only the model itself calls tools.", ["direct"], []),
    "defer_loading": refused("All tools are loaded.", False),
    "input_examples": refused("Put examples into the description.", []),
}
CHOICE: Final[Table] = {
    "type": translated("`auto`, `any` as `required`, `tool` as the function's name, or `none`."),
    "name": translated("`function.name`."),
    "disable_parallel_tool_use": translated("`parallel_tool_calls`, negated."),
}
MESSAGE: Final[Table] = {
    "role": translated("`user`, `assistant` or `system`."),
    "content": translated("A text, or a list of parts."),
}
BLOCKS: Final[Mapping[str, Table]] = {
    "text": _TEXT,
    "image": {
        "type": _TYPE,
        "source": translated("An `image_url` part: a `data:` URL, or the URL."),
        "cache_control": _MARK,
        "transformations": refused("Images are sent as they are.", {}),
    },
    "document": {
        "type": _TYPE,
        "source": translated("A PDF in `base64` becomes a `file` part, plain text a `text` part."),
        "title": translated("`file.filename`; a plain text begins with it."),
        "context": refused("Put it into a text block."),
        "citations": refused("The server does not cite.", {"enabled": False}),
        "cache_control": _MARK,
    },
    "tool_use": {
        "type": _TYPE,
        "id": translated("`tool_calls[].id`."),
        "name": translated("`function.name`."),
        "input": translated("`function.arguments`, as text."),
        "cache_control": _MARK,
        "caller": refused("Only the model itself calls tools.", {"type": "direct"}),
        "toolset_name": _CALL_AGAIN,
    },
    "tool_result": {
        "type": _TYPE,
        "tool_use_id": translated("`tool_call_id` of a message of role `tool`."),
        "content": translated("Its content. Results come before all else in a message."),
        "is_error": translated("The content begins with `Error: `."),
        "cache_control": _MARK,
        "toolset_name": _CALL_AGAIN,
    },
    "thinking": {
        "type": _TYPE,
        "thinking": translated("The reasoning of the message, where the signature is one of ours."),
        "signature": translated("Names the field. Without one of ours, the block is ignored: another model wrote it."),
    },
    "redacted_thinking": {
        "type": _TYPE,
        "data": ignored("Another model wrote it, and only that model can read it."),
    },
}
SOURCES: Final[Mapping[str, Table]] = {
    "base64": {
        "type": _TYPE,
        "media_type": translated("The type in the `data:` URL."),
        "data": translated("The data in it."),
    },
    "url": {"type": _TYPE, "url": translated("The URL of an image. A document must be sent itself.")},
    "text": {"type": _TYPE, "media_type": ignored("It is always text/plain."), "data": translated("The text.")},
}

DOCUMENTED: Final[Mapping[str, Table]] = {
    "Body": FIELDS,
    "`thinking`": THINKING,
    "`output_config`": OUTPUT,
    "`output_config.format`": FORMAT,
    "`metadata`": METADATA,
    "`tools[]`": TOOL,
    "`tool_choice`": CHOICE,
    "`messages[]`": MESSAGE,
    **{f"A block of type `{kind}`": table for kind, table in BLOCKS.items()},
    **{f"A source of type `{kind}`": table for kind, table in SOURCES.items()},
}
