"""The models that the sandbox offers, and their prices."""

from tollgate.sandbox.catalog import Model
from tollgate.sandbox.prices import Pricing


def _per_token(prompt: str, completion: str, **more: str) -> dict[str, str]:
    return {"prompt": prompt, "completion": completion, "request": "0", "image": "0", **more}


ECHO = Pricing(_per_token("0.00000025", "0.00000125"))
LONG: dict[str, str | int] = {"min_prompt_tokens": 1000, "prompt": "0.000002", "completion": "0.00001"}

MODELS = (
    Model("sandbox/echo", "Sandbox: Echo", "Repeats the last user message.", ECHO),
    Model(
        "sandbox/words",
        "Sandbox: Words",
        "Says as many words as max_tokens asks for, else twenty.",
        Pricing(_per_token("0.0000005", "0.0000015")),
        "words",
        context_length=1_000_000,
        max_completion_tokens=200_000,
    ),
    Model(
        "sandbox/tools",
        "Sandbox: Tools",
        "Calls the first tool that it is given, or the one that it is told to.",
        Pricing(_per_token("0.000001", "0.000005")),
        "tools",
    ),
    Model(
        "sandbox/reasoner",
        "Sandbox: Reasoner",
        "Thinks before it repeats the last user message.",
        Pricing(_per_token("0.000003", "0.000015", internal_reasoning="0")),
        "reasoner",
    ),
    Model("sandbox/free:free", "Sandbox: Free (free)", "Echo, for nothing.", Pricing(_per_token("0", "0"))),
    Model(
        "sandbox/router",
        "Sandbox: Router",
        "Chooses a model by itself, always sandbox/echo, at that model's price.",
        Pricing({"prompt": "-1", "completion": "-1"}),
        context_length=2_000_000,
        max_completion_tokens=None,
        stands_for="sandbox/echo",
    ),
    Model(
        "sandbox/long-context",
        "Sandbox: Long Context",
        "Echo, dearer for prompts of more than a thousand tokens.",
        Pricing(_per_token("0.000001", "0.000005"), [LONG]),
        context_length=1_000_000,
    ),
    Model(
        "sandbox/image",
        "Sandbox: Image",
        "Echo, with a price for each request and each image in it.",
        Pricing(_per_token("0.000001", "0.000004") | {"request": "0.002", "image": "0.001445"}),
        inputs=("text", "image"),
    ),
    Model(
        "sandbox/embed",
        "Sandbox: Embed",
        "Embeddings that depend on nothing but the text.",
        Pricing(_per_token("0.00000002", "0")),
        "embed",
        context_length=8192,
        max_completion_tokens=None,
        outputs=("embeddings",),
    ),
    Model(
        "sandbox/painter",
        "Sandbox: Painter",
        "Small striped pictures, with a price for each.",
        Pricing({"prompt": "0.000001", "completion": "0", "image_output": "0.04"}),
        "paint",
        max_completion_tokens=None,
        outputs=("image",),
    ),
    Model(
        "sandbox/voice",
        "Sandbox: Voice",
        "A tone for each character, which is what it is priced by.",
        Pricing({"prompt": "0.000015", "completion": "0"}),
        "speak",
        context_length=4096,
        max_completion_tokens=None,
        outputs=("speech",),
    ),
    Model(
        "sandbox/rank",
        "Sandbox: Rank",
        "Ranks documents by the words of the query that they have, with a price for each search unit.",
        Pricing({"prompt": "0", "completion": "0", "request": "0.002"}),
        "rank",
        max_completion_tokens=None,
        outputs=("rerank",),
    ),
    Model(
        "sandbox/guard",
        "Sandbox: Guard",
        "Flags texts by words, with a price for each request.",
        Pricing({"prompt": "0", "completion": "0", "request": "0.0001"}),
        "moderate",
        max_completion_tokens=None,
        outputs=("moderation",),
    ),
    Model(
        "sandbox/ear",
        "Sandbox: Ear",
        "Says how long a recording is, with a price for each second.",
        Pricing({"prompt": "0.0001", "completion": "0"}),
        "hear",
        max_completion_tokens=None,
        inputs=("audio",),
        outputs=("transcription",),
    ),
    Model(
        "sandbox/ear-tokens",
        "Sandbox: Ear, by tokens",
        "The same, with a price for each token: one for each second, and those of the text.",
        Pricing({"prompt": "0.000006", "completion": "0.00001"}),
        "hear",
        max_completion_tokens=None,
        inputs=("audio",),
        outputs=("transcription",),
    ),
    Model(
        "sandbox/old",
        "Sandbox: Old",
        "Echo, past the date after which it may be removed; it still answers.",
        Pricing(_per_token("0.000002", "0.000002")),
        expiration_date="2025-06-01",
    ),
    Model(
        "sandbox/cached",
        "Sandbox: Cached",
        "Echo, with a cache for prompts that begin as an earlier one did.",
        Pricing(
            _per_token("0.000000375", "0.0000015")
            | {"input_cache_read": "0.0000000375", "input_cache_write": "0.00000046875"}
        ),
    ),
    Model("~sandbox/echo-latest", "Sandbox: Echo", "The newest Echo.", ECHO, stands_for="sandbox/echo"),
)
