"""Whatever a client sends, the sandbox answers; a test's upstream must not be what breaks."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.serving import a_sandbox, post
from tollgate.sandbox.models import MODELS

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from([model.id for model in MODELS])
FUNCTION = st.fixed_dictionaries({}, optional={"name": JSON, "parameters": JSON})
TOOL = st.fixed_dictionaries({}, optional={"type": JSON, "function": FUNCTION | JSON})
PART = st.fixed_dictionaries({}, optional={"type": st.sampled_from(["text", "image_url"]) | JSON, "text": JSON})
MESSAGE = st.fixed_dictionaries({}, optional={"role": JSON, "content": st.lists(PART, max_size=3) | JSON})
SCHEMA = st.fixed_dictionaries(
    {"type": st.sampled_from(["object", "array"])}, optional={"properties": JSON, "items": JSON}
)
FORMAT = st.fixed_dictionaries(
    {"type": JSON}, optional={"json_schema": st.fixed_dictionaries({"schema": SCHEMA | JSON}) | JSON}
)
SMALL = st.integers(-1, 40)
BODY = st.fixed_dictionaries(
    {"model": NAMES | JSON},
    optional={
        "models": st.lists(NAMES | JSON, max_size=2) | JSON,
        "messages": st.lists(MESSAGE, max_size=3) | JSON,
        "prompt": JSON,
        "input": JSON,
        "tools": st.lists(TOOL, max_size=2) | JSON,
        "tool_choice": FUNCTION | st.fixed_dictionaries({"function": FUNCTION | JSON}) | JSON,
        "response_format": FORMAT | JSON,
        "max_tokens": SMALL | JSON,
        "max_completion_tokens": SMALL | JSON,
        "n": st.integers(0, 3) | JSON,
        "stop": JSON,
        "stream": JSON,
        "logprobs": JSON,
        "top_logprobs": SMALL | JSON,
        "reasoning": JSON,
        "user": JSON,
        "dimensions": SMALL | JSON,
        "encoding_format": st.just("base64") | JSON,
    },
)


@settings(max_examples=300, deadline=None)
@given(BODY | JSON, st.sampled_from(["chat/completions", "completions", "embeddings"]))
async def test_any_json_is_answered_or_refused(body: Any, path: str) -> None:
    sandbox = a_sandbox(generation_delay_seconds=0)
    answered = await post(sandbox, body, path)
    assert answered.status_code in {200, 400, 404}
    shown = sandbox.ledger.shown()
    assert len(shown["generations"]) == (answered.status_code == 200)
    assert all(one["finished"] and one["owed_nanos"] >= 0 for one in shown["generations"])
