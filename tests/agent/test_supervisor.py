"""What the supervisor does about engines that misbehave, with real processes. Hours pass by a clock that is put on."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from agent import host
from agent.inside import Inside
from tollgate.agent import phases
from tollgate.agent.claims import Gpu
from tollgate.agent.data_directory import DataDirectory, DirectoryTaken
from tollgate.agent.host_keys import HostKeys
from tollgate.agent.ingress import Ingress

HOUR = 3600.0
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}


def odd(inner: Inside, mode: str) -> dict[str, object]:
    return host.odd(inner.models / "tiny.gguf", mode)


def tiny(inner: Inside) -> dict[str, object]:
    return host.spec(inner.models / "tiny.gguf")


async def test_an_engine_that_ignores_sigterm_is_killed(inner: Inside) -> None:
    inner.want("dep_1", odd(inner, "stubborn"))
    await inner.becomes("dep_1", "running")
    inner.stop("dep_1")
    await inner.becomes("dep_1", "stopping")
    await inner.supervisor.round()
    assert inner.engines()
    inner.clock.forward(phases.KILL_SECONDS + 1)
    await inner.becomes("dep_1", "stopped")
    assert not inner.engines()


async def test_an_engine_that_prints_nothing_fails_at_its_deadline(inner: Inside) -> None:
    inner.want("dep_1", odd(inner, "mute"))
    await inner.becomes("dep_1", "starting")
    inner.clock.forward(phases.START_SECONDS + 1)
    failed = await inner.becomes("dep_1", "failed")
    await inner.rounds(lambda: not inner.engines())
    assert failed.retryable


async def test_an_engine_that_never_answers_fails_at_its_deadline(inner: Inside) -> None:
    inner.want("dep_1", odd(inner, "hangs"))
    await inner.becomes("dep_1", "loading")
    await inner.supervisor.round()
    inner.clock.forward(phases.LOAD_SECONDS + 1)
    await inner.becomes("dep_1", "failed")
    await inner.rounds(lambda: not inner.engines())


async def test_a_crash_is_tried_again_after_a_back_off_that_outlives_the_agent(inner: Inside) -> None:
    with inner.clock.stands_still():
        inner.want("dep_1", odd(inner, "crashes"))
        failed = await inner.becomes("dep_1", "failed")
        assert failed.detail == "The engine ended with exit code 3."
        seen = failed.observation()
        assert (seen["failures"], seen["log_tail"]) == (1, "loading\n")
        assert seen["retry_in_seconds"] == 10

        later = inner.restarted()
        await later.supervisor.round()
        assert later["dep_1"].phase == "failed"
        inner.clock.forward(11)
        await later.rounds(lambda: later["dep_1"].failures == 2)
        assert later["dep_1"].observation()["retry_in_seconds"] == 20
    assert len(later["dep_1"].logs.files()) == 2
    await later.supervisor.leave()


async def test_an_error_of_configuration_is_not_tried_again_until_it_changes(inner: Inside) -> None:
    inner.want("dep_1", odd(inner, "misconfigured"))
    failed = await inner.becomes("dep_1", "failed")
    assert failed.diagnosis
    assert not failed.retryable
    inner.clock.forward(HOUR)
    for _ in range(3):
        await inner.supervisor.round()
    assert (failed.phase, failed.failures) == ("failed", 1)
    inner.want("dep_1", tiny(inner), generation=2)
    await inner.rounds(lambda: failed.phase == "running")


REFUSED = {
    "a flag": ({"arguments": ["--slot-save-path", "/"]}, "--slot-save-path"),
    "a variable": ({"environment": {"LD_PRELOAD": "/x.so"}}, "LD_PRELOAD"),
    "code of a model": ({"trust_remote_code": True}, "--trust-remote-code"),
    "an image": ({"container_image": "evil/image"}, "--allow-image"),
    "a command": ({"engine": "custom", "custom_command": "sh"}, "--allow-command"),
    "a path": ({"source": {"type": "path", "path": "/etc/passwd"}}, "--allow-root"),
    "a path with dots": ({"source": {"type": "path", "path": "../../../../../../../etc/passwd"}}, "--allow-root"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_an_admin_key_cannot_do_what_the_hosts_owner_does_not_allow(inner: Inside, case: str) -> None:
    asked, named = REFUSED[case]
    inner.want("dep_1", {**tiny(inner), **asked})
    failed = await inner.becomes("dep_1", "failed")
    assert named in (failed.detail or "")
    assert not failed.retryable
    assert not failed.logs.text(failed.redactor())


async def test_what_an_engine_left_behind_is_ended_and_nothing_else(inner: Inside) -> None:
    with foreign_process() as foreign:
        inner.want("dep_1", odd(inner, "orphans"))
        await inner.becomes("dep_1", "running")
        await inner.rounds(lambda: len(inner.engines()) == 2)
        os.kill(inner.pid("dep_1"), signal.SIGKILL)
        await inner.becomes("dep_1", "failed")
        await inner.rounds(lambda: not inner.engines())
        assert foreign.poll() is None


async def test_an_engine_that_produces_no_token_is_ended(inner: Inside) -> None:
    inner.want("dep_1", tiny(inner))
    running = await inner.becomes("dep_1", "running")
    await inner.rounds(lambda: running.run and running.run.metrics.tokens)
    os.kill(inner.pid("dep_1"), signal.SIGSTOP)
    with running.traffic.flight():
        with inner.clock.stands_still():
            await inner.supervisor.round()
            inner.clock.forward(phases.SILENT_SECONDS - 5)
            await inner.supervisor.round()
            assert running.phase == "running"
        inner.clock.forward(10)
        await inner.becomes("dep_1", "failed")
    await inner.rounds(lambda: not inner.engines())


async def test_a_drain_waits_for_what_is_in_flight_but_not_for_ever(inner: Inside) -> None:
    inner.want("dep_1", tiny(inner))
    running = await inner.becomes("dep_1", "running")
    with running.traffic.flight():
        with inner.clock.stands_still():
            inner.stop("dep_1")
            await inner.becomes("dep_1", "draining")
            inner.wanted["dep_1"]["wanted"] = "running"
            inner.apply()
            await inner.becomes("dep_1", "running")
            inner.apply("cordoned")
            await inner.becomes("dep_1", "draining")
            await inner.supervisor.round()
            assert running.phase == "draining"
        inner.clock.forward(6)
        await inner.becomes("dep_1", "stopped")


async def test_an_engine_gets_its_key_and_none_of_the_agents_secrets(inner: Inside) -> None:
    inner.want("dep_1", odd(inner, "stubborn"))
    running = await inner.becomes("dep_1", "running")
    assert running.run
    secret, process = running.run.secret, Path(f"/proc/{inner.pid('dep_1')}")
    assert secret.encode() not in (process / "cmdline").read_bytes()
    environment = (process / "environ").read_bytes()
    assert f"ENGINE_API_KEY={secret}".encode() in environment
    assert b"OPENROUTER" not in environment
    assert "the key is [hidden" in running.logs.text(running.redactor())
    inner.stop("dep_1")
    await inner.becomes("dep_1", "stopping")
    inner.clock.forward(phases.KILL_SECONDS + 1)
    await inner.becomes("dep_1", "stopped")
    assert secret not in running.logs.files()[-1].read_text()


async def test_what_runs_is_adopted_by_the_next_agent(inner: Inside) -> None:
    """As it was, by session and start time. A process that has the number by chance is not touched."""
    inner.want("dep_1", tiny(inner))
    inner.want("dep_2", odd(inner, "stubborn"))
    await inner.becomes("dep_1", "running")
    await inner.becomes("dep_2", "running")
    pid = inner.pid("dep_1")
    later = inner.restarted()
    assert later["dep_1"].phase == "unknown"
    await later.becomes("dep_1", "running")
    assert later.pid("dep_1") == pid
    later.stop("dep_1")
    await later.becomes("dep_1", "stopped")

    with foreign_process() as foreign:
        record = later.directory.read("engines/dep_2/record.json")
        assert record
        record["run"]["engine"]["pid"] = foreign.pid
        later.directory.write("engines/dep_2/record.json", record)
        third = later.restarted()
        third.stop("dep_2")
        await third.rounds(lambda: third["dep_2"].phase == "stopped")
        assert foreign.poll() is None
    await third.supervisor.leave()
    await later.supervisor.leave()


async def test_a_model_loads_on_demand_and_unloads_when_it_is_idle(inner: Inside) -> None:
    inner.want("dep_1", tiny(inner), "on_demand", idle_seconds=60, minimum_stay_seconds=600, load_seconds=60)
    await inner.supervisor.round()
    waits = inner["dep_1"]
    assert (waits.phase, waits.is_ready) == ("stopped", True)
    keeping = asyncio.create_task(inner.supervisor.keep())
    async with ingress(inner) as http:
        assert (await http.post("/d/dep_1/v1/chat/completions", json=CHAT)).status_code == 200
    keeping.cancel()
    await asyncio.wait([keeping])
    inner.clock.forward(500)  # idle for long, but it must stay
    await inner.supervisor.round()
    assert waits.phase == "running"
    inner.clock.forward(110)
    await inner.becomes("dep_1", "stopped")
    assert not inner.engines()

    waits.load_seconds = 61.0  # longer than a client may wait
    async with ingress(inner) as http:
        refused = await http.post("/d/dep_1/v1/chat/completions", json=CHAT)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_loading")
    assert refused.headers["retry-after"] == "61"
    await inner.becomes("dep_1", "running")


async def test_only_the_hosts_own_key_opens_the_ingress(inner: Inside) -> None:
    async with ingress(inner) as http:
        for key in ("", "tgh_hst_2_1_aa", "tgh_hst_1_1_aaa"):
            for path in ("/d/dep_1/v1/models", "/agent/health", "/agent/logs/dep_1"):
                refused = await http.get(path, headers={"authorization": f"Bearer {key}"})
                assert (refused.status_code, refused.json()["error"]["code"]) == (401, "host_key_invalid")
        for path in ("/d/dep_1/metrics", "/d/dep_1/v1/../metrics", "/d/dep_1/v1/%2e%2e/metrics", "/d/../v1/x"):
            assert (await http.get(path)).status_code == 404


@contextlib.contextmanager
def foreign_process() -> Iterator["subprocess.Popen[bytes]"]:
    """Somebody else's, which the agent must not touch."""
    foreign = subprocess.Popen(["sleep", "3600"], start_new_session=True)
    try:
        yield foreign
    finally:
        foreign.kill()
        foreign.wait()


def ingress(inner: Inside) -> httpx.AsyncClient:
    async def nothing(task: object) -> None:
        return None

    keys = HostKeys(inner.directory, {"host_key": "tgh_hst_1_1_aa"})
    app = Ingress(inner.supervisor, keys, nothing, wake=lambda: None)
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app),  # type: ignore[arg-type]
        base_url="http://ingress",
        headers={"authorization": "Bearer tgh_hst_1_1_aa"},
        timeout=30,
    )


def test_two_agents_cannot_hold_one_directory(tmp_path: Path) -> None:
    first, second = DataDirectory(tmp_path), DataDirectory(tmp_path)
    first.hold()
    with pytest.raises(DirectoryTaken, match="another agent runs on"):
        second.hold()
    first.release()
    second.hold()
    second.release()


async def test_an_idle_model_makes_room_on_the_gpu_but_not_before_it_has_stayed(inner: Inside) -> None:
    spec = {**tiny(inner), "gpu_layers": None}
    inner.gpus = [Gpu(0, total_bytes=300 * 1024**2)]  # one of them fits, by its estimate
    inner.want("dep_1", spec, "on_demand", minimum_stay_seconds=60)
    inner["dep_1"].demanded = True
    idle = await inner.becomes("dep_1", "running")
    assert idle.claim
    assert idle.claim.gpus == (0,)
    inner.want("dep_2", spec)
    for _ in range(3):
        await inner.supervisor.round()
    waits = inner["dep_2"]
    assert (idle.phase, waits.phase) == ("running", "stopped")
    assert "GiB free" in (waits.detail or "")
    inner.clock.forward(61)
    await inner.becomes("dep_2", "running")
    assert idle.phase == "stopped"
