"""The bodies and answers of paid calls, for the OpenAPI document.

They pass through with all their fields, so nothing is validated with these types.
"""

from typing import Annotated, Any, Literal, NotRequired, Required

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from tollgate.core.dialects import generate
from tollgate.core.request_body import MOST_CHOICES, MOST_FALLBACKS, MOST_OUTPUT_TOKENS
from tollgate.core.units import MOST_DOCUMENTS, MOST_IMAGES
from tollgate.web.schemas import REFERENCE, ErrorResponse, Problem, not_both

passes = with_config(ConfigDict(extra="allow"))
Model = Annotated[
    str,
    Field(description="A model that GET /v1/models lists. Without it: the org's default_model, or DEFAULT_MODEL."),
]
Bound = Annotated[int, Field(ge=1, le=MOST_OUTPUT_TOKENS)]
Stop = Annotated[str, Field(max_length=generate.LONGEST_STOP)]


def _asked(example: dict[str, Any], **more: Any) -> Any:
    return with_config(ConfigDict(extra="allow", json_schema_extra={**more, "example": example}))


class Models(TypedDict, total=False):
    model: Model
    models: Annotated[
        list[str],
        Field(
            max_length=MOST_FALLBACKS,
            description="Models to fall back to, in order. Without `model`, the first is the model.",
        ),
    ]
    user: Annotated[str, Field(description="Your name for your own user. It is kept with the request.")]
    cache: Annotated[
        Any,
        Field(
            description="`true`: use the completion cache. `false`: do not, whatever the key is set to. Neither is "
            "forwarded; any other value is."
        ),
    ]


@passes
class StreamOptions(TypedDict, total=False):
    include_usage: Annotated[bool, Field(description="Send the usage in the last chunk.")]


class Generating(Models, total=False):
    stream: Annotated[bool, Field(description="Send the answer as server-sent events. Default: false.")]
    stream_options: StreamOptions
    max_tokens: Annotated[Bound, Field(description="The most output tokens of each choice. It also bounds the hold.")]
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES, description="The number of choices. Each is charged.")]
    temperature: float
    top_p: float
    stop: str | list[str]
    seed: int


@passes
class ContentPart(TypedDict):
    type: Annotated[str, Field(description="Such as `text`, `image_url`, `input_audio` or `file`.")]
    text: NotRequired[str]


@passes
class Message(TypedDict):
    role: Annotated[str, Field(description="Such as `system`, `user`, `assistant` or `tool`.")]
    content: NotRequired[str | list[ContentPart] | None]
    name: NotRequired[str]
    tool_call_id: NotRequired[str]
    tool_calls: NotRequired[list[dict[str, Any]]]


@_asked(
    {"model": "sandbox/echo", "messages": [{"role": "user", "content": "Hello"}]},
    **not_both(("max_tokens", "max_completion_tokens")),
)
class ChatCompletionRequest(Generating, total=False):
    messages: Required[Annotated[list[Message], Field(min_length=1)]]
    max_completion_tokens: Annotated[Bound, Field(description="The newer name of `max_tokens`. Send one of them.")]
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    response_format: dict[str, Any]


@_asked({"model": "sandbox/echo", "prompt": "Hello"})
class CompletionRequest(Generating, total=False):
    prompt: Required[
        Annotated[
            str | list[str] | list[int] | list[list[int]],
            Field(description="A text, several, or their tokens. Each prompt is charged."),
        ]
    ]
    best_of: Annotated[int, Field(ge=1, le=MOST_CHOICES, description="The number of candidates. Each is charged.")]


@_asked({"model": "sandbox/embed", "input": ["Hello"]})
class EmbeddingsRequest(Models, total=False):
    input: Required[
        Annotated[
            str | dict[str, Any] | list[str] | list[int] | list[list[int]] | list[dict[str, Any]],
            Field(description="A text, several, or their tokens. An object as the upstream reads it."),
        ]
    ]
    dimensions: int
    encoding_format: Literal["float", "base64"]


@_asked({"model": "sandbox/echo", "input": "Hello"})
class ResponsesRequest(Models, total=False):
    input: Required[Annotated[str | list[dict[str, Any]], Field(description="A text, or the items of a conversation.")]]
    instructions: str
    stream: Annotated[bool, Field(description="Send the answer as server-sent events. Default: false.")]
    max_output_tokens: Annotated[Bound, Field(description="The most output tokens. It also bounds the hold.")]
    temperature: float
    top_p: float
    reasoning: dict[str, Any]
    text: dict[str, Any]
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]


class Conversation(Models, total=False):
    messages: Required[Annotated[list[Message], Field(min_length=1)]]
    system: str | list[ContentPart]
    tools: list[dict[str, Any]]
    tool_choice: dict[str, Any]
    thinking: dict[str, Any]


@_asked({"model": "sandbox/echo", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]})
class MessagesRequest(Conversation, total=False):
    stream: Annotated[bool, Field(description="Send the answer as server-sent events. Default: false.")]
    max_tokens: Annotated[Bound, Field(description="The most output tokens. It also bounds the hold.")]
    temperature: float
    top_p: float
    top_k: int
    stop_sequences: list[str]


@_asked({"model": "sandbox/echo", "messages": [{"role": "user", "content": "Hello"}]})
class CountTokensRequest(Conversation, total=False):
    pass


@_asked({"model": "sandbox/painter", "prompt": "A red panda", "n": 2})
class ImagesRequest(Models, total=False):
    prompt: Required[Annotated[str, Field(min_length=1, description="What to draw.")]]
    n: Annotated[int, Field(ge=1, le=MOST_IMAGES, description="The number of images. Each is charged. Default: 1.")]
    size: Annotated[str, Field(description="Such as `1024x1024`.")]
    quality: str
    response_format: str
    stream: Annotated[bool, Field(description="Send previews, and then the image, as events. Only without `n`.")]


@_asked({"model": "sandbox/voice", "input": "Hello", "voice": "alloy"})
class SpeechRequest(Models, total=False):
    input: Required[Annotated[str, Field(min_length=1, description="The text to speak. Its characters are charged.")]]
    voice: str
    response_format: Annotated[str, Field(description="Such as `mp3`, `wav` or `pcm`.")]
    instructions: Annotated[str, Field(description="How to speak. Its characters are charged too.")]
    speed: float


class Transcribing(TypedDict, total=False):
    model: Model
    language: Annotated[str, Field(description="That of the recording, such as `en`.")]
    prompt: Annotated[str, Field(description="A text that guides the style, with names as they are spelled.")]
    response_format: Annotated[str, Field(description="`json`, `verbose_json`, `text`, `srt` or `vtt`.")]
    stream: Annotated[bool, Field(description="Send the text as events, where the model can. Default: false.")]


@passes
class TranscriptionForm(Transcribing, total=False):
    """As OpenAI's clients send it, with its fields in any order."""

    file: Required[Annotated[bytes, Field(description="The recording. Its seconds are charged.")]]


@passes
class InputAudio(TypedDict):
    data: Annotated[str, Field(description="The recording in Base64, without a prefix.")]
    format: Annotated[str, Field(description="Such as `wav`, `mp3`, `flac`, `m4a`, `ogg` or `webm`.")]


@with_config(
    ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {"model": "sandbox/ear", "input_audio": {"data": "UklGRiQA", "format": "wav"}, "language": "en"}
        },
    )
)
class TranscriptionRequest(Transcribing, total=False):
    """As OpenRouter documents it."""

    input_audio: Required[InputAudio]


@passes
class Document(TypedDict, total=False):
    text: str
    image: Annotated[str, Field(description="A URL or a data: URL.")]


@_asked({"model": "sandbox/rank", "query": "small birds", "documents": ["A wren is small.", "A tree."]})
class RerankRequest(Models, total=False):
    query: Required[Annotated[str, Field(min_length=1)]]
    documents: Required[
        Annotated[
            list[str | Document],
            Field(
                min_length=1,
                max_length=MOST_DOCUMENTS,
                description="A hundred are one search unit. One of more than 500 tokens counts as several.",
            ),
        ]
    ]
    top_n: Annotated[int, Field(ge=1, description="How many of them to return.")]


@_asked({"model": "our/moderation", "input": "Hello"})
class ModerationsRequest(Models, total=False):
    input: Required[str | Annotated[list[str | ContentPart], Field(min_length=1)]]


@passes
class ChargeOfStream(TypedDict):
    """What the call was charged."""

    charge_nanos: int
    balance_nanos: int
    request_id: str


@passes
class TokenUsage(TypedDict):
    """The usage, as the upstream states it."""

    prompt_tokens: int
    completion_tokens: NotRequired[int]
    total_tokens: int
    cost: NotRequired[
        Annotated[
            float | None, Field(description="The charge in credits, where the upstream states a cost; null if unknown.")
        ]
    ]
    prompt_tokens_details: NotRequired[dict[str, Any] | None]
    completion_tokens_details: NotRequired[dict[str, Any] | None]
    tollgate: NotRequired[Annotated[ChargeOfStream, Field(description="In streams, with `X-Tollgate-Usage: true`.")]]


@passes
class Choice(TypedDict):
    index: int
    finish_reason: NotRequired[
        Annotated[str | None, Field(description="Such as `stop`, `length`, `tool_calls`, `content_filter` or `error`.")]
    ]
    logprobs: NotRequired[dict[str, Any] | None]


@passes
class ChatChoice(Choice):
    message: Message


@passes
class ChunkChoice(Choice):
    delta: Annotated[dict[str, Any], Field(description="What was added to the message: `role`, `content`, tool calls.")]


@passes
class TextChoice(Choice):
    text: str


class Generated(TypedDict):
    id: Annotated[str, Field(description="The upstream's id.")]
    created: Annotated[int, Field(description="In seconds since 1970.")]
    model: Annotated[str, Field(description="The model that answered.")]
    provider: NotRequired[Annotated[str, Field(description="Who served it, at OpenRouter.")]]
    usage: NotRequired[TokenUsage | None]


@passes
class ChatCompletion(Generated):
    object: Literal["chat.completion"]
    choices: list[ChatChoice]


@passes
class ChatCompletionChunk(Generated):
    """The data of one event. The usage is in the last."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChunkChoice]


@passes
class Completion(Generated):
    """Also the data of one event of a stream."""

    object: Literal["text_completion"]
    choices: list[TextChoice]


@passes
class Embedding(TypedDict):
    object: Literal["embedding"]
    index: int
    embedding: Annotated[list[float] | str, Field(description="Numbers, or Base64 of float32 in little endian.")]


@passes
class Embeddings(TypedDict):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: NotRequired[TokenUsage | None]


@passes
class ItemUsage(TypedDict):
    """The usage, as the upstream states it. In Messages, cached tokens are not among the input tokens."""

    input_tokens: int
    output_tokens: int
    cost: NotRequired[
        Annotated[
            float | None, Field(description="The charge in credits, where the upstream states a cost; null if unknown.")
        ]
    ]


@passes
class ResponseAnswer(TypedDict):
    id: Annotated[str, Field(description="The upstream's id.")]
    object: Literal["response"]
    status: Annotated[str, Field(description="Such as `completed`, `incomplete` or `failed`.")]
    model: Annotated[str, Field(description="The model that answered.")]
    output: list[dict[str, Any]]
    usage: NotRequired[ItemUsage | None]


@passes
class MessageAnswer(TypedDict):
    id: Annotated[str, Field(description="The upstream's id.")]
    type: Literal["message"]
    role: Literal["assistant"]
    model: Annotated[str, Field(description="The model that answered.")]
    content: list[dict[str, Any]]
    stop_reason: Annotated[str | None, Field(description="Such as `end_turn`, `max_tokens` or `tool_use`.")]
    usage: ItemUsage


@passes
class CountedTokens(TypedDict):
    input_tokens: int


@passes
class Image(TypedDict):
    b64_json: NotRequired[Annotated[str, Field(description="Its bytes in Base64.")]]
    url: NotRequired[str]


@passes
class Images(TypedDict):
    created: Annotated[int, Field(description="In seconds since 1970.")]
    data: list[Image]
    usage: NotRequired[dict[str, Any] | None]


@passes
class Transcript(TypedDict):
    text: str
    usage: NotRequired[
        Annotated[dict[str, Any] | None, Field(description="Such as the `seconds`, or the tokens, and the `cost`.")]
    ]


@passes
class RerankResult(TypedDict):
    index: Annotated[int, Field(description="The document's place in the request, from 0.")]
    relevance_score: float


@passes
class Reranked(TypedDict):
    model: Annotated[str, Field(description="The model that answered.")]
    results: Annotated[list[RerankResult], Field(description="The most relevant first.")]
    usage: NotRequired[dict[str, Any] | None]


@passes
class ModerationResult(TypedDict):
    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]


@passes
class Moderations(TypedDict):
    id: str
    model: str
    results: list[ModerationResult]


@passes
class TypedEvent(TypedDict):
    """The data of one event of a stream, as the specification of the endpoint describes it."""

    type: Annotated[
        str,
        Field(
            description="Such as `response.output_text.delta`, `content_block_delta` or `image_generation.completed`."
        ),
    ]


@passes
class AnthropicError(TypedDict):
    type: Annotated[str, Field(description="Anthropic's name for this kind of error.")]
    message: Annotated[str, Field(description="What is wrong, and what to do about it.")]
    code: NotRequired[
        Annotated[
            str, Field(description="Our code: docs/reference/errors.md lists them. Absent if the upstream refused.")
        ]
    ]
    param: NotRequired[Annotated[str, Field(description="The field of the request that is wrong.")]]


@passes
class AnthropicErrorResponse(TypedDict):
    """An error in Anthropic's shape, under /messages."""

    type: Literal["error"]
    error: AnthropicError
    request_id: NotRequired[str | None]


@passes
class OpenRouterMetadata(TypedDict):
    """The stable code, and the facts of the error as further fields."""

    error_type: NotRequired[
        Annotated[
            str, Field(description="Our code: docs/reference/errors.md lists them. Absent if the upstream refused.")
        ]
    ]


@passes
class OpenRouterError(TypedDict):
    code: Annotated[int, Field(description="The status.")]
    message: Annotated[str, Field(description="What is wrong, and what to do about it.")]
    metadata: NotRequired[OpenRouterMetadata]
    param: NotRequired[Annotated[str, Field(description="The field of the request that is wrong.")]]


@passes
class OpenRouterErrorResponse(TypedDict):
    """An error in OpenRouter's shape, under /api/v1."""

    error: OpenRouterError


class Prompting(TypedDict, total=False):
    model: Model
    max_new_tokens: Annotated[Bound, Field(description="The most output tokens. It also bounds the hold.")]
    temperature: float
    top_p: float
    top_k: Annotated[int, Field(ge=1, le=generate.MOST_TOP_K)]
    stop: Annotated[
        Stop | Annotated[list[Stop], Field(max_length=generate.MOST_STOPS)],
        Field(description="Texts that end the output."),
    ]
    cache: Annotated[bool, Field(description="Whether a stored answer may be used.")]


@with_config(ConfigDict(extra="forbid", json_schema_extra={"example": {"model": "sandbox/echo", "prompt": "Hello"}}))
class GenerateRequest(Prompting, total=False):
    prompt: Required[str]
    stream: Annotated[bool, Field(description="Send the output as server-sent events. Default: false.")]


@with_config(ConfigDict(extra="forbid", json_schema_extra={"example": {"model": "sandbox/echo", "prompts": ["Hello"]}}))
class GenerateBatchRequest(Prompting, total=False):
    prompts: Required[Annotated[list[str], Field(min_length=1, max_length=generate.MOST_PROMPTS)]]
    stream: Annotated[Literal[False], Field(description="A batch is answered as a whole.")]


class GenerateAnswer(TypedDict):
    model: Annotated[str, Field(description="The model that answered.")]
    output: Annotated[str, Field(description="The text. Reasoning is left out.")]
    finish_reason: Annotated[str | None, Field(description="Such as `stop`, `length`, `content_filter` or `error`.")]
    prompt_tokens: Annotated[int | None, Field(description="As the upstream counts them; null if it does not.")]
    completion_tokens: int | None
    cached: Annotated[bool, Field(description="Whether this is a stored answer.")]
    charge_nanos: Annotated[int | None, Field(description="The charge; null while it is not known.")]
    charge_credits: Annotated[str | None, Field(description="The same in credits.")]
    request_id: Annotated[str, Field(description="The id of the request in /user/usage, and for a refund.")]
    error: NotRequired[Annotated[Problem, Field(description="Why the output ends, if the upstream failed half-way.")]]


class GenerateEvent(TypedDict):
    """The data of one event: a piece of the text, or, in the last, an empty one and the other fields of an answer."""

    output: NotRequired[Annotated[str, Field(description="The next piece of the text.")]]
    model: NotRequired[str]
    finish_reason: NotRequired[str | None]
    prompt_tokens: NotRequired[int | None]
    completion_tokens: NotRequired[int | None]
    cached: NotRequired[bool]
    charge_nanos: NotRequired[int | None]
    charge_credits: NotRequired[str | None]
    request_id: NotRequired[str]
    error: NotRequired[Annotated[Problem, Field(description="Alone: why the stream broke off.")]]


class GenerateResult(GenerateAnswer):
    replayed: NotRequired[
        Annotated[Literal[True], Field(description="The answer of an earlier batch, which was charged for it.")]
    ]


class GenerateFailure(TypedDict):
    output: None
    cached: Literal[False]
    prompt_tokens: None
    completion_tokens: None
    charge_nanos: Annotated[int | None, Field(description="The charge; null while it is not known.")]
    charge_credits: str | None
    request_id: NotRequired[Annotated[str, Field(description="The id of the request, if the prompt was sent.")]]
    status: Annotated[int, Field(description="The status that /v1/generate would have answered.")]
    error: Problem


class GenerateBatchAnswer(TypedDict):
    model: Annotated[str, Field(description="As it was asked for.")]
    results: Annotated[list[GenerateResult | GenerateFailure], Field(description="In the order of the prompts.")]
    charge_nanos: Annotated[
        int | None, Field(description="What this batch was charged, replays not counted; null while it is not known.")
    ]
    charge_credits: str | None


SHAPES: tuple[Any, ...] = (
    ChatCompletionRequest, CompletionRequest, EmbeddingsRequest, ChatCompletion, ChatCompletionChunk, Completion,
    Embeddings, ResponsesRequest, ResponseAnswer, MessagesRequest, MessageAnswer, CountTokensRequest, CountedTokens,
    ImagesRequest, Images, SpeechRequest, RerankRequest, Reranked, ModerationsRequest, Moderations,
    TranscriptionForm, TranscriptionRequest, Transcript,
    TypedEvent, GenerateRequest, GenerateAnswer, GenerateEvent, GenerateBatchRequest, GenerateBatchAnswer,
    ErrorResponse, OpenRouterErrorResponse, AnthropicErrorResponse,
)  # fmt: skip


def components() -> dict[str, Any]:
    """All schemas, by name."""
    _, made = TypeAdapter.json_schemas(
        [(shape.__name__, "serialization", TypeAdapter(shape)) for shape in SHAPES], ref_template=REFERENCE
    )
    return dict(made["$defs"])
