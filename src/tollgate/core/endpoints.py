"""The paid endpoints, one entry each: their paths, how they are asked, and which servers have them.

To add one, add an entry here; if its answers have a new form, add that to `completions/answer_forms.py`.
"""

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple, get_args

from tollgate.core.models import VENDORS, Dialect, OwnDialect

Endpoint = Literal["chat", "completions", "embeddings", "responses", "messages", "count_tokens"]

OWN: Final[frozenset[Dialect]] = frozenset(get_args(OwnDialect))
EVERY_DIALECT: Final[frozenset[Dialect]] = frozenset(("openrouter", *OWN, *VENDORS))
WITH_COMPLETIONS: Final = EVERY_DIALECT - {"anthropic", "groq", "mistral"}
WITH_EMBEDDINGS: Final = EVERY_DIALECT - {"anthropic", "groq"}
WITH_RESPONSES: Final[frozenset[Dialect]] = frozenset(
    ("openrouter", "vllm", "llamacpp", "openai-platform", "azure-openai")
)
WITH_MESSAGES: Final[frozenset[Dialect]] = frozenset(("openrouter", "vllm", "llamacpp", "anthropic"))
COUNTING: Final[frozenset[Dialect]] = frozenset(("vllm", "llamacpp", "anthropic"))

KEEPS_NOTHING: Final = "Tollgate and its upstreams keep no responses. Send the whole conversation in input."
MOUNTS: Final = ("/v1", "/api/v1")


class Form(NamedTuple):
    """How an endpoint is asked."""

    path: str
    """Under each of MOUNTS, and under the base URL of an upstream."""
    scope: str
    """The scope that a key needs."""
    prompt: str
    """The field with the messages, prompts or inputs."""
    kinds: tuple[type, ...]
    """What each of them may be. A single text counts as a list of one."""
    dialects: frozenset[Dialect] = EVERY_DIALECT
    """The kinds of server that have the endpoint."""
    bounds: tuple[str, ...] = ()
    """The names of the output bound. The first is the one that all servers know. None: the answer has no output."""
    refused_bounds: tuple[str, ...] = ()
    """Names by which some server could read another bound."""
    one_prompt: bool = True
    """All parts of the prompt are in one context."""
    has_messages: bool = False
    """Whether the prompt is a list of messages, each with a role."""
    nested_media: bool = False
    """Whether the prompt is in the form of OpenAI's Responses or Anthropic's Messages, with media in nested lists."""
    asks_for_usage: bool = False
    """Whether a stream states its usage only if stream_options ask for it."""
    state: Mapping[str, str] = {}
    """Fields that refer to what a server keeps, and why they are refused. False and null are not refused."""
    is_translated: bool = False
    """Whether servers without the endpoint get chat completions instead."""
    is_free: bool = False

    @property
    def generates(self) -> bool:
        return bool(self.bounds)


ENDPOINTS: Final[Mapping[Endpoint, Form]] = {
    "chat": Form(
        "/chat/completions",
        "chat",
        "messages",
        (dict,),
        bounds=("max_tokens", "max_completion_tokens"),
        has_messages=True,
        asks_for_usage=True,
    ),
    "completions": Form(
        "/completions",
        "completions",
        "prompt",
        (str, int, list),
        WITH_COMPLETIONS,
        bounds=("max_tokens",),
        refused_bounds=("max_completion_tokens",),
        one_prompt=False,
        asks_for_usage=True,
    ),
    "embeddings": Form("/embeddings", "embeddings", "input", (str, int, list, dict), WITH_EMBEDDINGS, one_prompt=False),
    "responses": Form(
        "/responses",
        "chat",
        "input",
        (str, dict),
        WITH_RESPONSES,
        bounds=("max_output_tokens",),
        refused_bounds=("max_tokens", "max_completion_tokens"),
        nested_media=True,
        is_translated=True,
        state={
            **dict.fromkeys(("previous_response_id", "conversation", "store"), KEEPS_NOTHING),
            "background": "Tollgate answers while the client waits. Use stream for a long answer.",
            "prompt": "A stored prompt has an unknown size. Send its text in instructions and input.",
        },
    ),
    "messages": Form(
        "/messages",
        "chat",
        "messages",
        (dict,),
        WITH_MESSAGES,
        bounds=("max_tokens",),
        refused_bounds=("max_completion_tokens", "max_output_tokens"),
        has_messages=True,
        nested_media=True,
        is_translated=True,
    ),
    "count_tokens": Form(
        "/messages/count_tokens",
        "chat",
        "messages",
        (dict,),
        COUNTING,
        has_messages=True,
        nested_media=True,
        is_free=True,
    ),
}
