"""One generation: what was asked, what was said of it, and what it cost."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from tollgate.sandbox.billing import Bill, bill, times
from tollgate.sandbox.catalog import PROVIDER, Model
from tollgate.sandbox.extras import Extra
from tollgate.sandbox.faults import Faults
from tollgate.sandbox.job import Job
from tollgate.sandbox.prices import Cost, Used, dollars, nanos
from tollgate.sandbox.speech import Finish

ApiType = Literal["completions", "embeddings", "image", "tts", "rerank", "moderation", "stt"]

WITHHELD = "authorization"
SHOWN_OF_KEY = 4


@dataclass(slots=True)
class Generation:
    id: str
    job: Job
    api_type: ApiType
    streamed: bool
    started: float
    used: Used = field(default_factory=Used)
    bill: Bill = field(default_factory=Bill)
    extra: Extra = field(default_factory=Extra)
    finish: Finish | None = None
    cancelled: bool = False
    finished: float | None = None

    @property
    def model(self) -> Model:
        return self.job.model

    @property
    def faults(self) -> Faults:
        return self.job.faults

    @property
    def shown_model(self) -> str:
        return self.faults.word("wrong-model") if "wrong-model" in self.faults else self.model.id

    @property
    def call_id(self) -> str:
        return self.id.replace("gen-", "call_", 1)

    def end(self, used: Used, finish: Finish | None, now: float, *, cancelled: bool = False) -> None:
        self.used, self.finish, self.cancelled, self.finished = used, finish, cancelled, now
        self.bill = self.price(used, finish)

    def price(self, used: Used, finish: Finish | None) -> Bill:
        """Zero-completion insurance forgives the tokens of errors, and of answers without any; never the extras."""
        blank = self.api_type == "completions" and finish is None and used.completion == 0
        if blank or finish == "error":
            return Bill(used.extras, Cost(used.extras))
        return bill(self.model.pricing, used, self.faults)

    def stated_later(self, picos: int) -> int:
        """A cost as GET /activity states it."""
        return times(picos, self.faults.word("corrected")) if "corrected" in self.faults else picos

    def visible(self, now: float, usual_delay: float) -> bool:
        """Whether GET /generation knows it yet."""
        if self.finished is None or "no-generation" in self.faults:
            return False
        late = self.faults.number("late-generation") if "late-generation" in self.faults else usual_delay
        return now >= self.finished + late

    def entry(self) -> dict[str, Any]:
        """As the ledger has it, for tests."""
        return {
            "id": self.id,
            "model": self.model.id,
            "requested_model": self.job.parameters.get("model"),
            "api_type": self.api_type,
            "prompt_tokens": self.used.prompt,
            "completion_tokens": self.used.completion,
            "reasoning_tokens": self.used.reasoning,
            "cached_tokens": self.used.cached,
            **{f"{name}{unit}": value for name, picos in self._money() for unit, value in _both(picos)},
            "is_byok": self.bill.is_byok,
            "finish_reason": self.finish,
            "finished": self.finished is not None,
            "cancelled": self.cancelled,
            "streamed": self.streamed,
            "external_user": self.job.parameters.get("user"),
            "parameters": self.job.parameters,
            "key": self.job.header(WITHHELD).rpartition(" ")[2][-SHOWN_OF_KEY:],
            "headers": {
                name.decode("latin-1"): value.decode("latin-1")
                for name, value in self.job.headers
                if name != WITHHELD.encode()
            },
        }

    def record(self) -> dict[str, Any]:
        """As GET /generation answers it."""
        milliseconds = round(((self.finished or self.started) - self.started) * 1000)
        return {
            "id": self.id,
            "request_id": self.id.replace("gen-", "req-", 1),
            "upstream_id": self.id.replace("gen-", "chatcmpl-", 1),
            "api_type": self.api_type,
            "model": self.model.id,
            "provider_name": PROVIDER,
            "provider_responses": None,
            "created_at": datetime.fromtimestamp(self.started, UTC).isoformat(),
            "streamed": self.streamed,
            "cancelled": self.cancelled,
            "finish_reason": self.finish,
            "native_finish_reason": self.finish,
            "total_cost": dollars(self.bill.cost),
            "usage": dollars(self.bill.cost),
            "upstream_inference_cost": dollars(self.bill.upstream.total if self.bill.is_byok else 0),
            "is_byok": self.bill.is_byok,
            **self._tokens(),
            "latency": milliseconds,
            "generation_time": milliseconds,
            "external_user": self.job.parameters.get("user"),
            "session_id": self.job.parameters.get("session_id") or self.job.header("x-session-id") or None,
            "origin": self.job.header("http-referer"),
            "http_referer": self.job.header("http-referer") or None,
            "user_agent": self.job.header("user-agent") or None,
            "router": self.job.listed.id if self.job.listed.id == "sandbox/router" else None,
            "data_region": "global",
            **dict.fromkeys(("app_id", "cache_discount", "moderation_latency", "preset_id", "workspace_id")),
            **dict.fromkeys(("service_tier", "response_cache_source_id", "web_search_engine", "num_fetches")),
        }

    def _tokens(self) -> dict[str, Any]:
        prompt, completion = self.used.prompt, self.used.completion
        return {
            "tokens_prompt": prompt,
            "tokens_completion": completion,
            "native_tokens_prompt": prompt,
            "native_tokens_completion": completion,
            "native_tokens_reasoning": self.used.reasoning,
            "native_tokens_cached": self.used.cached,
            "native_tokens_completion_images": 0,
            "num_media_prompt": self.used.images,
            "num_search_results": self.extra.results,
            **dict.fromkeys(("num_media_completion", "num_input_audio_prompt"), 0),
        }

    def _money(self) -> list[tuple[str, int]]:
        return [
            ("cost", self.bill.cost),
            ("owed", self.bill.owed),
            ("upstream_inference_cost", self.bill.upstream.total),
        ]


def _both(picos: int) -> list[tuple[str, Any]]:
    return [("", format(dollars(picos).normalize(), "f")), ("_nanos", nanos(picos))]
