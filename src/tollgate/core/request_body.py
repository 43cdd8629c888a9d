"""Reads a paid request: the few fields that decide who serves it and what it may cost.

All other fields pass unchanged, so parameters that upstreams add later work without a release.

null counts as absent, as at OpenAI. An output bound must be a positive whole number, since some servers read 0 as no
bound. vLLM alone is trusted with 0, to score a prompt. `"5"` and `5.0` are 5 for vLLM and no bound for llama.cpp, so
they go upstream as 5. Two names of the bound at once are refused, as by OpenAI, because servers differ in which one
they obey. llama.cpp's n_predict is renamed, and other names for the bound are refused, because they could overrule the
bound that the hold was made for. Fields that would bypass Tollgate (another address, key or headers) are refused and
not dropped, so that a client notices.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from types import NoneType
from typing import Any, Final, Literal, NamedTuple

from tollgate.core import fields, strict_json
from tollgate.core.endpoints import ENDPOINTS, MESSAGES, Endpoint, Form
from tollgate.core.errors import BadRequest
from tollgate.core.extras import requested as extras
from tollgate.core.extras.requested import Extras
from tollgate.core.names import LONGEST_NAME, is_name
from tollgate.core.strict_json import NotJson
from tollgate.core.units import Units

Kind = Literal["image", "audio", "file", "video", "embed"]

MOST_OUTPUT_TOKENS: Final = 1_000_000_000
MOST_CHOICES: Final = 128
MOST_FALLBACKS: Final = 32

TEMPLATE_TOKENS: Final = 100
"""What a server may add to any prompt: role marks, dates, a system prompt of its own."""
LONGEST_MEMBER: Final = 200
"""Characters of a name and its value."""
MESSAGE_TOKENS: Final = 10
"""The most that a chat template puts around a message: its role and marks, and the marks of the answer after it."""
TOOLS_TOKENS: Final = 600
"""What a server adds for tools. Anthropic documents up to 530."""
IMAGE_TOKENS: Final = 5_000
"""The most of one image: Claude 4,784, Gemini 4,128, Pixtral 4,096. gpt-4o-mini counts more, at a lower price."""
AUDIO_CHARACTERS_PER_TOKEN: Final = {"wav": 256, "pcm16": 256}
"""Base64 characters for each token at 32 tokens a second: 8 kHz in 8 bits is the lowest rate in use."""
AUDIO_CHARACTERS_PER_TOKEN_COMPRESSED: Final = 32

FORBIDDEN: Final = {
    **dict.fromkeys(
        ("api_key", "api_base", "base_url", "api_version", "custom_llm_provider"),
        "Tollgate chooses the upstream and its key. Remove this.",
    ),
    **dict.fromkeys(
        ("extra_headers", "extra_query", "extra_body"),
        "Tollgate adds nothing to the upstream call. Put parameters into the body itself.",
    ),
    **dict.fromkeys(("num_predict", "max_new_tokens"), "Use max_tokens to bound the output."),
    "fallbacks": "Use models for models to fall back to.",
}

_KINDS: Final[Mapping[str, Kind]] = {
    "image_url": "image",
    "input_audio": "audio",
    "audio_url": "audio",
    "file": "file",
    "video_url": "video",
    "input_video": "video",
    **dict.fromkeys(("prompt_embeds", "image_embeds", "audio_embeds", "video_embeds"), "embed"),
}
_NESTED_KINDS: Final[Mapping[str, Kind]] = {**_KINDS, "file_data": "file", "file_url": "file"}
_FLAT_KINDS: Final[Mapping[str, Kind]] = {**_KINDS, "image": "image"}
STORED: Final = ("item_reference", "container_upload")
"""Parts of a prompt that refer to what an upstream keeps."""
NO_MODEL: Final = (
    "name one. GET /v1/models lists them. A call without a model needs a default: default_model of the org, or the "
    "setting DEFAULT_MODEL."
)
UNBOUNDED: Final = -1
"""llama.cpp's n_predict for no bound."""
UNKNOWN_SIZE: Final = "The size of what an upstream keeps is not known."
AS_BYTES: Final = ("bytes", "bytes_only")
"""vLLM's embeddings outside of JSON, without a usage in their body."""
PADDED: Final = "max_length"
"""vLLM's padding of each input of embeddings or a rerank to the model's context. It counts the tokens that it adds."""
_PAYLOADS: Final = ("url", "data", "file_data")
_WORTH_CUTTING: Final = 256
_COUNTED_AT_ONCE: Final = 1024 * 1024
_CLASSES: Final = bytes(32 if byte == 32 else 97 if 97 <= byte <= 122 else 46 for byte in range(256))
"""Spaces stay, lowercase letters become a, and all other bytes become a full stop."""


class Medium(NamedTuple):
    """A part of a prompt that is not text. The payload is its data or its link."""

    kind: Kind
    payload: str
    format: str | None = None

    @property
    def is_link(self) -> bool:
        return "://" in self.payload[:16]

    @property
    def is_open_ended(self) -> bool:
        """Whether its tokens have no bound: files may be compressed, and video and linked audio have any length."""
        return self.kind in ("file", "video") or (self.kind == "audio" and self.is_link)


class Prompt(NamedTuple):
    """The size of the input."""

    text_bytes: int
    """The size of the body without media."""
    tokens: int
    """An upper bound, see `most_tokens`. It includes images, audio and tools, but not what extras add."""
    not_sent: int
    """How many of these are not for text of the client: TEMPLATE_TOKENS, and what no model reads. Credits are held for
    them; limits count them only when the upstream has."""
    open_ended: bool
    """Only the model's context bounds the prompt: it has files, videos or links to audio."""
    embeds: int = 0
    """Tensors of embeddings that vLLM reads. Each may fill the model's context: one of few bytes may repeat them."""
    padded: int = 0
    """Inputs that vLLM pads to the model's context."""
    images: int = 0
    audios: int = 0
    files: int = 0
    videos: int = 0


class Ask(NamedTuple):
    """What a client asks for."""

    endpoint: Endpoint
    model: str
    fallbacks: tuple[str, ...]
    stream: bool
    include_usage: bool
    """The client asked for the usage in its stream. If only we asked for it, it is removed again."""
    continuous_usage: bool
    """The client asked for the usage in every chunk, as vLLM can send it."""
    bound: int | None
    """Output tokens for each choice; None where the client set none, 0 for embeddings, 1 where a prompt is scored."""
    bound_field: str | None
    """The name under which the client set it. A second name must never go upstream."""
    respells_bound: bool
    """The client did not write the bound as a whole number, so the upstream gets it as one."""
    only_vllm: str | None
    """The field that no other server reads as vLLM does."""
    choices: int
    """The number of answers that are paid for: prompts × max(n, best_of). A prompt that is scored counts as one."""
    prompts: int
    prompt: Prompt
    extras: Extras
    """What the upstream bills apart from tokens."""
    user: str | None
    session_id: str | None = None
    """The client's name for a conversation, whose calls go to the same server while it serves."""
    max_price: Mapping[str, Any] | None = None
    """The client's limit for OpenRouter's prices. It bounds the cost of a model without a price."""
    units: Units | None = None
    """The most that it asks for beside tokens; None where only tokens are priced."""
    as_text: bool = False
    """The answer may be text instead of JSON."""

    @property
    def models(self) -> tuple[str, ...]:
        """All models that may answer. The hold covers the dearest."""
        return tuple(dict.fromkeys((self.model, *self.fallbacks))) if self.fallbacks else (self.model,)


def read(body: bytes, endpoint: Endpoint) -> Ask:
    """Raises BadRequest for what we cannot price or must not forward; `param` names the field."""
    return read_parsed(parse(body), body, endpoint)


def parse(body: bytes) -> dict[str, Any]:
    try:
        return strict_json.from_client(body)
    except NotJson as error:
        raise strict_json.refusal(error) from None


def names_a_model(given: Mapping[str, Any]) -> bool:
    return given.get("model") is not None or bool(given.get("models"))


def read_parsed(given: Mapping[str, Any], body: bytes, endpoint: Endpoint) -> Ask:
    """As `read`, for a body that `parse` has parsed."""
    form = ENDPOINTS[endpoint]
    _refuse_forbidden(given, form.bounds)
    if form.state:
        _refuse_state(given, form.state)
    if given.get("encoding_format") in AS_BYTES:
        said = "encoding_format: use float or base64. Bytes do not say what they cost."
        raise BadRequest(said, param="encoding_format")
    fields.mapping(given, "usage")
    model, *fallbacks = _models(given)
    embeds = _embeds(given, form)
    asked = _asked(given, form, optional=bool(embeds))
    bound = _bound(given, form)
    units = None if form.units is None else form.units(given)
    prompts = _prompts(asked, len(embeds), form) if form.generates else 1
    media = [*(Medium("embed", one) for one in embeds), *_media_of(given, asked, form)]
    stream_options = fields.mapping(given, "stream_options")
    include_usage = fields.flag(stream_options, "include_usage", "stream_options.include_usage")
    return Ask(
        endpoint=endpoint,
        model=model,
        fallbacks=tuple(fallbacks),
        stream=(fields.flag(given, "stream") and (form.generates or form.streams)) or form.answers_bytes,
        include_usage=include_usage,
        continuous_usage=include_usage and bool(stream_options.get("continuous_usage_stats")),
        bound=bound.tokens,
        bound_field=bound.field,
        respells_bound=bound.is_respelled,
        only_vllm="prompt_embeds" if embeds else bound.field if bound.is_scoring else None,
        choices=prompts * _answers_of_each(given) if form.generates else 1,
        prompts=prompts,
        prompt=_prompt(given, body, asked, media, form),
        extras=_extras(given, (model, *fallbacks), media, form),
        user=_user(given),
        session_id=given["session_id"] if is_name(given.get("session_id")) else None,
        max_price=fields.mapping(fields.mapping(given, "provider"), "max_price", "provider.max_price") or None,
        units=units,
    )


def with_extras_of(ask: Ask, body: bytes, models: Sequence[str]) -> Ask:
    """The ask with the extras that the body asks for at these models: the name of a model can ask for one."""
    given = {**parse(body), "model": models[0], "models": list(models[1:])}
    return ask._replace(extras=read_parsed(given, body, ask.endpoint).extras)


def most_tokens(text: bytes) -> int:
    """An upper estimate of a text's tokens, for the hold: never more than its bytes.

    Each byte counts as a token, with two exceptions that hold for every tokenizer: the space before a lowercase word is
    not a token of its own, and a lowercase word is not spelled out (its first letter counts 1, each other 3/5). Seven
    tokenizers, from GPT-2's to o200k, both Llamas' and Mistral's, count no more, even for random letters, Base64, code
    or any script. The exception is lowercase text of no language ("zqzq"), up to one token a byte: there a hold may be
    short by two fifths of its prompt, and the charge is not. English is overestimated 2.4 times, other scripts 1 to 3.
    """
    return -(-_fifths(text) // 5)


def _fifths(text: bytes) -> int:
    """Of a token. Never fewer than those of its parts, if each part ends with a byte that is no lowercase letter."""
    fifths = 5 * len(text)
    for start in range(0, len(text), _COUNTED_AT_ONCE):
        classes = text[max(start - 1, 0) : start + _COUNTED_AT_ONCE].translate(
            _CLASSES
        )  # with one byte of the slice before
        in_sentence = classes.count(b" a")
        words = in_sentence + classes.count(b".a") + (start == 0 and classes.startswith(b"a"))
        letters = classes.count(b"a", min(start, 1))
        fifths -= 5 * in_sentence + 2 * (letters - words)
    return fifths


def _refuse_forbidden(given: Mapping[str, Any], bounds: Iterable[str]) -> None:
    if FORBIDDEN.keys().isdisjoint(given):  # as for most calls
        return
    for name in FORBIDDEN.keys() & given.keys() - set(bounds):
        raise BadRequest(f"{name}: {FORBIDDEN[name]}", param=name)


def _refuse_state(given: Mapping[str, Any], state: Mapping[str, str]) -> None:
    for name in state.keys() & given.keys():
        if given[name] not in (None, False):
            raise BadRequest(f"{name}: {state[name]}", param=name)


def _models(given: Mapping[str, Any]) -> list[str]:
    fallbacks = fields.listed(given, "models")
    if len(fallbacks) > MOST_FALLBACKS:
        raise BadRequest(f"models: name at most {MOST_FALLBACKS}.", param="models")
    names = [_model(name, "models") for name in fallbacks]
    if given.get("model") is None and names:  # as at OpenRouter
        return [names[0], *names]
    if given.get("model") is None:
        raise BadRequest(f"model: {NO_MODEL}", param="model")
    return [_model(given["model"], "model"), *names]


def _model(name: object, param: str) -> str:
    if not is_name(name):
        raise BadRequest(f"{param}: name a model in 1 to {LONGEST_NAME} printable characters, no spaces.", param=param)
    return name


def _asked(given: Mapping[str, Any], form: Form, *, optional: bool) -> list[Any]:
    """The messages, prompts or inputs. What may stand alone becomes a list. Where a body has both fields, a server may
    read either, so both count."""
    name = form.prompt_of(given)
    is_usual = name == form.prompt
    expected = form.expected if is_usual else MESSAGES
    value = given.get(name)
    if value is None and optional:
        return []
    if value == []:
        raise BadRequest(f"{name}: is empty. Send {expected}.", param=name)
    asked = [value] if is_usual and isinstance(value, form.alone) else value
    if not isinstance(asked, list) or not all(isinstance(one, form.kinds) for one in asked):
        raise BadRequest(f"{name}: send {expected}.", param=name)
    also = given.get(form.also_prompt) if form.also_prompt and is_usual else None
    return [*asked, *also] if isinstance(also, list) else asked


def _embeds(given: Mapping[str, Any], form: Form) -> list[str]:
    """The prompts that vLLM takes as embeddings, each a tensor in Base64. Beside a prompt there may be none."""
    value = given.get("prompt_embeds") if form.scores_prompts else None
    if value is None:
        return []
    if value == [] and given.get(form.prompt) is None:
        raise BadRequest("Either prompt or prompt_embeds must be provided and non-empty.", param=form.prompt)
    embeds = [value] if isinstance(value, str) else value
    if not isinstance(embeds, list) or not all(isinstance(one, str) and one for one in embeds):
        raise BadRequest("prompt_embeds: send a tensor in Base64, or a list of them.", param="prompt_embeds")
    return embeds


class _Bound(NamedTuple):
    tokens: int | None
    field: str | None = None
    is_respelled: bool = False
    is_scoring: bool = False


def _bound(given: Mapping[str, Any], form: Form) -> _Bound:
    """The output bound, and how the client set it."""
    if not form.bounds:
        return _Bound(0)
    for name in form.refused_bounds:
        if given.get(name) is not None:
            raise BadRequest(f"{name}: use {form.bounds[0]} alone.", param=name)
    named = [name for name in (*form.bounds, *form.bound_aliases) if given.get(name) is not None]
    if len(named) > 1:
        raise BadRequest(f"{named[1]}: use {named[0]} alone.", param=named[1])
    return _bound_named(named[0], given, form) if named else _Bound(None)


def _bound_named(name: str, given: Mapping[str, Any], form: Form) -> _Bound:
    written = given[name]
    if name in form.bound_aliases and written == UNBOUNDED:
        return _Bound(None, name)
    is_zero = type(written) is int and written == 0
    if is_zero and form.scores_prompts and name in form.bounds and fields.flag(given, "echo"):
        return _Bound(1, name, is_scoring=True)  # vLLM generates one token, and counts it
    tokens = fields.respelled(given, name, MOST_OUTPUT_TOKENS)
    return _Bound(tokens, name, tokens is not written)


def _prompts(asked: Sequence[Any], embeds: int, form: Form) -> int:
    """Each text, list of tokens and tensor is a prompt. A flat list of tokens is one prompt, and so are messages."""
    listed = 0 if form.has_messages else sum(isinstance(one, (str, list)) for one in asked)
    return embeds + (listed or min(len(asked), 1))


def _answers_of_each(given: Mapping[str, Any]) -> int:
    return max(fields.whole(given, "n", MOST_CHOICES) or 1, fields.whole(given, "best_of", MOST_CHOICES) or 1)


_AROUND_A_MESSAGE: Final = {
    role: _fifths(b'{"role":"%b","content":""},' % role.encode()) - 5 * MESSAGE_TOKENS
    for role in ("system", "developer", "user", "assistant")
}
_NO_TEXT: Final = (int, Decimal, NoneType)
_AROUND_MESSAGES: Final = _fifths(b'"messages":[]')


def _in_json(given: Mapping[str, Any], asked: Iterable[Any], form: Form) -> int:
    """The tokens that `most_tokens` counts for what no model reads: the model's name, names of numbers and switches,
    and the JSON around plain messages, beyond their template."""
    fifths = 0
    for name, value in given.items():
        if isinstance(value, _NO_TEXT):
            fifths += _of_member(name, "")
        elif name == "model":
            fifths += _of_member(name, f'"{value}"')
    if form.has_messages:
        fifths += _AROUND_MESSAGES + sum(map(_around_message, asked))
    return fifths // 5


def _of_member(name: str, value: str) -> int:
    """In fifths of a token; 0 for a long one, so that no client fills the memory."""
    return _of_short_text(f'"{name}":{value},') if len(name) + len(value) < LONGEST_MEMBER else 0


@lru_cache(1024)
def _of_short_text(text: str) -> int:
    """Most requests have the same names and one of few models."""
    return _fifths(text.encode())


def _around_message(message: Mapping[str, Any]) -> int:
    """In fifths of a token; 0 for a message that is not plain."""
    role = message.get("role")
    is_plain = len(message) == 2 and isinstance(message.get("content"), str)
    return _AROUND_A_MESSAGE.get(role, 0) if is_plain and isinstance(role, str) else 0


def _extras(given: Mapping[str, Any], models: tuple[str, ...], media: Iterable[Medium], form: Form) -> Extras:
    if form.units is not None:
        return extras.read_beside_units(given, models, form.own_fields, form.extras)
    files = [one.payload for one in media if one.kind == "file"]
    return extras.read(given, models, files, by_condition=form is ENDPOINTS["messages"])


def _prompt(given: Mapping[str, Any], body: bytes, asked: list[Any], media: list[Medium], form: Form) -> Prompt:
    prompt = _measured(body, media, _in_json(given, asked, form), bool(fields.mappings(given, "tools")))
    if given.get("padding") == PADDED and not form.generates:
        prompt = prompt._replace(padded=_inputs(asked))
    if form.repeated is None:
        return prompt
    each = TEMPLATE_TOKENS + most_tokens(str(given.get(form.repeated)).encode())
    return prompt._replace(tokens=prompt.tokens + each * len(asked))


def _inputs(asked: Iterable[Any]) -> int:
    """At most so many. A flat list of tokens is one."""
    return sum(not isinstance(one, int) for one in asked) or 1


def _measured(body: bytes, media: list[Medium], in_json: int, has_tools: bool) -> Prompt:
    text = _without(body, [medium.payload for medium in media if not medium.is_link])
    around = TEMPLATE_TOKENS + has_tools * TOOLS_TOKENS
    counted = Counter(f"{medium.kind}s" for medium in media) if media else {}
    return Prompt(
        text_bytes=len(text),
        tokens=around + most_tokens(text) + sum(map(_tokens_of, media)),
        not_sent=TEMPLATE_TOKENS + in_json,
        open_ended=any(medium.is_open_ended for medium in media),
        **counted,
    )


def _media_of(given: Mapping[str, Any], asked: list[Any], form: Form) -> Iterator[Medium]:
    if form.units is not None:
        return _flat_media([*asked, *fields.listed(given, "input_references")])
    return _nested_media(asked) if form.nested_media else _media(asked)


def _flat_media(parts: Iterable[Any]) -> Iterator[Medium]:
    """Of a list of texts and media, in which a document may have its image beside its text, or in vLLM's `content`."""
    for part in fields.as_mappings(list(parts)):
        yield from _media_in(part, _FLAT_KINDS)
        yield from _media((part,))


def _media(asked: Iterable[Any]) -> Iterator[Medium]:
    for message in _messages(asked):
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict):
                yield from _media_in(part, _KINDS)


def _messages(asked: Iterable[Any]) -> Iterator[Any]:
    """vLLM takes several conversations at once for embeddings."""
    for one in asked:
        yield from one if isinstance(one, list) and one and isinstance(one[0], dict) else (one,)


def _nested_media(asked: object) -> Iterator[Medium]:
    """The media of Responses and Messages, where they are media: in lists of content, outputs of tools, and documents.
    Refuses what only an upstream has, because its size is not known."""
    for part in fields.as_mappings(asked):
        if part.get("type") in STORED or part.get("file_id") is not None:
            raise BadRequest(f"{_kind(part)}: send the content itself. {UNKNOWN_SIZE}", param=_kind(part))
        source = fields.as_mapping(part.get("source"))
        if source.get("file_id") is not None:
            raise BadRequest(f"source: send the content itself. {UNKNOWN_SIZE}", param="source")
        if part.get("type") in ("image", "document") and source.get("type") in ("base64", "url"):
            yield _medium("image" if part["type"] == "image" else "file", source)
        yield from _media_in(part, _NESTED_KINDS)
        for name in ("content", "output"):
            inner = part.get(name)
            yield from _nested_media([inner] if isinstance(inner, dict) else inner)
        yield from _nested_media(source.get("content"))


def _media_in(part: Mapping[str, Any], kinds: Mapping[str, Kind]) -> Iterator[Medium]:
    """A tensor in place of a text has its data beside its type. All other media are in a member of their own."""
    if part.get("type") == "prompt_embeds":
        yield _medium("embed", part)
    yield from (_medium(kinds[name], part[name]) for name in kinds if name in part)


def _kind(part: Mapping[str, Any]) -> str:
    return "file_id" if part.get("file_id") is not None else str(part["type"])


def _medium(kind: Kind, value: Any) -> Medium:
    if not isinstance(value, dict):
        return Medium(kind, value if isinstance(value, str) else "")
    payload = next((value[name] for name in _PAYLOADS if isinstance(value.get(name), str)), "")
    encoding = value.get("format")
    return Medium(kind, payload, encoding if isinstance(encoding, str) else None)


def _tokens_of(medium: Medium) -> int:
    """A text file has at most a token for each byte. Other files make the prompt open-ended, and an embed counts as the
    model's context."""
    if medium.kind == "embed":
        return 0
    if medium.kind == "image":
        return IMAGE_TOKENS
    if medium.kind == "file":
        return len(medium.payload)
    each = AUDIO_CHARACTERS_PER_TOKEN.get(medium.format or "", AUDIO_CHARACTERS_PER_TOKEN_COMPRESSED)
    return -(-len(medium.payload) // each)


def _without(body: bytes, payloads: Iterable[str]) -> bytes:
    """The body without these payloads, which occur in this order. The first that is written with escapes, and all after
    it, stay and count as text: to search for what is not there takes too long. A payload is found by its first bytes,
    since a search for all of a long one takes as long as parsing the body."""
    long = [payload for payload in payloads if len(payload) > _WORTH_CUTTING]
    rest = body.replace(b"\\/", b"/") if long and b"\\" in body else body
    kept, place = [], 0
    for payload in long:
        start = rest.find(payload[:_WORTH_CUTTING].encode(), place)
        written = payload.encode()
        if start < 0 or not rest.startswith(written, start):
            break
        kept.append(rest[place:start])
        place = start + len(written)
    return b"".join([*kept, rest[place:]])


def _user(given: Mapping[str, Any]) -> str | None:
    user = given.get("user")
    if user is None:
        return None
    if not isinstance(user, str) or len(user) > LONGEST_NAME or not user.isprintable():
        raise BadRequest(f"user: send at most {LONGEST_NAME} printable characters.", param="user")
    return user
