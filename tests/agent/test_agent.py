"""The agent as a program: killed in every phase, on a copied directory, with a full disk, and without a server."""

import contextlib
import os
import resource
import shutil
import signal
from pathlib import Path

import httpx
import pytest

from agent import control_plane, host
from agent.control_plane import PATIENCE_SECONDS, ControlPlane, until
from agent.host import Agent
from tollgate.agent import phases
from tollgate.agent.control_loop import LONGEST_BACK_OFF, NotEnrolled, back_off
from tollgate.agent.control_loop import ControlPlane as ServersSide

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
LONG = {**CHAT, "stream": True, "max_tokens": 4000, "ignore_eos": True, "logprobs": True, "top_logprobs": 20}
"""6 MB, and the buffers of sockets take 4 MB and a little, so it lasts while nobody reads it."""

LASTING = {"dep_failed": "failed", "dep_loading": "loading", "dep_starting": "starting"}


@pytest.mark.slow
def test_an_agent_that_is_killed_in_any_phase_finds_what_it_ran(
    agent: Agent, plane: ControlPlane, models: Path
) -> None:
    """Nothing is started twice, and in the end nothing is left."""
    model = models / "tiny.gguf"
    plane.want("dep_starting", host.odd(model, "mute"))
    plane.want("dep_loading", host.odd(model, "hangs"))
    plane.want("dep_running", host.spec(model))
    plane.want("dep_draining", host.spec(model, context_length=4096), drain_seconds=60)
    plane.want("dep_stopping", host.odd(model, "stubborn"))
    plane.want("dep_failed", host.odd(model, "misconfigured"))
    for id_, phase in {**dict.fromkeys(("dep_running", "dep_draining", "dep_stopping"), "running"), **LASTING}.items():
        plane.becomes(id_, phase)
    with agent.client() as http, http.stream("POST", "/d/dep_draining/v1/chat/completions", json=LONG):
        plane.stop("dep_draining")
        plane.stop("dep_stopping")
        expected = {id_: id_.removeprefix("dep_") for id_ in plane.deployments}
        until(lambda: {id_: plane.phase(id_) for id_ in expected} == expected, lambda: str(plane.observations))
        before = agent.engines()
        assert len(before) == 5
        agent.kill()
    plane.observations.clear()
    agent.start()
    plane.becomes("dep_running", "running")
    plane.becomes("dep_draining", "stopped")  # nobody waits for its answer any more
    assert set(agent.engines()) < set(before)
    assert plane.phase("dep_failed") == "failed"
    with agent.client() as http:
        assert http.post("/d/dep_running/v1/chat/completions", json=CHAT).status_code == 200
    for pid in agent.engines():
        with contextlib.suppress(ProcessLookupError):  # the agent kills the stubborn one after its 20 seconds
            os.kill(pid, signal.SIGKILL)
    for id_ in plane.deployments:
        plane.stop(id_)
    for id_ in plane.deployments:
        plane.becomes(id_, "stopped")
    assert agent.engines() == []


def test_engines_outlive_an_agent_that_ends_and_end_with_one_that_says_so(
    agent: Agent, plane: ControlPlane, models: Path
) -> None:
    plane.want("dep_1", host.spec(models / "tiny.gguf"))
    plane.becomes("dep_1", "running")
    next_keys_are_taken(agent, plane)
    assert agent.end() == 0
    (pid,) = agent.engines()
    plane.is_away = True  # what is wanted is on disk
    agent.start("--end-engines")
    until(lambda: _answers(agent))
    assert agent.engines() == [pid]
    assert agent.end() == 0
    assert agent.engines() == []


def next_keys_are_taken(agent: Agent, plane: ControlPlane) -> None:
    """The former one opens the ingress as long as the control plane says so. They are on disk, for the next agent."""
    former, following = plane.host_key, f"tgh_hst_1_1_{'0' * 64}"
    plane.host_keys = [following, former]
    until(lambda: plane.used_key == following)
    assert [_opens(agent, key) for key in (following, former, "other")] == [True, True, False]
    plane.host_keys = [following]
    until(lambda: not _opens(agent, former))
    assert _opens(agent, following)


def _opens(agent: Agent, key: str) -> bool:
    with agent.client() as http:
        return http.get("/agent/health", headers={"authorization": f"Bearer {key}"}).status_code == 200


def _answers(agent: Agent) -> bool:
    try:
        with agent.client() as http:
            return http.post("/d/dep_1/v1/chat/completions", json=CHAT).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.slow
def test_a_copied_directory_touches_nothing_while_the_host_lives(models: Path, short_path: Path) -> None:
    with control_plane.serving() as plane, host.running(plane, short_path, models) as agent:
        plane.want("dep_1", host.spec(models / "tiny.gguf"))
        plane.becomes("dep_1", "running")
        (pid,) = agent.engines()
        shutil.copytree(agent.directory, short_path / "b", ignore=shutil.ignore_patterns("s"))
        copy = Agent(plane, short_path / "b", models)
        copy.start(token=None)
        try:
            until(lambda: "host_busy" in plane.refused)
            assert copy.engines() == []
            assert agent.engines() == [pid]
            second = Agent(plane, agent.directory, models)
            second.start()
            assert second.process
            assert second.process.wait(PATIENCE_SECONDS) == 1
            assert "another agent runs on" in second.output.read_text()

            agent.kill()
            copy.kill()  # else it would ask again only after a while
            plane.end_lease()
            until(lambda: _is_accepted(plane, copy))
            plane.becomes("dep_1", "running")
            assert copy.engines() != []
            assert agent.engines() == [pid]
        finally:
            host.end(copy)


def _is_accepted(plane: ControlPlane, copy: Agent) -> bool:
    """Starts it, until the lease of the other has ended."""
    if copy.process is None or copy.process.poll() is not None:
        plane.refused.clear()
        copy.start(token=None)
    if "host_busy" in plane.refused:
        copy.kill()
    return bool(copy.engines())


def test_lost_answers_a_full_disk_and_a_retirement(agent: Agent, plane: ControlPlane, models: Path) -> None:
    """One agent through all of them."""
    model = models / "tiny.gguf"
    plane.want("dep_1", host.spec(model))
    plane.becomes("dep_1", "running")

    plane.loses_answers = 1
    assert plane.ask("local_folders")["status"] == "done"
    assert plane.ask("inspect_folder", base=None, folder="../..")["status"] == "failed"
    assert len(plane.ask("logs", deployment_id="dep_1", lines=3)["result"]["lines"]) == 3
    sequence = [sync["seq"] for sync in plane.syncs]
    assert sequence == sorted(set(sequence))
    assert plane.samples[0]["memory_total_bytes"] > 0
    assert plane.capabilities["engines"] == ["llamacpp"]

    assert agent.process
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, (0, most))  # every write to a file fails
    plane.want("dep_2", host.spec(model))
    refused = plane.becomes("dep_2", "failed")
    assert "cannot write" in refused["detail"]
    assert refused["retry_in_seconds"] is not None
    assert plane.phase("dep_1") == "running"
    assert len(agent.engines()) == 1
    former, following = plane.host_key, f"tgh_hst_1_1_{'0' * 64}"
    plane.host_keys = [following, former]
    syncs = len(plane.syncs)
    until(lambda: len(plane.syncs) > syncs + 2)
    assert plane.used_key == former  # another key that could not be kept would lock the host out
    resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, (most, most))
    until(lambda: plane.used_key == following)
    plane.want("dep_2", host.spec(model, context_length=256))
    plane.becomes("dep_2", "running")

    plane.host = {"state": "retired", "base_dir": None}
    until(lambda: not agent.engines())


def test_syncs_become_rare_while_the_control_plane_is_away() -> None:
    """In ten minutes fewer than thirty, and half of each pause is chance."""
    pauses = [back_off(failures, chance=0.0) for failures in range(1, 40)]
    assert sum(pauses[:29]) > 600
    assert pauses[:3] == [1, 2, 4]
    assert back_off(1000, chance=1.0) == LONGEST_BACK_OFF


async def test_a_wrong_token_is_refused_with_the_servers_sentence(plane: ControlPlane) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        with pytest.raises(NotEnrolled, match="The token is unknown or used"):
            await ServersSide(plane.address, http).enrol("wrong", {})


assert phases.START_SECONDS > control_plane.PATIENCE_SECONDS, "or an engine that is mute would fail within a test"
