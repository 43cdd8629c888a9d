"""The faults that a request can ask for, by the header `x-sandbox-fault: name[=value][,name…]` or by its model's name:
`sandbox/echo@stall-after=3,comments` or `sandbox/fault-cut`. They combine, as far as they make sense together.

Unless the last column says otherwise, the ledger keeps the true cost, whatever the answer says. "Half" means after
half of the tokens. Of speech, each character counts as a token, and all of them are owed.

| name             | value (default)  | what happens                                                   | owed          |
|------------------|------------------|----------------------------------------------------------------|---------------|
| comments         | how many (3)     | `: OPENROUTER PROCESSING` lines after each event; without a    |               |
|                  |                  | stream, blank lines before the body                            |               |
| split-utf8       |                  | writes end inside characters, and inside lines                 |               |
| crlf             |                  | lines end with CR LF                                           |               |
| no-usage         |                  | no usage at all                                                |               |
| null-usage       |                  | `usage: null`                                                  |               |
| zero-usage       |                  | usage and cost of zero                                         |               |
| negative-cost    |                  | the cost with a minus                                          |               |
| nan-cost         |                  | `cost: NaN`, which is not JSON                                 |               |
| string-tokens    |                  | token counts as strings                                        |               |
| absurd-usage     | tokens (1e12)    | that many prompt and completion tokens, at the true cost       |               |
| cost-differs     | factor (3)       | the cost is not tokens × price                                 | × factor      |
| corrected        | factor (2)       | GET /activity states another cost than the answer and GET      | × factor      |
|                  |                  | /generation, as after a correction of the bill                 |               |
| byok             |                  | own provider key: cost is a 5 % fee, the rest is the vendor's  | both          |
| blank            |                  | not one token, and no finish_reason                            | nothing       |
| mid-stream-error | tokens (half)    | OpenRouter's error chunk with HTTP 200, and the stream ends;   | nothing       |
|                  |                  | without a stream as finish-error                               |               |
| finish-error     | tokens (half)    | HTTP 200, partial text, choices[].error and finish_reason      | nothing       |
|                  |                  | "error"; in a stream as mid-stream-error                       |               |
| vllm-error       | tokens (half)    | `data: {"error": …}`, then [DONE]; without a stream HTTP 500   | nothing       |
| no-done          |                  | the stream ends without [DONE], after the usage                |               |
| cut              | tokens (half)    | the connection closes in the middle of the body                | what was said |
| early-eof        | tokens (half)    | the stream ends cleanly, with no finish_reason and no usage    | what was said |
| status           | status (500)     | an error before any token; 429 and 503 with Retry-After        | no generation |
| retry-after      | seconds (2)      | the Retry-After of `status`                                    |               |
| retry-after-date | seconds (2)      | the same as an HTTP date                                       |               |
| moderation       |                  | 403, with the metadata of a flagged input                      | no generation |
| stall-before     | seconds (3600)   | not a byte until then                                          | no generation |
| stall-after      | tokens (1)       | stalls for an hour after that many; without a stream, in the   | what was said |
|                  |                  | middle of the body                                             |               |
| slow             | seconds (0.05)   | that long for each token                                       |               |
| garbage          |                  | 200 with text/html                                             | no generation |
| empty            |                  | 200 with no body                                               | no generation |
| bad-json         |                  | JSON that breaks off; in a stream, one event of it             |               |
| gigantic         | megabytes (10)   | a piece of text of that size, which nobody counts              |               |
| many             | events (100,000) | that many events that say nothing; streams only                |               |
| gzip-bomb        | megabytes (100)  | gzip: that many of blanks before the answer, tiny on the wire  |               |
| redirect         | where to         | 302, by default to the metadata service of clouds              | no generation |
| set-cookie       |                  | a cookie                                                       |               |
| wrong-model      | its name         | another model's name in the answer                             |               |
| no-id            |                  | no X-Generation-Id, and no id in the answer or its first chunk |               |
| no-generation    |                  | GET /generation answers 404 for ever                           |               |
| late-generation  | seconds (30)     | GET /generation answers 404 until then                         |               |
| hold-until       | requests (2)     | held until that many wait at once, else 504 after 30 s         |               |
| tool-steps       | calls (1)        | the model calls server tools that often, as far as it may      | each call     |
| bill             | all or produced  | what a cancelled stream costs, whatever the sandbox's habit is |               |

Beside a server, where strangers may ask for them, they are bounded: see MOST, and a stall lasts 5 s.
"""

from collections.abc import Mapping

from tollgate.sandbox.refusals import Refusal

HEADER = "x-sandbox-fault"
METADATA_SERVICE = "http://169.254.169.254/"

FLAG = None
HALF = "half"

DEFAULTS: dict[str, str | None] = {
    "comments": "3",
    "split-utf8": FLAG,
    "crlf": FLAG,
    "no-usage": FLAG,
    "null-usage": FLAG,
    "zero-usage": FLAG,
    "negative-cost": FLAG,
    "nan-cost": FLAG,
    "string-tokens": FLAG,
    "absurd-usage": "1000000000000",
    "cost-differs": "3",
    "corrected": "2",
    "byok": FLAG,
    "blank": FLAG,
    "mid-stream-error": HALF,
    "finish-error": HALF,
    "vllm-error": HALF,
    "no-done": FLAG,
    "cut": HALF,
    "early-eof": HALF,
    "status": "500",
    "retry-after": "2",
    "retry-after-date": "2",
    "moderation": FLAG,
    "stall-before": "3600",
    "stall-after": "1",
    "slow": "0.05",
    "garbage": FLAG,
    "empty": FLAG,
    "bad-json": FLAG,
    "gigantic": "10",
    "many": "100000",
    "gzip-bomb": "100",
    "redirect": METADATA_SERVICE,
    "set-cookie": FLAG,
    "wrong-model": "sandbox/somebody-else",
    "no-id": FLAG,
    "no-generation": FLAG,
    "late-generation": "30",
    "hold-until": "2",
    "tool-steps": "1",
    "bill": "all",
}
WORDS: dict[str, tuple[str, ...]] = {"redirect": (), "wrong-model": (), "bill": ("all", "produced")}
"""Faults whose value is no number, and the values they take; none means any."""

MOST: dict[str, float] = {
    "comments": 10,
    "stall-before": 5,
    "slow": 0.5,
    "gigantic": 1,
    "many": 5000,
    "gzip-bomb": 10,
    "hold-until": 8,
}
"""Of a bounded fault. Its number is lowered to this, and so is what it is by default."""
FOR_EVER = 3600.0
LONGEST_STALL = 5.0
LONGEST_SLOWNESS = 20.0
"""Of a bounded answer, all its tokens together."""

LONGEST_NUMBER = 15
REFUSING = ("status", "moderation")
"""Faults with which OpenRouter would go on to the next of `models`."""
FOLLOWED_BY_FALLBACKS = ("status=429", "status=500", "status=503", "moderation")
"""What a client may name as the first of `models`, to see the next one answer."""


class Faults:
    """The faults of one request, and their values."""

    def __init__(self, values: Mapping[str, str | None] | None = None, *, bounded: bool = False) -> None:
        self._values = values or {}
        self._is_bounded = bounded

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __or__(self, other: "Faults") -> "Faults":
        return Faults({**self._values, **other._values}) if other._values else self

    def bounded(self) -> "Faults":
        """As strangers may have them: for seconds, and of megabytes."""
        return Faults({name: _lowered(name, value) for name, value in self._values.items()}, bounded=True)

    @property
    def stall_seconds(self) -> float:
        return LONGEST_STALL if self._is_bounded else FOR_EVER

    def pace(self, usual: float, tokens: int) -> float:
        """Seconds for each of so many tokens."""
        if "slow" not in self:
            return usual
        return min(self.number("slow"), LONGEST_SLOWNESS / max(tokens, 1)) if self._is_bounded else self.number("slow")

    def any_of(self, *names: str) -> str | None:
        return next((name for name in names if name in self._values), None)

    def word(self, name: str) -> str:
        return str(self._values[name])

    def number(self, name: str) -> float:
        return float(self.word(name))

    def whole(self, name: str) -> int:
        return int(self.number(name))

    def after(self, name: str, of: int) -> int:
        """After how many tokens it strikes."""
        return of // 2 if self._values[name] == HALF else min(self.whole(name), of)


NONE = Faults()


def parse(written: str) -> Faults:
    if not written:
        return NONE
    named = (part.strip().partition("=") for part in written.split(",") if part.strip())
    return Faults({name: _value(name, given, value) for name, given, value in named})


def in_name(model: str) -> tuple[str, Faults]:
    """The model's name without the faults in it, and those faults."""
    if model.startswith("sandbox/fault-"):
        return "sandbox/echo", parse(model.removeprefix("sandbox/fault-"))
    name, _, written = model.partition("@")
    return name, parse(written)


def _value(name: str, given: str, value: str) -> str | None:
    if name not in DEFAULTS:
        raise Refusal(400, f"The sandbox knows no fault '{name}'. Known: {', '.join(DEFAULTS)}.")
    if not given:
        return DEFAULTS[name]
    if not _takes(name, value):
        raise Refusal(400, f"The sandbox's fault '{name}' does not take the value '{value}'.")
    return value


def _lowered(name: str, value: str | None) -> str | None:
    return value if value is None or name not in MOST else str(min(float(value), MOST[name]))


def _takes(name: str, value: str) -> bool:
    if name in WORDS:
        return value in WORDS[name] or not WORDS[name]
    digits = value.replace(".", "", 1)
    is_number = digits.isascii() and digits.isdigit() and len(digits) <= LONGEST_NUMBER
    return is_number and DEFAULTS[name] is not FLAG
