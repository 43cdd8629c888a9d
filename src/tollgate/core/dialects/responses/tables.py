"""What becomes of each member of a request to /v1/responses."""

from collections.abc import Mapping
from typing import Final

from tollgate.core.dialects.treatments import Table, ignored, refused, translated

_TYPE: Final = translated("Selects this table.")
_STATE: Final = ignored("It describes an earlier answer; what was said stays.")
_CACHING: Final = ignored("It asks for a cheaper answer, not for another one.")
_SHOWN: Final = ignored("The answer shows it.")
_STORED: Final = refused("Nothing is stored. Send the whole conversation as input.")
_CALLED: Final = refused("Only the model itself calls tools.", {"type": "direct"})
_NAMESPACE: Final = refused("There are no namespaces.")

FIELDS: Final[Table] = {
    "model": translated("`model`."),
    "models": translated("`models`: the models to fall back to."),
    "provider": translated("`provider`."),
    "input": translated("`messages`; a text is a message of the user."),
    "instructions": translated("The first message, of role `system`."),
    "max_output_tokens": translated("`max_tokens`."),
    "stream": translated("`stream`, with `stream_options.include_usage`."),
    "temperature": translated("`temperature`."),
    "top_p": translated("`top_p`."),
    "presence_penalty": translated("`presence_penalty`."),
    "frequency_penalty": translated("`frequency_penalty`."),
    "parallel_tool_calls": translated("`parallel_tool_calls`."),
    "service_tier": translated("`service_tier`."),
    "user": translated("`user`."),
    "reasoning": translated("`effort` becomes `reasoning_effort`."),
    "text": translated("`format` becomes `response_format`, `verbosity` stays `verbosity`."),
    "tools": translated("`tools`, if they are functions."),
    "tool_choice": translated("`tool_choice`. Of `allowed_tools`, only those are sent."),
    "include": translated("Reasoning items get an `encrypted_content`, if it is asked for. Logarithms are refused."),
    "metadata": _SHOWN,
    "max_tool_calls": ignored("It bounds tools that the server runs, and there are none. The answer shows it."),
    "prompt_cache_key": _CACHING,
    "prompt_cache_options": _CACHING,
    "prompt_cache_retention": _CACHING,
    "safety_identifier": _SHOWN,
    "stream_options": ignored("Nothing is obfuscated."),
    "truncation": ignored("A conversation that is too long is refused by the server."),
    "top_logprobs": refused("Logarithms of probabilities are not translated.", 0),
    "background": refused("Only the request itself gets the answer.", False),
    "store": refused("Nothing is stored.", False),
    "previous_response_id": _STORED,
    "conversation": _STORED,
    "prompt": _STORED,
    "context_management": refused("Nothing edits the context.", []),
    "moderation": refused("The server does not moderate."),
}
REASONING: Final[Table] = {
    "effort": translated("`reasoning_effort`."),
    "summary": ignored("Reasoning is shown as the server sends it, as the summary."),
    "generate_summary": ignored("The older name of `summary`."),
    "context": refused("The server decides which reasoning its model sees again.", "auto"),
    "mode": refused("There is one mode.", "standard"),
}
TEXT: Final[Table] = {
    "format": translated("`response_format`."),
    "verbosity": translated("`verbosity`."),
}
FORMATS: Final[Mapping[str, Table]] = {
    "text": {"type": translated("It is the default.")},
    "json_object": {"type": translated("The same type.")},
    "json_schema": {
        "type": translated("The same type."),
        "name": translated("`json_schema.name`."),
        "description": translated("`json_schema.description`."),
        "schema": translated("`json_schema.schema`."),
        "strict": translated("`json_schema.strict`."),
    },
}
TOOL: Final[Table] = {
    "type": refused("Only functions, which the client runs, can be called.", "function"),
    "name": translated("`function.name`."),
    "description": translated("`function.description`."),
    "parameters": translated("`function.parameters`."),
    "strict": translated("`function.strict`. Where it is absent, the server decides."),
    "output_schema": refused("Put it into the description."),
    "allowed_callers": refused("Only the model itself calls tools.", ["direct"], []),
    "defer_loading": refused("All tools are loaded.", False),
}
CHOICES: Final[Mapping[str, Table]] = {
    "function": {"type": _TYPE, "name": translated("`function.name`.")},
    "allowed_tools": {
        "type": _TYPE,
        "mode": translated("`tool_choice`."),
        "tools": translated("Only these are sent."),
    },
}
ITEMS: Final[Mapping[str, Table]] = {
    "message": {
        "type": ignored("It may be absent."),
        "role": translated("The same, with `developer` as `system`."),
        "content": translated("A text, or a list of parts."),
        "id": _STATE,
        "status": _STATE,
        "phase": _STATE,
    },
    "function_call": {
        "type": _TYPE,
        "call_id": translated("`tool_calls[].id`. Neighbours, and the message before them, are one message."),
        "name": translated("`function.name`."),
        "arguments": translated("`function.arguments`."),
        "id": _STATE,
        "status": _STATE,
        "caller": _CALLED,
        "namespace": _NAMESPACE,
    },
    "function_call_output": {
        "type": _TYPE,
        "call_id": translated("`tool_call_id` of a message of role `tool`."),
        "output": translated("Its content."),
        "id": _STATE,
        "status": _STATE,
        "name": ignored("The call has it."),
        "caller": _CALLED,
        "namespace": _NAMESPACE,
    },
    "reasoning": {
        "type": _TYPE,
        "summary": translated("The reasoning of the next message, where `encrypted_content` is ours."),
        "encrypted_content": translated("Names the field. Without ours, the item is ignored: another model wrote it."),
        "content": ignored("The summary says the same, or another model wrote it."),
        "id": _STATE,
        "status": _STATE,
    },
}
_BREAKPOINT: Final = {"type": _TYPE, "prompt_cache_breakpoint": _CACHING}
PARTS: Final[Mapping[str, Table]] = {
    "input_text": {**_BREAKPOINT, "text": translated("A `text` part.")},
    "output_text": {
        "type": _TYPE,
        "text": translated("A `text` part."),
        "annotations": _STATE,
        "logprobs": _STATE,
    },
    "refusal": {"type": _TYPE, "refusal": translated("A `refusal` part.")},
    "input_image": {
        **_BREAKPOINT,
        "image_url": translated("`image_url.url`."),
        "detail": translated("`image_url.detail`."),
        "file_id": refused("Nothing is stored. Send the image itself or its URL."),
    },
    "input_file": {
        **_BREAKPOINT,
        "filename": translated("`file.filename`."),
        "file_data": translated("`file.file_data`."),
        "file_url": refused("Send the file itself as file_data."),
        "file_id": refused("Nothing is stored. Send the file itself as file_data."),
        "detail": refused("Files are sent as they are.", "auto"),
    },
}

DOCUMENTED: Final[Mapping[str, Table]] = {
    "Body": FIELDS,
    "`reasoning`": REASONING,
    "`text`": TEXT,
    **{f"`text.format` of type `{kind}`": table for kind, table in FORMATS.items()},
    "`tools[]`": TOOL,
    **{f"`tool_choice` of type `{kind}`": table for kind, table in CHOICES.items()},
    **{f"An item of type `{kind}`": table for kind, table in ITEMS.items()},
    **{f"A part of type `{kind}`": table for kind, table in PARTS.items()},
}
