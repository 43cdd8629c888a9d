"""What each model says. It depends on nothing but the request, so that a test knows it beforehand."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tollgate.sandbox import tokens
from tollgate.sandbox.catalog import Behaviour, Model
from tollgate.sandbox.encoding import encode
from tollgate.sandbox.parameters import Parameters

Finish = Literal["stop", "length", "tool_calls", "error"]

SILENCE = "(silence)"
WORDS = ("one", "two", "six", "ten", "red", "sun", "sky", "sea", "oak", "fog")
"""Three letters each: with the blank after it, a word is one token."""
USUAL_WORDS = 20
THOUGHT = "The user said something. I shall think it over, and then repeat it. "
DEEPEST_SAMPLE = 20


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    arguments: list[str]

    @property
    def tokens(self) -> int:
        return tokens.count(self.name) + len(self.arguments)


@dataclass(frozen=True, slots=True)
class Said:
    """One choice, in tokens."""

    content: list[str]
    finish: Finish | None = "stop"
    reasoning: list[str] = field(default_factory=list)
    call: Call | None = None

    @property
    def tokens(self) -> int:
        return len(self.reasoning) + len(self.content) + (self.call.tokens if self.call else 0)

    def cut(self, most: int, finish: Finish) -> "Said":
        """Its first tokens; a call whose name does not fit is not made."""
        reasoning = self.reasoning[:most]
        content = self.content[: most - len(reasoning)]
        left = most - len(reasoning) - len(content)
        return Said(content, finish, reasoning, _shortened(self.call, left))

    def bounded(self, most: int) -> "Said":
        return self if self.tokens <= most else self.cut(most, "length")


BLANK = Said([], None)


def say(model: Model, params: Parameters, most: int) -> Said:
    return _SPEAKERS[model.behaviour](params).bounded(most)


def sample(schema: Any, text: str, depth: int = 0) -> Any:
    """Some value of a JSON schema, with the text wherever a string fits."""
    if not isinstance(schema, dict) or depth > DEEPEST_SAMPLE:
        return text
    if "const" in schema or schema.get("enum"):
        return schema.get("const", (schema.get("enum") or [None])[0])
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) and kind else kind:
        case "object":
            properties = schema.get("properties")
            known = properties.items() if isinstance(properties, dict) else ()
            return {name: sample(one, text, depth + 1) for name, one in known}
        case "array":
            return [sample(schema.get("items"), text, depth + 1)]
        case "integer" | "number":
            return 1
        case "boolean":
            return True
        case "null":
            return None
    return text


def _echo(params: Parameters) -> Said:
    text = params.heard or SILENCE
    if params.schema is not None:
        shaped = sample(params.schema, text)
        text = encode(shaped if isinstance(shaped, dict) else {"answer": text})
    return Said(tokens.split(_until(text, params.stop)))


def _words(params: Parameters) -> Said:
    wanted = params.bound or USUAL_WORDS
    words = [f"{WORDS[number % len(WORDS)]} " for number in range(wanted)]
    words[-1] = words[-1].rstrip()
    said = Said(words, "length" if params.bound else "stop")
    return replace(said, content=tokens.split(_until("".join(words), params.stop))) if params.stop else said


def _tools(params: Parameters) -> Said:
    if params.tool is None:
        return _echo(params)
    parameters = params.tool.get("parameters")
    arguments = sample(parameters if isinstance(parameters, dict) else {"type": "object"}, params.heard)
    return Said([], "tool_calls", call=Call(str(params.tool.get("name")), tokens.split(encode(arguments))))


def _reasoner(params: Parameters) -> Said:
    return replace(_echo(params), reasoning=tokens.split(THOUGHT) if params.thinks else [])


_SPEAKERS: dict[Behaviour, Callable[[Parameters], Said]] = {
    "echo": _echo,
    "words": _words,
    "tools": _tools,
    "reasoner": _reasoner,
}


def _until(text: str, stop: tuple[str, ...]) -> str:
    """Up to the first of the stop sequences."""
    return text[: min((text.index(one) for one in stop if one and one in text), default=len(text))]


def _shortened(call: Call | None, most: int) -> Call | None:
    room = most - tokens.count(call.name) if call else -1
    return Call(call.name, call.arguments[:room]) if call and room >= 0 else None
