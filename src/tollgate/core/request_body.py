"""What Tollgate reads of a paid request: the few fields that decide who serves it and what it may cost.

The rest is not ours and passes untouched, so a parameter that an upstream adds tomorrow works tomorrow. Where a field
has to change on the way up, only its own bytes change.

null counts as absent, as it does for OpenAI. A bound is refused when it is not a positive whole number: some servers
read 0 as "no bound". Both names of the bound at once are refused as OpenAI refuses them, for servers differ in which
they obey; so are other servers' names for it, which could overrule the bound that we paid for. What would lead a
request past us (another address, another key, headers) is refused and not dropped: a client that sends it believes
that it works.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

from tollgate.core import fields, strict_json
from tollgate.core.errors import BadRequest
from tollgate.core.extras import requested as extras
from tollgate.core.extras.requested import Extras
from tollgate.core.strict_json import NotJson

Endpoint = Literal["chat", "completions", "embeddings"]
Kind = Literal["image", "audio", "file", "video"]

MOST_OUTPUT_TOKENS: Final = 1_000_000_000
MOST_CHOICES: Final = 128
MOST_FALLBACKS: Final = 32
LONGEST_NAME: Final = 256

TEMPLATE_TOKENS: Final = 100
"""What a server may write around any prompt: role marks, dates, a system prompt of its own."""
TOOLS_TOKENS: Final = 600
"""What a server writes around tools; Anthropic documents up to 530."""
IMAGE_TOKENS: Final = 5_000
"""Of one image at its largest: Claude 4,784, Gemini 4,128, Pixtral 4,096. gpt-4o-mini counts more, at a lower price."""
AUDIO_CHARACTERS_PER_TOKEN: Final = {"wav": 256, "pcm16": 256}
"""Base64 characters for each token at 32 tokens a second: 8 kHz in 8 bits is the least that is in use."""
AUDIO_CHARACTERS_PER_TOKEN_COMPRESSED: Final = 32

FORBIDDEN: Final = {
    **dict.fromkeys(
        ("api_key", "api_base", "base_url", "api_version", "custom_llm_provider"),
        "The upstream and its key are Tollgate's choice. Leave this out.",
    ),
    **dict.fromkeys(
        ("extra_headers", "extra_query", "extra_body"),
        "Nothing can be added to the call upstream. Put parameters into the body itself.",
    ),
    **dict.fromkeys(("n_predict", "num_predict", "max_new_tokens"), "Use max_tokens to bound the output."),
    "fallbacks": "Use models for models to fall back to.",
}

_KINDS: Final[Mapping[str, Kind]] = {
    "image_url": "image",
    "input_audio": "audio",
    "audio_url": "audio",
    "file": "file",
    "video_url": "video",
    "input_video": "video",
}
_PAYLOADS: Final = ("url", "data", "file_data")
_WORTH_CUTTING: Final = 256
_COUNTED_AT_ONCE: Final = 1024 * 1024
_PROMPTS: Final[Mapping[Endpoint, tuple[str, tuple[type, ...]]]] = {
    "chat": ("messages", (dict,)),
    "completions": ("prompt", (str, int, list)),
    "embeddings": ("input", (str, int, list, dict)),
}
_CLASSES: Final = bytes(32 if byte == 32 else 97 if 97 <= byte <= 122 else 46 for byte in range(256))
"""Spaces stay, every lowercase letter is an a, all else a full stop."""


class Medium(NamedTuple):
    """A part of a prompt that is not text. The payload is what the body carries of it, if only a link."""

    kind: Kind
    payload: str
    format: str | None = None

    @property
    def is_link(self) -> bool:
        return "://" in self.payload[:16]

    @property
    def is_open_ended(self) -> bool:
        """A file may be packed, a film has any length, and so has a sound that somebody else keeps."""
        return self.kind in ("file", "video") or (self.kind == "audio" and self.is_link)


class Prompt(NamedTuple):
    """How much goes in."""

    text_bytes: int
    """The body's size without what is not text."""
    tokens: int
    """At most, see `most_tokens`; images, sound and tools included, and not what extras add."""
    open_ended: bool
    """Nothing in the body bounds it (files, videos, links to sound): only the model's context does."""
    images: int = 0
    audios: int = 0
    files: int = 0
    videos: int = 0


class Ask(NamedTuple):
    endpoint: Endpoint
    model: str
    fallbacks: tuple[str, ...]
    stream: bool
    include_usage: bool
    """The client asked for the usage in its stream. Where only we asked for it, it is taken out again."""
    continuous_usage: bool
    """The client asked for it in every chunk, as vLLM can tell it, and is to have it all."""
    bound: int | None
    """Output tokens for each choice; None where the client left it open, 0 for embeddings."""
    bound_field: str | None
    """The name under which the client set it. A second name for it must never go upstream."""
    choices: int
    """All answers that are paid for: prompts × max(n, best_of)."""
    prompt: Prompt
    extras: Extras
    """What the upstream bills beside the model's own work."""
    user: str | None
    max_price: Mapping[str, Any] | None = None
    """What the client lets OpenRouter pay at most; bounds a model that has no price of its own."""

    @property
    def models(self) -> tuple[str, ...]:
        """All that may serve it: the hold must cover the dearest."""
        return tuple(dict.fromkeys((self.model, *self.fallbacks)))


def read(body: bytes, endpoint: Endpoint) -> Ask:
    """Raises BadRequest for what we cannot price or must not forward; `param` names the field."""
    return read_parsed(parse(body), body, endpoint)


def parse(body: bytes) -> dict[str, Any]:
    try:
        return strict_json.from_client(body)
    except NotJson as error:
        raise strict_json.refusal(error) from None


def read_parsed(given: Mapping[str, Any], body: bytes, endpoint: Endpoint) -> Ask:
    """As `read`, for a body that `parse` has parsed."""
    _refuse_forbidden(given)
    fields.mapping(given, "usage")
    model, *fallbacks = _models(given)
    asked = _asked(given, endpoint)
    bound, bound_field = _bound(given, endpoint)
    media = list(_media(asked))
    stream_options = fields.mapping(given, "stream_options")
    return Ask(
        endpoint=endpoint,
        model=model,
        fallbacks=tuple(fallbacks),
        stream=fields.flag(given, "stream") and endpoint != "embeddings",
        include_usage=fields.flag(stream_options, "include_usage", "stream_options.include_usage"),
        continuous_usage=bool(stream_options.get("continuous_usage_stats")),
        bound=bound,
        bound_field=bound_field,
        choices=1 if endpoint == "embeddings" else _choices(given, asked),
        prompt=_measured(body, media, bool(fields.mappings(given, "tools"))),
        extras=extras.read(given, (model, *fallbacks), [one.payload for one in media if one.kind == "file"]),
        user=_user(given),
        max_price=fields.mapping(fields.mapping(given, "provider"), "max_price", "provider.max_price") or None,
    )


def most_tokens(text: bytes) -> int:
    """How many tokens a text may be, to hold credits for: more than tokenizers count, and never more than its bytes.

    No token is shorter than a byte, so each byte is one, but for what every tokenizer puts together: the space before
    a lowercase word is no token of its own, and a word is not spelled out (its first letter counts 1, each other 3/5).
    Seven tokenizers, from GPT-2's to o200k, both Llamas' and Mistral's, count no more, even in random letters, Base64,
    code or any script. What is left is lowercase text that no language has ("zqzq"): up to one token a byte, so a hold
    may be short by two fifths of its prompt; the charge is not. English is counted 2.4 times, other scripts 1 to 3.
    """
    fifths = 5 * len(text)
    for start in range(0, len(text), _COUNTED_AT_ONCE):
        classes = text[max(start - 1, 0) : start + _COUNTED_AT_ONCE].translate(_CLASSES)  # one byte of the slice before
        in_sentence = classes.count(b" a")
        words = in_sentence + classes.count(b".a") + (start == 0 and classes.startswith(b"a"))
        letters = classes.count(b"a", min(start, 1))
        fifths -= 5 * in_sentence + 2 * (letters - words)
    return -(-fifths // 5)


def _refuse_forbidden(given: Mapping[str, Any]) -> None:
    for name in FORBIDDEN.keys() & given.keys():
        raise BadRequest(f"{name}: {FORBIDDEN[name]}", param=name)


def _models(given: Mapping[str, Any]) -> list[str]:
    fallbacks = fields.listed(given, "models")
    if len(fallbacks) > MOST_FALLBACKS:
        raise BadRequest(f"models: name at most {MOST_FALLBACKS}.", param="models")
    return [_model(given.get("model"), "model"), *(_model(name, "models") for name in fallbacks)]


def _model(name: object, param: str) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable() or " " in name:
        raise BadRequest(f"{param}: name a model in 1 to {LONGEST_NAME} printable characters, no spaces.", param=param)
    return name


def _asked(given: Mapping[str, Any], endpoint: Endpoint) -> list[Any]:
    """The messages, prompts or inputs; a single text is a list of itself."""
    name, kinds = _PROMPTS[endpoint]
    value = given.get(name)
    asked = [value] if isinstance(value, str) else value
    if not isinstance(asked, list) or not asked or not all(isinstance(one, kinds) for one in asked):
        raise BadRequest(f"{name}: send at least one.", param=name)
    return asked


def _bound(given: Mapping[str, Any], endpoint: Endpoint) -> tuple[int | None, str | None]:
    """And the name that it goes by."""
    if endpoint == "embeddings":
        return 0, None
    newer = fields.whole(given, "max_completion_tokens", MOST_OUTPUT_TOKENS)
    bound = fields.whole(given, "max_tokens", MOST_OUTPUT_TOKENS)
    if newer is None:
        return bound, None if bound is None else "max_tokens"
    if bound is not None or endpoint == "completions":
        raise BadRequest("max_completion_tokens: use max_tokens alone.", param="max_completion_tokens")
    return newer, "max_completion_tokens"


def _choices(given: Mapping[str, Any], asked: Iterable[Any]) -> int:
    """Each text, and each list of tokens, is a prompt of its own; bare tokens are one together."""
    prompts = sum(isinstance(one, (str, list)) for one in asked) or 1
    return prompts * max(fields.whole(given, "n", MOST_CHOICES) or 1, fields.whole(given, "best_of", MOST_CHOICES) or 1)


def _measured(body: bytes, media: list[Medium], has_tools: bool) -> Prompt:
    text = _without(body, [medium.payload for medium in media if not medium.is_link])
    around = TEMPLATE_TOKENS + has_tools * TOOLS_TOKENS
    counted = Counter(f"{medium.kind}s" for medium in media) if media else {}
    return Prompt(
        text_bytes=len(text),
        tokens=around + most_tokens(text) + sum(map(_tokens_of, media)),
        open_ended=any(medium.is_open_ended for medium in media),
        **counted,
    )


def _media(asked: Iterable[Any]) -> Iterator[Medium]:
    for message in asked:
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict):
                yield from (_medium(_KINDS[name], part[name]) for name in _KINDS if name in part)


def _medium(kind: Kind, value: Any) -> Medium:
    if not isinstance(value, dict):
        return Medium(kind, value if isinstance(value, str) else "")
    payload = next((value[name] for name in _PAYLOADS if isinstance(value.get(name), str)), "")
    encoding = value.get("format")
    return Medium(kind, payload, encoding if isinstance(encoding, str) else None)


def _tokens_of(medium: Medium) -> int:
    """A file that is text has at most a token for each byte; for one that is not, only the context is a bound."""
    if medium.kind == "image":
        return IMAGE_TOKENS
    if medium.kind == "file":
        return len(medium.payload)
    each = AUDIO_CHARACTERS_PER_TOKEN.get(medium.format or "", AUDIO_CHARACTERS_PER_TOKEN_COMPRESSED)
    return -(-len(medium.payload) // each)


def _without(body: bytes, payloads: Iterable[str]) -> bytes:
    """The body without these. They come in its order; from one that is written with escapes on, all stays: it is dear
    to count it as text, but endless to search for what is not there. Each is looked for by its first bytes: to search
    for all of a long one would take as long as reading the body anew."""
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
