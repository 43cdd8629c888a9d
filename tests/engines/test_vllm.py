"""vLLM's build for CPUs on a host, from a dry-run to its end. It is installed for `make test-engines`."""

import json

from completions.stage import Stage
from engines import tiny_model
from engines.conftest import PRICING, Said, charged
from engines.on_a_host import agent_of, is_offered, offered, path
from gateway import CHAT
from people import Person
from sandbox.serving import a_chat, until
from servers.engines import program

SPEC = {"engine": "vllm", "served_name": "hosts/vllm", "context_length": 2048, "dtype": "float32"}
ON_A_CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
ALLOWED = [f"--allow-flag={name}" for name in ("--enforce-eager", *ON_A_CPU)]
COUNTED = {"model": "hosts/vllm", "stream": True, "stream_options": {"include_usage": True}}
LONG = 1500
"""Tokens: longer than a client that leaves at once waits."""


async def test_vllm_starts_on_a_host_answers_is_cut_and_stops(stage: Stage, someone: Person) -> None:
    operator, leaving = await stage.customer(role="admin"), await stage.customer()
    made = await stage.post(operator, {"name": "vllm"}, "/admin/hosts")
    token = made.json()["enrolment"]["token"]
    with agent_of(stage, token, program("vllm", "vllm").parent, *ALLOWED) as models:
        tiny_model.write_folder(folder := models / "tiny")
        spec = {**SPEC, "source": path(folder), "arguments": ["--enforce-eager"], "environment": ON_A_CPU}
        body = {"host_id": made.json()["id"], "spec": spec}
        planned = (await stage.post(operator, body, "/admin/models/dry-run")).json()
        assert planned["command"][1:3] == ["serve", "<model>"]
        deployment_id = await offered(stage, operator, made.json()["id"], spec, PRICING)

        answered = await stage.post(someone, a_chat(**COUNTED, max_tokens=8))
        usage = json.loads(answered.text.split("data: ")[-2])["usage"]
        counted = Said(prompt_tokens=usage["prompt_tokens"], completion_tokens=usage["completion_tokens"])
        assert counted.completion_tokens == 8
        assert (await charged(stage, someone))["charge_nanos"] == counted.cost_nanos

        asked = a_chat(**COUNTED, max_tokens=LONG, ignore_eos=True)
        headers, url = {"authorization": f"Bearer {leaving.secret}"}, stage.gateway.address + CHAT
        async with stage.http.stream("POST", url, json=asked, headers=headers) as cut:
            await anext(cut.aiter_raw())
        row = await charged(stage, leaving)
        assert row["completion_tokens"] < LONG

        stopped = await stage.post(operator, {}, f"/admin/models/{deployment_id}/stop")
        assert stopped.status_code == 200

        async def is_gone() -> bool:
            return not await is_offered(stage, operator, "hosts/vllm")

        await until(is_gone)
