"""A model on this machine: `make up LOCAL=1`, from a file to a customer's paid calls, with llama-server."""

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from agent.host import engines_of, llama_server
from agent.hub_server import PIECE, Fault, HubServer
from engines.tiny_model import ENDLESS, SAYS, write_gguf
from journeys.home import Home, Server, alive, gone, wait_until
from sandbox.serving import PATIENCE_SECONDS
from servers.process import free_port

CHAT = "/v1/chat/completions"
MODEL = "our/tiny"
PROMPT_NANOS, OUTPUT_NANOS = 1_000, 2_000
ENDLESS_TOKENS = 900
PRICING = {"prompt": "0.000001", "completion": "0.000002"}
FETCHED = "our/fetched"
REPO = "ours/tiny"
CUT_AFTER = 600_000
"""Bytes of the first request for the file, which has more."""


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer().running() as made:
        yield made


@contextlib.contextmanager
def operator_of(server: Server) -> Iterator[httpx.Client]:
    """Signed in by the link that the demo prints."""
    (secret,) = re.findall(r"#/sign-in/([\w-]{43})\n", server.printed)
    with client(server, origin=server.address) as made:
        made.post("/auth/sign-in", json={"link": secret}).raise_for_status()
        yield made


def client(server: Server, **headers: str) -> httpx.Client:
    return httpx.Client(base_url=server.address, headers=headers, trust_env=False, timeout=PATIENCE_SECONDS)


def changed(operator: httpx.Client, method: str, path: str, body: Any = None) -> dict[str, Any]:
    answer = operator.request(method, path, json=body, headers={"idempotency-key": os.urandom(8).hex()})
    assert answer.is_success, answer.text
    made: dict[str, Any] = answer.json()
    return made


def saying(words: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": words}], **more}


@pytest.mark.slow
def test_a_file_becomes_a_model_that_customers_pay_for(home: Home, hub: HubServer) -> None:
    """So does a repository of the hub, at the first call. What runs ends with a server that is killed, and comes back
    with it."""
    binaries = llama_server()
    settings = {
        "PORT": str(free_port()),
        "HF_ENDPOINT": hub.url,
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(binaries),
    }
    with home.server("demo", "--local", **settings) as server, operator_of(server) as operator:
        wait_until(lambda: operator.get("/admin/hosts").json()["data"], "the agent is a host")
        models = home.data / "agent" / "models"
        wait_until(models.exists, "the agent has a folder of models")
        source = {"type": "path", "path": str(write_gguf(models / "tiny.gguf"))}
        spec = {"engine": "llamacpp", "source": source, "served_name": MODEL, "context_length": 1024, "gpu_layers": 0}
        id_ = changed(operator, "POST", "/admin/models", {"spec": spec, "pricing": PRICING})["id"]
        at = f"/admin/models/{id_}"
        wait_until(lambda: changed(operator, "POST", f"{at}/dry-run")["vram_estimate_gb"], "the host reads its files")
        changed(operator, "POST", f"{at}/start")
        wait_until(lambda: operator.get(at).json()["offered_as"] == [MODEL], "the model is offered")

        with client(server, authorization=f"Bearer {server.demo_key}") as customer:
            # The server reads its routes again after what an agent told is stored, and shown to operators.
            wait_until(lambda: customer.get(f"/v1/models/{MODEL}").status_code == 200, "the server knows that")
            plain = customer.post(CHAT, json=saying("Hello"))
            assert plain.json()["choices"][0]["message"]["content"] == SAYS
            streamed = customer.post(CHAT, json=saying("Hello", stream=True))
            assert streamed.text.endswith("data: [DONE]\n\n")
            with customer.stream("POST", CHAT, json=saying(ENDLESS, stream=True, max_tokens=ENDLESS_TOKENS)) as cut:
                next(cut.iter_raw())
            wait_until(lambda: _settled(customer, 3), "all calls are settled")
            rows = customer.get("/user/usage").json()["data"]
            assert [row["upstream"] for row in rows] == [f"ups_{id_.removeprefix('dep_')}"] * 3
            of_cut, *of_whole = rows
            for row in of_whole:
                assert row["charge_nanos"] == _price(row)
                assert row["completion_tokens"] == plain.json()["usage"]["completion_tokens"]
            # An estimate, or the whole where the model had ended before anybody noticed.
            assert 0 < of_cut["charge_nanos"] <= _price({**of_cut, "completion_tokens": ENDLESS_TOKENS})

            is_loaded_by_a_call(operator, customer, hub, (models / "tiny.gguf").read_bytes())

            changed(operator, "POST", f"{at}/stop")
            wait_until(lambda: operator.get(at).json()["phase"] == "stopped", "the model is stopped")
            wait_until(lambda: customer.get(f"/v1/models/{MODEL}").status_code == 404, "the server knows that")
            assert customer.post(CHAT, json=saying("Hello")).status_code == 404
            changed(operator, "POST", f"{at}/start")
            wait_until(lambda: operator.get(at).json()["phase"] == "running", "it runs again")
        agent = {pid for pid, (parent, told) in alive().items() if parent == server.process.pid and " agent " in told}
        theirs = agent | set(engines_of(home.data / "agent"))
        assert (len(agent), len(theirs)) == (1, 3)
        server.stop(signal.SIGKILL)
        gone(theirs)
    with home.server("demo", "--local", **settings) as server, operator_of(server) as operator:
        wait_until(lambda: operator.get(at).json()["offered_as"] == [MODEL], "the model is offered again")
        assert server.stop() == 0
    assert engines_of(home.data / "agent") == []
    audit = home.run("audit", **settings)
    assert (audit.returncode, audit.stderr) == (0, "")


def is_loaded_by_a_call(operator: httpx.Client, customer: httpx.Client, hub: HubServer, file: bytes) -> None:
    """A model of the hub, whose download is cut and goes on, is loaded when a customer pays for it."""
    hub.repos[REPO] = {"tiny.gguf": file}
    hub.faults.append(Fault("cut", CUT_AFTER))
    spec = {"engine": "llamacpp", "source": {"type": "hub", "repo_id": REPO}, "served_name": FETCHED,
            "context_length": 1024, "gpu_layers": 0}  # fmt: skip
    body = {"spec": spec, "pricing": PRICING, "wanted": "on_demand"}
    at = f"/admin/models/{changed(operator, 'POST', '/admin/models', body)['id']}"
    wait_until(lambda: operator.get(at).json()["offered_as"] == [FETCHED], "it is offered before it runs")
    ranges = [asked_for for _, asked_for, _ in hub.asked]
    assert ranges[0] is None
    assert ranges[1].startswith("bytes=")
    assert hub.sent <= len(file) + PIECE
    wait_until(lambda: customer.get(f"/v1/models/{FETCHED}").status_code == 200, "the server knows that")
    answer = customer.post(CHAT, json=saying("Hello", model=FETCHED))
    assert answer.json()["choices"][0]["message"]["content"] == SAYS
    row = customer.get("/user/usage").json()["data"][0]
    assert (row["model"], row["charge_nanos"]) == (FETCHED, _price(row))
    wait_until(lambda: operator.get(at).json()["phase"] == "running", "the agent has told that")
    found = operator.get(f"{at}/phases")
    assert found.is_success, found.text
    phases = found.json()["data"]
    assert [one["phase"] for one in phases] == ["running", "loading", "starting", "stopped", "downloading"]
    assert phases[2]["why"] == "on demand"


def _settled(customer: httpx.Client, count: int) -> bool:
    states = [row["state"] for row in customer.get("/user/usage").json()["data"]]
    return states == ["settled"] * count


def _price(row: dict[str, Any]) -> int:
    nanos: int = row["prompt_tokens"] * PROMPT_NANOS + row["completion_tokens"] * OUTPUT_NANOS
    return nanos
