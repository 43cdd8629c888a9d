"""What a model is, in OpenRouter's shape, and the many ways to name one."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from tollgate.sandbox.prices import Pricing

Behaviour = Literal["echo", "words", "tools", "reasoner", "embed", "paint", "speak", "rank", "moderate", "hear"]
TALKING = ("echo", "words", "tools", "reasoner")

PROVIDER = "FakeProvider"
"""OpenRouter's own name for a provider that is none; strict SDKs know it."""

CREATED = 1_735_689_600
ROUTING_SUFFIXES = ("nitro", "floor", "exacto", "extended", "thinking", "online")
PARAMETERS = [
    *("temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed", "logprobs", "top_logprobs"),
    *("response_format", "structured_outputs", "frequency_penalty", "presence_penalty"),
]
TOOL_CHOICES = ("auto", "none", "required", "function")
EFFORTS = ["high", "medium", "low", "minimal", "none"]


@dataclass(frozen=True)
class Model:
    id: str
    name: str
    description: str
    pricing: Pricing
    behaviour: Behaviour = "echo"
    context_length: int = 131_072
    max_completion_tokens: int | None = 16_384
    inputs: tuple[str, ...] = ("text",)
    outputs: tuple[str, ...] = ("text",)
    expiration_date: str | None = None
    stands_for: str | None = None
    """The model that answers in its place."""

    @property
    def caches(self) -> bool:
        return "input_cache_read" in self.pricing.shown

    @property
    def parameters(self) -> list[str]:
        extra = {"tools": ["tools", "tool_choice"], "reasoner": ["reasoning", "include_reasoning"]}
        return PARAMETERS + extra.get(self.behaviour, []) if self.behaviour in TALKING else []

    def architecture(self) -> dict[str, Any]:
        return {
            "modality": f"{'+'.join(self.inputs)}->{'+'.join(self.outputs)}",
            "input_modalities": list(self.inputs),
            "output_modalities": list(self.outputs),
            "tokenizer": "Router" if self.id == "sandbox/router" else "Other",
            "instruct_type": None,
        }

    def limits(self) -> dict[str, Any]:
        return {"context_length": self.context_length, "max_completion_tokens": self.max_completion_tokens}

    def shown(self) -> dict[str, Any]:
        """As GET /models has it."""
        return {
            "id": self.id,
            "canonical_slug": f"{self.id.removeprefix('~').removesuffix(':free')}-20250101",
            "hugging_face_id": None,
            "name": self.name,
            "created": CREATED,
            "description": self.description,
            "context_length": self.context_length,
            "architecture": self.architecture(),
            "pricing": self.pricing.shown,
            "top_provider": {**self.limits(), "is_moderated": False},
            "per_request_limits": None,
            "supported_parameters": self.parameters,
            "supported_voices": None,
            "default_parameters": None,
            "knowledge_cutoff": None,
            "expiration_date": self.expiration_date,
            "links": {"details": f"/api/v1/models/{self.id}/endpoints"},
            **self._when_special(),
        }

    def endpoint(self) -> dict[str, Any]:
        """The one provider behind it, as GET /models/…/endpoints has it."""
        return {
            "name": f"{PROVIDER} | {self.id}",
            "model_id": self.id,
            "model_name": self.name,
            **self.limits(),
            "pricing": {**self.pricing.shown, "discount": 0},
            "provider_name": PROVIDER,
            "tag": PROVIDER.lower(),
            "quantization": "unknown",
            "max_prompt_tokens": None,
            "supported_parameters": self.parameters,
            "status": 0,
            "supports_implicit_caching": self.caches,
            "supports_tool_choice": dict.fromkeys(TOOL_CHOICES, self.behaviour == "tools"),
            "supports_diarization": False,
            "native_tools": {},
            "service_tier": None,
            **dict.fromkeys(("uptime_last_5m", "uptime_last_30m", "uptime_last_1d"), 100),
            **dict.fromkeys(("latency_last_30m", "throughput_last_30m")),
        }

    def with_endpoints(self) -> dict[str, Any]:
        named = {name: self.shown()[name] for name in ("id", "name", "created", "description", "architecture")}
        return named | {"endpoints": [] if self.stands_for else [self.endpoint()]}

    def _when_special(self) -> dict[str, Any]:
        if self.id.startswith("~"):
            return {"alias_target": {"slug": self.stands_for, "name": self.name}}
        if self.behaviour == "reasoner":
            return {"reasoning": {"mandatory": False, "default_enabled": True, "supported_efforts": EFFORTS}}
        return {}


class Catalog:
    def __init__(self, models: Iterable[Model]) -> None:
        self.models = list(models)
        self._by_id = {model.id: model for model in self.models}

    def find(self, name: str) -> Model | None:
        """The model as it is listed: by its id, or by its id and a suffix that only says how to route."""
        base, _, suffix = name.rpartition(":")
        return self._by_id.get(base if suffix in ROUTING_SUFFIXES else name)

    def answering(self, listed: Model) -> Model:
        """The model that really answers for a router or an alias, and that is billed."""
        return self._by_id[listed.stands_for] if listed.stands_for else listed

    def listed(self, modalities: str) -> list[Model]:
        """Text models unless others are asked for, as OpenRouter does it."""
        wanted = set(modalities.split(","))
        return [model for model in self.models if "all" in wanted or wanted.intersection(model.outputs)]

    def with_faulty(self, faults: Iterable[str]) -> "Catalog":
        """Also offers every fault as a model, for those who can choose a model but send no header."""
        echo = self._by_id["sandbox/echo"]
        faulty = [replace(echo, id=f"sandbox/fault-{fault}", name=f"Sandbox: Fault {fault}") for fault in faults]
        return Catalog([*self.models, *faulty])
