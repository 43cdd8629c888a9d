"""Finds the extras that a body asks for, and the most uses of each."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from tollgate.core import fields
from tollgate.core.errors import BadRequest, ExtraUnpriced
from tollgate.core.extras.pdf import pages

STEPS: Final = 5
"""Server-tool calls in one request, where the client sets no max_tool_calls."""
MOST_STEPS: Final = 30
"""OpenRouter allows no more."""
LEAST_STEPS: Final = 2
"""The fewest that a condition can bound: a loop ends after the call in which it is met."""
MOST_USES: Final = 1_000
NATIVE_SEARCHES: Final = 5
"""Searches that a provider's own engine may make for one request with the web plugin."""
RESULTS: Final = 5
RESULTS_INCLUDED: Final = 10
MOST_RESULTS: Final = 100
SEARCH_TOKENS: Final = 20_000
"""What one search adds to the prompt at least: five results of 4,000 characters."""
ADAPTIVE_CHARACTERS: Final = 4_000
"""Of one result, if the engine chooses its length. A token has at least one character."""
CHARACTERS: Final = {"low": 5_000, "medium": 15_000, "high": 30_000}
MOST_OF_RESULT: Final = 30_000
MOST_CHARACTERS: Final = 100_000
FETCH_TOKENS: Final = 25_000
"""What one fetch adds to the prompt, if the client sets no max_content_tokens."""
APPROXIMATE: Final = 2
"""OpenRouter cuts a fetched page by an approximate count of tokens. The true count may be this many times larger."""
OCR_IMAGES: Final = 8
"""Images that the OCR engine may add to the prompt for each file."""
DEFAULT_IMAGE_MODEL: Final = "openai/gpt-5-image"
SEARCH_TOOLS: Final = frozenset(
    {
        "openrouter:web_search",
        "web_search",
        "web_search_preview",
        "web_search_preview_2025_03_11",
        "web_search_2025_08_26",
    }
)
NATIVE_SEARCH_TOOL: Final = re.compile(r"web_search_\d{8}")
"""Anthropic's tool. The provider runs its loop, so only its own max_uses bounds it."""
FETCH_TOOL: Final = "openrouter:web_fetch"
IMAGE_TOOL: Final = "openrouter:image_generation"
CLIENT_TOOLS: Final = ("function", "custom")
TOOL_CHOICES: Final = (*CLIENT_TOOLS, "allowed_tools", "auto", "any", "none", "tool")
FUSION: Final = "openrouter/fusion"
"""A router that calls several models at once."""
PLAIN: Final[Mapping[str, tuple[Any, ...]]] = {
    "service_tier": (None, "auto", "default", "flex", "standard", "standard_only"),
    "speed": (None, "standard"),
    "inference_geo": (None, "global", "not_available"),
    "mcp_servers": (None, []),
    "container": (None,),
}
"""Fields that can ask for a dearer service, and their values that cost the listed price or less."""
_NAMED: Final = {"service_tier": "tier", "speed": "speed", "inference_geo": "geo"}
"""The first part of such a service's name in the register; the second is the value. Others have the field's name."""
FREE_EDITS: Final = ("clear_tool_uses", "clear_thinking")
"""Ways of shortening a prompt that need no further call of a model."""
UNASKED_SEARCHES: Final = (("deep-research", 50), ("perplexity/", 5), ("sonar", 5), ("search-preview", 5))
"""Models that search without being asked, by a part of their names, and the most searches for one request."""
_ASKING: Final = frozenset(
    {
        *("tools", "tool_choice", "plugins", "web_search_options", "stop_server_tools_when", "preset", "service_tier"),
        *("modalities", "prediction", "context_management", *PLAIN),
    }
)
"""The fields that can ask for extras."""
_SPEAKING: Final = re.compile("|".join([":online", "@preset", FUSION, *(part for part, _ in UNASKED_SEARCHES)]))
"""A model's name that may ask for an extra."""
_EXA: Final = {
    None: "search:exa",
    "instant": "search:exa",
    "fast": "search:exa",
    "auto": "search:exa",
    "deep-lite": "search:exa:deep",
    "deep": "search:exa:deep",
}


class Use(NamedTuple):
    """One extra that a request asks for."""

    param: str
    """The field that asks for it."""
    names: tuple[tuple[str, int], ...]
    """Its names in the register, each with the most uses in a request or, for a server tool, in a step. The dearest one
    counts, because the upstream chooses the engine."""
    results: int = 0
    """Results of a search, beyond those that its price includes."""
    tokens: int | None = None
    """Tokens that one use adds to the prompt; None for the register's figure."""
    model: str | None = None
    """The model that does it. The dearer one of its price and the register's counts."""


class Extras(NamedTuple):
    """All extras of a request."""

    once: tuple[Use, ...] = ()
    looped: tuple[Use, ...] = ()
    """Server tools. Each step calls one of them."""
    steps: int = 0
    """The most calls of server tools."""
    sends_steps: bool = False
    """Whether we send the bound of the loop upstream, because the client set none."""
    by_condition: bool = False
    """Whether it is sent as a condition: Messages have no max_tool_calls."""
    images: int = 0
    """Images that OCR may add to the prompt."""
    output_images: bool = False
    output_audio: bool = False
    predicted_bytes: int = 0

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(use.model for use in (*self.once, *self.looped) if use.model))


NOTHING_ASKED: Final = Extras()


def speaks(models: Iterable[str]) -> bool:
    """Whether the name of one of these models may ask for an extra."""
    return any(map(_SPEAKING.search, models))


def read(
    given: Mapping[str, Any], models: Iterable[str], files: Iterable[str], *, by_condition: bool = False
) -> Extras:
    """The extras of a body. `files` are the payloads of its files. Raises BadRequest for what cannot be bounded."""
    models, files = tuple(models), tuple(files)
    if _ASKING.isdisjoint(given) and not speaks(models):
        return NOTHING_ASKED  # as in most requests
    tools = tuple(_looped(given))
    _refuse_unlisted_choice(given, tools)
    plugins = [plugin for plugin in fields.mappings(given, "plugins") if plugin.get("enabled") is not False]
    fetches = [plugin for plugin in plugins if plugin.get("id") == "web-fetch"]
    steps, sends_steps = _steps(given, by_condition=by_condition) if tools or fetches else (0, False)
    if any(NATIVE_SEARCH_TOOL.fullmatch(kind) for kind, _ in tools):
        steps = _native_searches(given, steps, alone=len(tools) + len(fetches) == 1)
    return Extras(
        once=(*_plugged(plugins), *_unplugged(given, models, plugins), *_parsed(plugins, files)),
        looped=(*(use for _, use in tools), *(_fetch(plugin, "plugins") for plugin in fetches)),
        steps=max([steps, *(fields.whole(plugin, "max_uses", MOST_USES, "plugins") or 0 for plugin in fetches)]),
        sends_steps=sends_steps,
        by_condition=by_condition,
        images=OCR_IMAGES * len(files) if "mistral-ocr" in _pdf_engines(plugins) else 0,
        output_images="image" in _modalities(given),
        output_audio="audio" in _modalities(given),
        predicted_bytes=_predicted_bytes(given),
    )


def read_beside_units(
    given: Mapping[str, Any], models: Iterable[str], own: frozenset[str], more: tuple[str, ...]
) -> Extras:
    """The extras of a body for an endpoint that does one thing, such as speech. What asks for anything else has no
    price here, until an operator gives it one under the field's name. `own` are fields of the endpoint itself."""
    named = [name for name in ("provider.options", *more, *sorted(_ASKING - own)) if _is_given(given, name)]
    asked = read({}, models, ())
    if not named:
        return asked
    return asked._replace(once=(*asked.once, *(Use(name, ((name, 1),), tokens=0) for name in named)))


def _is_given(given: Mapping[str, Any], name: str) -> bool:
    first, _, second = name.partition(".")
    value = fields.mapping(given, first).get(second) if second else given.get(first)
    return value not in (None, {}, [], *PLAIN.get(name, ()))


def _looped(given: Mapping[str, Any]) -> Iterator[tuple[str, Use]]:
    """The tools that the upstream runs, with their types."""
    for tool in fields.mappings(given, "tools"):
        kind = "function" if tool.get("type") is None else tool["type"]
        if not isinstance(kind, str):
            raise BadRequest("tools: send type as a string.", param="tools")
        if kind not in CLIENT_TOOLS:
            yield kind, _tool(kind, {**tool, **fields.mapping(tool, "parameters", "tools")})


def _tool(kind: str, settings: Mapping[str, Any]) -> Use:
    if kind in SEARCH_TOOLS or NATIVE_SEARCH_TOOL.fullmatch(kind):
        return _search(settings, "tools", native_searches=1)
    if kind == FETCH_TOOL:
        return _fetch(settings, "tools")
    model = settings.get("model") or DEFAULT_IMAGE_MODEL
    if kind == IMAGE_TOOL and not isinstance(model, str):
        raise BadRequest("tools: send the image model as a string.", param="tools")
    return Use("tools", ((f"tool:{kind}", 1),), model=model if kind == IMAGE_TOOL else None)


def _search(settings: Mapping[str, Any], param: str, *, native_searches: int) -> Use:
    results = fields.whole(settings, "max_results", MOST_RESULTS, param) or RESULTS
    characters = fields.whole(settings, "max_characters", MOST_CHARACTERS, param)
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
    """The engines that may search. A native search uses Exa if the model has none."""
    engine, mode = settings.get("engine"), settings.get("mode")
    if not all(value is None or isinstance(value, str) for value in (engine, mode)):
        raise BadRequest(f"{param}: send engine and mode as strings.", param=param)
    if engine in (None, "auto", "native"):
        yield "search:native", native_searches
    if engine in (None, "auto", "native", "exa"):
        yield _EXA.get(mode, "search:exa:deep-reasoning"), 1
    else:
        yield f"search:{engine}", 1


def _fetch(settings: Mapping[str, Any], param: str) -> Use:
    engine = settings.get("engine")
    if engine is not None and not isinstance(engine, str):
        raise BadRequest(f"{param}: send engine as a string.", param=param)
    tokens = fields.whole(settings, "max_content_tokens", 10**9, param) or FETCH_TOKENS
    names = ("fetch:native", "fetch:exa") if engine in (None, "auto", "native") else (f"fetch:{engine}",)
    return Use(param, tuple((name, 1) for name in names), tokens=APPROXIMATE * tokens)


def _steps(given: Mapping[str, Any], *, by_condition: bool) -> tuple[int, bool]:
    """The most calls of server tools, and whether we send that bound."""
    if given.get("stop_server_tools_when") is not None:
        return _steps_of_conditions(given), False
    if by_condition:
        return STEPS, True
    chosen = fields.whole(given, "max_tool_calls", 10**9, "max_tool_calls")
    return min(chosen or STEPS, MOST_STEPS), chosen is None or chosen > MOST_STEPS


def _native_searches(given: Mapping[str, Any], steps: int, *, alone: bool) -> int:
    """The most searches of Anthropic's tool, which the provider or OpenRouter runs."""
    if not alone:
        raise BadRequest("tools: list no other server tool beside this web search.", param="tools")
    uses = [fields.whole(tool, "max_uses", MOST_USES, "tools") for tool in fields.mappings(given, "tools")]
    return max(LEAST_STEPS, next((count for count in uses if count), steps))


def _steps_of_conditions(given: Mapping[str, Any]) -> int:
    """The conditions overrule max_tool_calls. The loop ends after the call in which the first of them is met."""
    name = "stop_server_tools_when"
    counts = [
        fields.whole(condition, "step_count", MOST_STEPS, name)
        for condition in fields.mappings(given, name)
        if condition.get("type") == "step_count_is"
    ]
    known = [count for count in counts if count is not None]
    if not known:
        raise BadRequest(
            f"{name}: add a condition of type step_count_is, or use max_tool_calls. Nothing else bounds the cost.",
            param=name,
        )
    return min(known) + 1


def _refuse_unlisted_choice(given: Mapping[str, Any], tools: Iterable[tuple[str, Use]]) -> None:
    """Refuses a forced tool that is not listed, since it would not be priced."""
    choice = given.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind is not None and kind not in TOOL_CHOICES and kind not in [listed for listed, _ in tools]:
        raise BadRequest(
            "tool_choice: list the tool in tools as well. Only listed tools are priced.", param="tool_choice"
        )


def _plugged(plugins: Iterable[Mapping[str, Any]]) -> Iterator[Use]:
    for plugin in plugins:
        name = plugin.get("id")
        if name == "web":
            uses = fields.whole(plugin, "max_uses", MOST_USES, "plugins") or NATIVE_SEARCHES
            yield _search(plugin, "plugins", native_searches=uses)
        elif name not in ("web-fetch", "file-parser"):
            yield Use("plugins", ((f"plugin:{name}", 1),))


def _unplugged(given: Mapping[str, Any], models: Iterable[str], plugins: Iterable[Mapping[str, Any]]) -> Iterator[Use]:
    """Extras without a tool or plugin: by an option, a suffix, a preset, a service tier, or the model itself."""
    options = fields.mapping(given, "web_search_options")
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
    for name, plain in PLAIN.items():
        if (value := given.get(name)) not in plain:
            yield Use(name, ((f"{_NAMED[name]}:{value}" if name in _NAMED else name, 1),))
    for edit in _edits(given):
        if not edit.startswith(FREE_EDITS):
            yield Use("context_management", ((f"context:{edit}", 1),))


def _edits(given: Mapping[str, Any]) -> Iterator[str]:
    """How the prompt is to be shortened: Anthropic's object has a list of edits, OpenAI's field is the list."""
    asked = given.get("context_management")
    for edit in fields.as_mappings(fields.as_mapping(asked).get("edits") if isinstance(asked, dict) else asked):
        yield str(edit.get("type"))


def _parsed(plugins: Iterable[Mapping[str, Any]], files: tuple[str, ...]) -> Iterator[Use]:
    for engine in _pdf_engines(plugins):
        yield Use("plugins", ((f"pdf:{engine}", _pages(files) if engine == "mistral-ocr" else 1),), tokens=0)


def _pdf_engines(plugins: Iterable[Mapping[str, Any]]) -> list[str]:
    """The engines of the file-parser plugin. Without a choice, OpenRouter uses a free one."""
    parsers = [plugin for plugin in plugins if plugin.get("id") == "file-parser"]
    chosen = [fields.mapping(parser, "pdf", "plugins").get("engine") for parser in parsers]
    return [str(engine) for engine in chosen if engine is not None]


def _pages(files: tuple[str, ...]) -> int:
    counted = [pages(payload) for payload in files]
    known = [count for count in counted if count is not None]
    if len(known) < len(counted):
        raise ExtraUnpriced(
            "Each page of a file has a price, and the pages of this file cannot be counted. "
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
