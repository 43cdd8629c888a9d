"""The paid endpoints, one entry each: their paths, how they are asked, and which servers have them.

To add one, add an entry here, how it answers to `completions/answer_forms.py`, and what is documented of it to
`completions/openapi.py`. A call of it in `tests/completions/asks.py` takes it through the suites of the paid path.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple, get_args

from tollgate.core import units
from tollgate.core.models import VENDORS, Dialect, OwnDialect
from tollgate.core.sound_lengths import Length
from tollgate.core.units import Units

Endpoint = Literal[
    "chat", "completions", "embeddings", "responses", "messages", "count_tokens", "generate", "images", "speech",
    "rerank", "moderations", "transcriptions", "translations",
]  # fmt: skip

OWN: Final[frozenset[Dialect]] = frozenset(get_args(OwnDialect))
EVERY_DIALECT: Final[frozenset[Dialect]] = frozenset(("openrouter", *OWN, *VENDORS))
WITH_COMPLETIONS: Final = EVERY_DIALECT - {"anthropic", "groq", "mistral"}
WITH_EMBEDDINGS: Final = EVERY_DIALECT - {"anthropic", "groq"}
WITH_RESPONSES: Final[frozenset[Dialect]] = frozenset(("openrouter", "vllm", "openai-platform", "azure-openai"))
"""llama.cpp's server has the path as well, but OpenAI's client cannot read its streams: docs/decisions/0052."""
WITH_MESSAGES: Final[frozenset[Dialect]] = frozenset(("openrouter", "vllm", "llamacpp", "anthropic"))
COUNTING: Final[frozenset[Dialect]] = frozenset(("vllm", "llamacpp", "anthropic"))
MAKING_IMAGES: Final[frozenset[Dialect]] = frozenset(("openrouter", "vllm", "sglang", "openai"))
SPEAKING: Final[frozenset[Dialect]] = frozenset(("openrouter", "vllm", "openai"))
RANKING: Final[frozenset[Dialect]] = frozenset(("openrouter", "vllm", "sglang", "llamacpp", "openai"))
MODERATING: Final[frozenset[Dialect]] = frozenset(("openai",))
HEARING: Final[frozenset[Dialect]] = frozenset(("openrouter", "vllm", "sglang", "llamacpp", "openai"))
TRANSLATING_SOUND: Final[frozenset[Dialect]] = frozenset(("vllm", "openai"))
NO_DIALECT: Final[frozenset[Dialect]] = frozenset()

OF_CHATS: Final = frozenset(("text", "image", "audio"))
KEEPS_NOTHING: Final = "Tollgate and its upstreams keep no responses. Send the whole conversation in input."
MESSAGES: Final = "a list of messages, each an object"
MOUNTS: Final = ("/v1", "/api/v1")
BATCH_PATH: Final = "/generate/batch"
"""Its prompts are calls of the endpoint generate."""


class Form(NamedTuple):
    """How an endpoint is asked."""

    path: str
    """Under each of MOUNTS, and under the base URL of an upstream."""
    scope: str
    """The scope that a key needs."""
    prompt: str
    """The field with the messages, prompts or inputs. See `prompt_of`."""
    kinds: tuple[type, ...]
    """What each of them may be."""
    expected: str
    """The same in words, for refusals."""
    dialects: frozenset[Dialect] = EVERY_DIALECT
    """The kinds of server that have the endpoint."""
    alone: tuple[type, ...] = (str,)
    """What counts as a list of one."""
    also_prompt: str | None = None
    """A field that vLLM reads in place of the prompt."""
    bounds: tuple[str, ...] = ()
    """The names of the output bound. The first is the one that all servers know. None: the answer has no output."""
    bound_aliases: tuple[str, ...] = ()
    """llama.cpp's names for the bound. They are sent under one of `bounds`."""
    refused_bounds: tuple[str, ...] = ()
    """Names by which some server could read another bound."""
    one_prompt: bool = True
    """All parts of the prompt are in one context."""
    has_messages: bool = False
    """Whether the prompt is a list of messages, each with a role."""
    scores_prompts: bool = False
    """Whether vLLM can score a prompt without an answer, and read it as embeddings."""
    nested_media: bool = False
    """Whether the prompt is in the form of OpenAI's Responses or Anthropic's Messages, with media in nested lists."""
    asks_for_usage: bool = False
    """Whether a stream states its usage only if stream_options ask for it."""
    state: Mapping[str, str] = {}
    """Fields that refer to what a server keeps, and why they are refused. False and null are not refused."""
    is_translated: bool = False
    """Whether servers without the endpoint get chat completions instead."""
    is_free: bool = False
    streams: bool = False
    """Whether it can answer in events, although nothing bounds its output."""
    units: Callable[[Mapping[str, Any]], Units] | None = None
    """The most that a body asks for beside tokens; raises BadRequest. None: the endpoint is priced by tokens alone."""
    meters: frozenset[str] = frozenset()
    """The names of UnitPrices that it can be charged by. A model with another of these prices is refused here."""
    floor: str | None = None
    """The register's name for the least price of an image or a request at OpenRouter, whatever its listing says."""
    repeated: str | None = None
    """A text that is read again with each part of the prompt."""
    is_spoken: bool = False
    """The prompt has the price of its characters, not of its tokens."""
    own_fields: frozenset[str] = frozenset()
    """Fields that ask for an extra elsewhere, and not here."""
    extras: tuple[str, ...] = ()
    """Fields that ask for an extra here."""
    takes_file: bool = False
    """The prompt is a file with sound: in a form, or as OpenRouter's `input_audio`."""
    answers_bytes: bool = False
    """An answer is neither JSON nor events: it is passed on as it comes."""
    outputs: frozenset[str] = OF_CHATS
    """The output modalities of the models that it is for. One of them is enough."""
    also: tuple[str, ...] = ()
    """Other paths of the endpoint for clients."""
    elsewhere: Mapping[Dialect, str] = {}
    """Its path at servers that have it under another name."""

    @property
    def paths(self) -> tuple[str, ...]:
        """For clients, under each of MOUNTS."""
        return (self.path, *self.also)

    def prompt_of(self, given: Mapping[str, Any]) -> str:
        """The field that has the prompt in this body."""
        also = self.also_prompt
        return also if also and given.get(self.prompt) is None and given.get(also) is not None else self.prompt

    @property
    def needs_native(self) -> bool:
        """Servers without the endpoint cannot take part: there is no translation, and no answer of our own."""
        return not (self.is_translated or self.is_free)

    @property
    def generates(self) -> bool:
        return bool(self.bounds)


ENDPOINTS: Final[Mapping[Endpoint, Form]] = {
    "chat": Form(
        "/chat/completions",
        "chat",
        "messages",
        (dict,),
        MESSAGES,
        bounds=("max_tokens", "max_completion_tokens"),
        bound_aliases=("n_predict",),
        has_messages=True,
        asks_for_usage=True,
    ),
    "completions": Form(
        "/completions",
        "completions",
        "prompt",
        (str, int, list),
        "a text, a list of texts, or a list of tokens",
        WITH_COMPLETIONS,
        bounds=("max_tokens",),
        bound_aliases=("n_predict",),
        refused_bounds=("max_completion_tokens",),
        one_prompt=False,
        scores_prompts=True,
        asks_for_usage=True,
    ),
    "embeddings": Form(
        "/embeddings",
        "embeddings",
        "input",
        (str, int, list, dict),
        "a text, an object, or a list of texts, tokens or objects",
        WITH_EMBEDDINGS,
        alone=(str, dict),
        also_prompt="messages",
        one_prompt=False,
        outputs=frozenset(("embeddings",)),
    ),
    "responses": Form(
        "/responses",
        "chat",
        "input",
        (str, dict),
        "a text or a list of objects",
        WITH_RESPONSES,
        bounds=("max_output_tokens",),
        refused_bounds=("max_tokens", "max_completion_tokens", "n_predict"),
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
        MESSAGES,
        WITH_MESSAGES,
        bounds=("max_tokens",),
        refused_bounds=("max_completion_tokens", "max_output_tokens", "n_predict"),
        has_messages=True,
        nested_media=True,
        is_translated=True,
    ),
    "count_tokens": Form(
        "/messages/count_tokens",
        "chat",
        "messages",
        (dict,),
        MESSAGES,
        COUNTING,
        has_messages=True,
        nested_media=True,
        is_free=True,
    ),
    "generate": Form(
        "/generate",
        "chat",
        "prompt",
        (str,),
        "a text",
        NO_DIALECT,
        bounds=("max_new_tokens",),
        refused_bounds=("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict"),
        is_translated=True,
    ),
    "images": Form(
        "/images/generations",
        "chat",
        "prompt",
        (str,),
        "a text",
        MAKING_IMAGES,
        streams=True,
        units=units.of_images,
        meters=frozenset(("output_image",)),
        floor="output:image",
        also=("/images",),
        elsewhere={"openrouter": "/images"},
        outputs=frozenset(("image",)),
    ),
    "speech": Form(
        "/audio/speech",
        "chat",
        "input",
        (str,),
        "a text",
        SPEAKING,
        units=units.of_speech,
        meters=frozenset(("character",)),
        is_spoken=True,
        own_fields=frozenset(("speed",)),
        extras=("input_references",),
        answers_bytes=True,
        outputs=frozenset(("speech", "audio")),
    ),
    "rerank": Form(
        "/rerank",
        "embeddings",
        "documents",
        (str, dict),
        "a list of texts or objects",
        RANKING,
        one_prompt=False,
        units=units.of_rerank,
        floor="rerank:unit",
        repeated="query",
        outputs=frozenset(("rerank",)),
    ),
    "moderations": Form(
        "/moderations",
        "chat",
        "input",
        (str, dict),
        "a text, or a list of texts or objects",
        MODERATING,
        one_prompt=False,
        units=units.of_request,
        outputs=frozenset(("moderation",)),
    ),
    "transcriptions": Form(
        "/audio/transcriptions",
        "chat",
        "file",
        (Length,),
        "a file with sound",
        HEARING,
        one_prompt=False,
        streams=True,
        units=units.of_sound,
        meters=frozenset(("second",)),
        floor="sound:second",
        takes_file=True,
        outputs=frozenset(("transcription",)),
    ),
    "translations": Form(
        "/audio/translations",
        "chat",
        "file",
        (Length,),
        "a file with sound",
        TRANSLATING_SOUND,
        one_prompt=False,
        streams=True,
        units=units.of_sound,
        meters=frozenset(("second",)),
        floor="sound:second",
        takes_file=True,
        outputs=frozenset(("transcription",)),
    ),
}
