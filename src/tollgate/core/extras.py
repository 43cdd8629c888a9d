"""Extras: what an upstream does beside the model's own work, and bills apart from its tokens.

A search, a parsed page, a generated image. The register gives each a price floor that does not depend on the model's
listing. `read` finds the extras that a request asks for and bounds how often each may happen; `worst_case` prices
them. An extra that the register does not know is refused: nothing unpriced goes upstream on credit. Parameters that
nobody here knows still pass; tools that a server runs, plugins, presets and service tiers do not.

Server tools run in a loop: the model calls one, reads its result as prompt, and may call again. `max_tool_calls`
bounds the loop. Where the client leaves it open we choose a bound and send it upstream, as with output tokens.
"""

import base64
import binascii
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal, localcontext
from typing import Any, Final, NamedTuple

from tollgate.core import documents
from tollgate.core.errors import BadRequest, ExtraUnpriced
from tollgate.core.money import EXACT
from tollgate.core.prices import NOTHING, Price, Unpriced, nanos

STEPS: Final = 5
"""Server-tool calls in one request, where the client sets no max_tool_calls."""
MOST_STEPS: Final = 30
"""OpenRouter allows no more."""
MOST_USES: Final = 1_000
NATIVE_SEARCHES: Final = 5
"""Searches that a provider may make by its own engine for one request with the web plugin."""
RESULTS: Final = 5
RESULTS_INCLUDED: Final = 10
MOST_RESULTS: Final = 100
SEARCH_TOKENS: Final = 20_000
"""What one search adds to the prompt, at least: five results of 4,000 characters."""
ADAPTIVE_CHARACTERS: Final = 4_000
"""Of one result, where the engine chooses its length. A token is at least a character."""
CHARACTERS: Final = {"low": 5_000, "medium": 15_000, "high": 30_000}
MOST_OF_RESULT: Final = 30_000
MOST_CHARACTERS: Final = 100_000
FETCH_TOKENS: Final = 25_000
"""What one fetch adds to the prompt, where the client sets no max_content_tokens."""
APPROXIMATE: Final = 2
"""OpenRouter cuts a fetched page at an approximate count of tokens; the true one may be so many times larger."""
UNKNOWN_TOKENS: Final = 20_000
"""What one use adds to the prompt, of an extra that an operator priced without saying so."""
OCR_IMAGES: Final = 8
"""That the OCR engine passes on, of each file."""
IMAGES: Final = 4
"""That one answer of a model may have."""
IMAGE_TOKENS: Final = 10_000
"""Of one generated image, and twice what asks for it."""
DEFAULT_IMAGE_MODEL: Final = "openai/gpt-5-image"
MOST_UNPACKED_BYTES: Final = 8 * 1024 * 1024
"""Of a PDF's object streams."""


class Fee(NamedTuple):
    """What one use of an extra costs, at least."""

    nanos: Decimal
    tokens: int = 0
    """That it adds to the prompt."""


def _fee(dollars: str, tokens: int = 0) -> Fee:
    return Fee(nanos(dollars), tokens)


Register = Mapping[str, Fee]

REGISTER: Final[Register] = {
    "search:native": _fee("0.035"),
    "search:exa": _fee("0.007"),
    "search:exa:deep": _fee("0.012"),
    "search:exa:deep-reasoning": _fee("0.015"),
    "search:parallel": _fee("0.005"),
    "search:perplexity": _fee("0.005"),
    "search:result": _fee("0.001"),
    "fetch:native": _fee("0"),
    "fetch:openrouter": _fee("0"),
    "fetch:exa": _fee("0.001"),
    "fetch:parallel": _fee("0.001"),
    "pdf:mistral-ocr": _fee("0.002"),
    "pdf:cloudflare-ai": _fee("0"),
    "pdf:pdf-text": _fee("0"),
    "pdf:native": _fee("0"),
    "output:image": _fee("0.30"),
    "output:audio": _fee("0.00008"),
    "tool:openrouter:image_generation": _fee("0.30", 5_000),
    "tool:openrouter:datetime": _fee("0", 500),
    "tool:openrouter:tool_search": _fee("0", UNKNOWN_TOKENS),
    "tool:openrouter:experimental__search_models": _fee("0", UNKNOWN_TOKENS),
    "tool:openrouter:apply_patch": _fee("0", UNKNOWN_TOKENS),
    "plugin:response-healing": _fee("0"),
    "plugin:context-compression": _fee("0"),
    "plugin:auto-router": _fee("0"),
    "plugin:auto-beta-router": _fee("0"),
    "plugin:pareto-router": _fee("0"),
}
"""US dollars a use: a search, a result beyond ten, a fetch, a page, an image, a call; of sound, an output token."""

SEARCH_TOOLS: Final = frozenset(
    {
        "openrouter:web_search",
        "web_search",
        "web_search_preview",
        "web_search_preview_2025_03_11",
        "web_search_2025_08_26",
    }
)
FETCH_TOOL: Final = "openrouter:web_fetch"
IMAGE_TOOL: Final = "openrouter:image_generation"
CLIENT_TOOLS: Final = ("function", "custom")
TOOL_CHOICES: Final = (*CLIENT_TOOLS, "allowed_tools")
FUSION: Final = "openrouter/fusion"
"""A router that asks a panel of models at once."""
PLAIN_TIERS: Final = (None, "auto", "default", "flex")
"""Which cost the listed price or less."""
UNASKED_SEARCHES: Final = (("deep-research", 50), ("perplexity/", 5), ("sonar", 5), ("search-preview", 5))
"""Models that search without being asked to, by a part of their names, and how often for one request."""

_EXA: Final = {
    None: "search:exa",
    "instant": "search:exa",
    "fast": "search:exa",
    "auto": "search:exa",
    "deep-lite": "search:exa:deep",
    "deep": "search:exa:deep",
}
_REFERENCES: Final = tuple(blank + b"R" for blank in (b" ", b"\n", b"\r", b"\t", b"\x0c", b"\x00"))
_ESCAPED: Final = re.compile(rb"/((?:[A-Za-z]*#[0-9A-Fa-f]{2})+[A-Za-z]*)")
"""A name of a PDF with characters written as their codes, such as /Obj#53tm."""
_OBJECT_STREAM: Final = re.compile(rb"/ObjStm[^>]{0,500}>>\s{0,9}stream\r?\n")
_DATA: Final = re.compile(r"data:[^,]{0,200};base64,")


class Use(NamedTuple):
    """One extra that a request asks for."""

    param: str
    """The field that asks for it."""
    names: tuple[tuple[str, int], ...]
    """Its names in the register, each with the most uses in a request or, of a server tool, in a step. The dearest
    counts: which engine will search is the upstream's choice."""
    results: int = 0
    """Of a search, beyond those that its price includes."""
    tokens: int | None = None
    """That one use adds to the prompt; None for what the register says."""
    model: str | None = None
    """The model that does it, whose own price may be the dearer one."""


class Extras(NamedTuple):
    """All that a request asks for beside the model's own work."""

    once: tuple[Use, ...] = ()
    looped: tuple[Use, ...] = ()
    """Server tools. A step calls one of them."""
    steps: int = 0
    """The most calls of server tools."""
    sends_steps: bool = False
    """Whether the bound of the loop is ours to send upstream."""
    images: int = 0
    """That the OCR may add to the prompt."""
    output_images: bool = False
    output_audio: bool = False
    predicted_bytes: int = 0

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(use.model for use in (*self.once, *self.looped) if use.model))


class Added(NamedTuple):
    """What the extras of a request add to its worst case."""

    fees: Decimal = NOTHING
    prompt_tokens: int = 0
    """Once, to every turn."""
    steps: int = 0
    step_tokens: int = 0
    """That each step adds to the prompt of all later turns."""
    output_nanos: Decimal = NOTHING
    """The least price of an output token."""
    predicted_tokens: int = 0
    """Of a predicted output. Rejected ones are billed as output."""

    @property
    def turns(self) -> int:
        """How often the model reads the prompt."""
        return self.steps + 1


NO_EXTRAS: Final = Added()


def read(given: Mapping[str, Any], models: Iterable[str], files: Iterable[str]) -> Extras:
    """The extras of a body. `files` are the payloads of its files. Refuses by BadRequest what cannot be bounded."""
    models, files = tuple(models), tuple(files)
    tools = tuple(_looped(given))
    _refuse_unlisted_choice(given, tools)
    plugins = [plugin for plugin in _objects(given, "plugins") if plugin.get("enabled") is not False]
    fetches = [plugin for plugin in plugins if plugin.get("id") == "web-fetch"]
    steps, sends_steps = _steps(given) if tools or fetches else (0, False)
    return Extras(
        once=(*_plugged(plugins), *_unplugged(given, models, plugins), *_parsed(plugins, files)),
        looped=(*(use for _, use in tools), *(_fetch(plugin, "plugins") for plugin in fetches)),
        steps=max([steps, *(_whole(plugin, "max_uses", MOST_USES, "plugins") or 0 for plugin in fetches)]),
        sends_steps=sends_steps,
        images=OCR_IMAGES * len(files) if "mistral-ocr" in _pdf_engines(plugins) else 0,
        output_images="image" in _modalities(given),
        output_audio="audio" in _modalities(given),
        predicted_bytes=_predicted_bytes(given),
    )


def refuse_unpriced(extras: Extras, register: Register) -> None:
    """Before anything else is looked up for the call. Raises ExtraUnpriced."""
    for use in (*extras.once, *extras.looped):
        for name, _ in use.names:
            if name not in register:
                raise _unpriced(use, name)


def worst_case(extras: Extras, register: Register, price: Price, models: Mapping[str, Price], choices: int) -> Added:
    """What they add at most, at the register's prices or the listing's, whichever is dearer. Raises ExtraUnpriced."""
    once = [(_fees(use, register, price, models), _tokens(use, register)) for use in extras.once]
    steps = [(_fees(use, register, price, models), _tokens(use, register)) for use in extras.looped]
    with localcontext(EXACT):
        fees = sum((fee for fee, _ in once), NOTHING)
        fees += extras.steps * max((fee for fee, _ in steps), default=NOTHING)
        if extras.output_images:
            fees += choices * IMAGES * max(register["output:image"].nanos, price.image)
    return Added(
        fees=fees,
        prompt_tokens=sum(tokens for _, tokens in once),
        steps=extras.steps if extras.looped else 0,
        step_tokens=max((tokens for _, tokens in steps), default=0),
        output_nanos=register["output:audio"].nanos if extras.output_audio else NOTHING,
        predicted_tokens=extras.predicted_bytes,
    )


def extended(written: str) -> Register:
    """The register with what an operator prices: a JSON object of names and dollars a use, or of {price, tokens}."""
    try:
        given = json.loads(written, parse_float=Decimal)
    except ValueError:
        raise ValueError('must be a JSON object such as {"search:firecrawl": "0.01"}') from None
    if not isinstance(given, dict):
        raise ValueError('must be a JSON object such as {"search:firecrawl": "0.01"}')
    return {**REGISTER, **{name: _operators(name, value) for name, value in given.items()}}


def bounded(body: bytes, extras: Extras) -> bytes:
    """The body with the bounds that its extras were priced with, where the client left them open."""
    if not extras.looped:
        return body
    if documents.get(body, "plugins") not in (None, b"null"):
        body = documents.with_items(body, "plugins", lambda plugin: _bounded_plugin(plugin, extras.steps))
    if documents.get(body, "tools") not in (None, b"null"):
        body = documents.with_items(body, "tools", lambda tool: _bounded_tool(tool, extras.steps))
    return documents.put(body, "max_tool_calls", str(extras.steps).encode()) if extras.sends_steps else body


def without_search(body: bytes) -> bytes:
    """The body with the web plugin off, which an account's defaults at OpenRouter may have on."""
    off = b'{"id":"web","enabled":false}'
    plugins = (documents.get(body, "plugins") or b"[]").strip()
    if b'"web"' in plugins:
        return body  # its client has switched it off
    listed = plugins[1:-1].strip() if plugins.startswith(b"[") else b""
    return documents.put(body, "plugins", b"[" + off + (b"," + listed if listed else b"") + b"]")


def pages(payload: str) -> int | None:
    """The most pages that a PDF can have; None where they cannot be counted.

    A page is referred to by the list of its parent, so a PDF has no more pages than references, packed ones included.
    What is linked, encrypted, or spelled so as to hide its references is not counted.
    """
    data = _decoded(payload)
    if data is None or b"%PDF" not in data[:1024] or b"/Encrypt" in data or _hides(data):
        return None
    unpacked = _unpacked(data)
    if unpacked is None:
        return None
    return max(1, sum(part.count(reference) for part in (data, *unpacked) for reference in _REFERENCES))


def _hides(data: bytes) -> bool:
    """Whether an object stream or an encryption goes by another spelling."""
    names = (
        re.sub(rb"#(..)", lambda code: bytes.fromhex(code[1].decode()), found[1]) for found in _ESCAPED.finditer(data)
    )
    return any(name in (b"ObjStm", b"Encrypt") for name in names)


def _unpacked(data: bytes) -> list[bytes] | None:
    """The object streams of a PDF, in which references may be packed; None where one cannot be read."""
    streams = [found.end() for found in _OBJECT_STREAM.finditer(data)]
    if len(streams) != data.count(b"/ObjStm"):
        return None
    unpacked: list[bytes] = []
    for start in streams:
        inflater = zlib.decompressobj()
        try:
            unpacked.append(inflater.decompress(memoryview(data)[start:], MOST_UNPACKED_BYTES // len(streams)))
        except zlib.error:
            return None
        if not inflater.eof:
            return None
    return unpacked


def _looped(given: Mapping[str, Any]) -> Iterator[tuple[str, Use]]:
    """The tools that a server runs, by their types."""
    for tool in _objects(given, "tools"):
        kind = "function" if tool.get("type") is None else tool["type"]
        if not isinstance(kind, str):
            raise BadRequest("tools: send a type that is a text.", param="tools")
        if kind not in CLIENT_TOOLS:
            yield kind, _tool(kind, {**tool, **_object(tool, "parameters", "tools")})


def _tool(kind: str, settings: Mapping[str, Any]) -> Use:
    if kind in SEARCH_TOOLS:
        return _search(settings, "tools", native_searches=1)
    if kind == FETCH_TOOL:
        return _fetch(settings, "tools")
    model = settings.get("model") or DEFAULT_IMAGE_MODEL
    if kind == IMAGE_TOOL and not isinstance(model, str):
        raise BadRequest("tools: name the image model in a text.", param="tools")
    return Use("tools", ((f"tool:{kind}", 1),), model=model if kind == IMAGE_TOOL else None)


def _search(settings: Mapping[str, Any], param: str, *, native_searches: int) -> Use:
    results = _whole(settings, "max_results", MOST_RESULTS, param) or RESULTS
    characters = _whole(settings, "max_characters", MOST_CHARACTERS, param)
    if characters is None:
        size = settings.get("search_context_size")
        characters = CHARACTERS.get(str(size), MOST_OF_RESULT) if size is not None else ADAPTIVE_CHARACTERS
    engines = tuple(_engines(settings, param, native_searches))
    return Use(
        param,
        engines,
        results=max(0, results - RESULTS_INCLUDED),
        tokens=max(max(uses for _, uses in engines) * SEARCH_TOKENS, results * characters),
    )


def _engines(settings: Mapping[str, Any], param: str, native_searches: int) -> Iterator[tuple[str, int]]:
    """Those that may serve a search. A native one falls back to Exa where the model has none."""
    engine, mode = settings.get("engine"), settings.get("mode")
    if not all(value is None or isinstance(value, str) for value in (engine, mode)):
        raise BadRequest(f"{param}: send engine and mode as texts.", param=param)
    if engine in (None, "auto", "native"):
        yield "search:native", native_searches
    if engine in (None, "auto", "native", "exa"):
        yield _EXA.get(mode, "search:exa:deep-reasoning"), 1
    else:
        yield f"search:{engine}", 1


def _fetch(settings: Mapping[str, Any], param: str) -> Use:
    engine = settings.get("engine")
    if engine is not None and not isinstance(engine, str):
        raise BadRequest(f"{param}: send engine as a text.", param=param)
    tokens = _whole(settings, "max_content_tokens", 10**9, param) or FETCH_TOKENS
    names = ("fetch:native", "fetch:exa") if engine in (None, "auto", "native") else (f"fetch:{engine}",)
    return Use(param, tuple((name, 1) for name in names), tokens=APPROXIMATE * tokens)


def _steps(given: Mapping[str, Any]) -> tuple[int, bool]:
    """The most calls of server tools, and whether that bound is ours to send."""
    if given.get("stop_server_tools_when") is not None:
        return _steps_of_conditions(given), False
    chosen = _whole(given, "max_tool_calls", 10**9, "max_tool_calls")
    return min(chosen or STEPS, MOST_STEPS), chosen is None or chosen > MOST_STEPS


def _steps_of_conditions(given: Mapping[str, Any]) -> int:
    """They overrule max_tool_calls. The loop ends with the first that is met, after the call under way."""
    name = "stop_server_tools_when"
    counts = [
        _whole(condition, "step_count", MOST_STEPS, name)
        for condition in _objects(given, name)
        if condition.get("type") == "step_count_is"
    ]
    known = [count for count in counts if count is not None]
    if not known:
        raise BadRequest(
            f"{name}: add a condition of type step_count_is, or use max_tool_calls; nothing else bounds the cost.",
            param=name,
        )
    return min(known) + 1


def _refuse_unlisted_choice(given: Mapping[str, Any], tools: Iterable[tuple[str, Use]]) -> None:
    """A tool that is forced without being listed would not be priced."""
    choice = given.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind is not None and kind not in TOOL_CHOICES and kind not in [listed for listed, _ in tools]:
        raise BadRequest("tool_choice: list the tool in tools too, so that it can be priced.", param="tool_choice")


def _plugged(plugins: Iterable[Mapping[str, Any]]) -> Iterator[Use]:
    for plugin in plugins:
        name = plugin.get("id")
        if name == "web":
            uses = _whole(plugin, "max_uses", MOST_USES, "plugins") or NATIVE_SEARCHES
            yield _search(plugin, "plugins", native_searches=uses)
        elif name not in ("web-fetch", "file-parser"):
            yield Use("plugins", ((f"plugin:{name}", 1),))


def _unplugged(given: Mapping[str, Any], models: Iterable[str], plugins: Iterable[Mapping[str, Any]]) -> Iterator[Use]:
    """What is asked for without a tool or plugin: by an option, a suffix, a preset, a tier, or the model itself."""
    options = _object(given, "web_search_options")
    plugged = any(plugin.get("id") == "web" for plugin in plugins)
    asked = given.get("web_search_options") is not None or any("online" in model.split(":")[1:] for model in models)
    if asked and not plugged:
        yield _search(options, "web_search_options", native_searches=NATIVE_SEARCHES)
    unasked = max((most for model in models for part, most in UNASKED_SEARCHES if part in model), default=0)
    if unasked:
        yield Use("model", (("search:native", unasked),), tokens=0)
    for model in models:
        if "@preset" in model:
            yield Use("model", ((f"preset:{model.partition('@preset/')[2]}", 1),))
        if model.startswith(FUSION):
            yield Use("model", (("plugin:fusion", 1),))
    if given.get("preset") is not None:
        yield Use("preset", ((f"preset:{given['preset']}", 1),))
    if (tier := given.get("service_tier")) not in PLAIN_TIERS:
        yield Use("service_tier", ((f"tier:{tier}", 1),))


def _parsed(plugins: Iterable[Mapping[str, Any]], files: tuple[str, ...]) -> Iterator[Use]:
    for engine in _pdf_engines(plugins):
        yield Use("plugins", ((f"pdf:{engine}", _pages(files) if engine == "mistral-ocr" else 1),), tokens=0)


def _pdf_engines(plugins: Iterable[Mapping[str, Any]]) -> list[str]:
    """Of the file-parser plugin. Without a word of one, OpenRouter chooses a free one."""
    parsers = [plugin for plugin in plugins if plugin.get("id") == "file-parser"]
    chosen = [_object(parser, "pdf", "plugins").get("engine") for parser in parsers]
    return [str(engine) for engine in chosen if engine is not None]


def _pages(files: tuple[str, ...]) -> int:
    counted = [pages(payload) for payload in files]
    known = [count for count in counted if count is not None]
    if len(known) < len(counted):
        raise ExtraUnpriced(
            "Each page costs, and the pages of this file cannot be counted before it is parsed. "
            "Send an unencrypted PDF in the request as a base64 data: URL, or choose another PDF engine.",
            param="plugins",
            extra="pdf:mistral-ocr",
        )
    return sum(known)


def _modalities(given: Mapping[str, Any]) -> list[Any]:
    wanted = given.get("modalities")
    return wanted if isinstance(wanted, list) else [wanted]


def _predicted_bytes(given: Mapping[str, Any]) -> int:
    prediction = given.get("prediction")
    return 0 if prediction is None else len(json.dumps(prediction, default=str, ensure_ascii=False).encode())


def _fees(use: Use, register: Register, price: Price, models: Mapping[str, Price]) -> Decimal:
    with localcontext(EXACT):
        each = [uses * max(register[name].nanos, _listed(name, price)) for name, uses in use.names]
        fee = max(each)
        if use.results:
            fee += use.results * register["search:result"].nanos
        if use.model is None:
            return fee
        if use.model not in models:
            raise _unpriced(use, use.model)
        return max(fee, _of_image(models[use.model]))


def _tokens(use: Use, register: Register) -> int:
    if use.tokens is not None:
        return use.tokens
    return max(uses * register[name].tokens for name, uses in use.names)


def _listed(name: str, price: Price) -> Decimal:
    """A model's own price of a search is a floor as well."""
    return price.web_search if name.startswith("search:") else NOTHING


def _of_image(price: Price) -> Decimal:
    inward, outward = max(price.prompt, price.image_token), max(price.completion, price.image_output)
    return price.request + price.image + IMAGE_TOKENS * (2 * inward + outward)


def _unpriced(use: Use, what: str) -> ExtraUnpriced:
    shown = documents.printable(what, documents.SHOWN_CHARACTERS)
    message = f"The upstream bills {shown} apart, and it has no price here."
    return ExtraUnpriced(f"{message} {ExtraUnpriced.advice}", param=use.param, extra=shown)


def _bounded_tool(tool: bytes, steps: int) -> bytes:
    """A search or fetch that is also bounded where a provider runs it by itself."""
    kind = json.loads(documents.get(tool, "type") or b'"function"')
    if kind in SEARCH_TOOLS and not kind.startswith("openrouter:"):
        return _with_missing(tool, "max_uses", steps)
    if kind not in SEARCH_TOOLS and kind != FETCH_TOOL:
        return tool
    parameters = documents.get(tool, "parameters")
    inside = b"{}" if parameters in (None, b"null") else parameters
    inside = _with_missing(inside, "max_uses", steps)
    if kind == FETCH_TOOL:
        inside = _with_missing(inside, "max_content_tokens", FETCH_TOKENS)
    return documents.put(tool, "parameters", inside)


def _bounded_plugin(plugin: bytes, steps: int) -> bytes:
    name = json.loads(documents.get(plugin, "id") or b"null")
    if name != "web-fetch":
        return plugin
    return _with_missing(_with_missing(plugin, "max_uses", steps), "max_content_tokens", FETCH_TOKENS)


def _with_missing(body: bytes, name: str, value: int) -> bytes:
    return body if documents.get(body, name) not in (None, b"null") else documents.put(body, name, str(value).encode())


def _decoded(payload: str) -> bytes | None:
    head = _DATA.match(payload)
    if not head:
        return None
    try:
        return base64.b64decode(payload[head.end() :])
    except binascii.Error:
        return None


def _operators(name: str, value: object) -> Fee:
    given = value if isinstance(value, dict) else {"price": value}
    tokens = given.get("tokens", REGISTER[name].tokens if name in REGISTER else UNKNOWN_TOKENS)
    if isinstance(tokens, bool) or not isinstance(tokens, int) or not 0 <= tokens <= 10**7:
        raise ValueError(f"{name}: tokens must be a whole number")
    try:
        return Fee(nanos(given.get("price")), tokens)
    except Unpriced:
        raise ValueError(f'{name}: price must be US dollars a use, such as "0.01"') from None


def _objects(given: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    listed = given.get(name)
    if listed is not None and not (isinstance(listed, list) and all(isinstance(one, dict) for one in listed)):
        raise BadRequest(f"{name}: send a list of objects.", param=name)
    return listed or []


def _object(given: Mapping[str, Any], name: str, param: str | None = None) -> Mapping[str, Any]:
    value = given.get(name)
    if value is not None and not isinstance(value, dict):
        raise BadRequest(f"{param or name}: send an object for {name}.", param=param or name)
    return value or {}


def _whole(given: Mapping[str, Any], name: str, most: int, param: str) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise BadRequest(f"{param}: send a whole number from 1 to {most} for {name}.", param=param)
    return value
