"""Downloads from a hub that cuts, stalls, lies and refuses, by processes that are killed."""

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.downloading import NO_SPACE, SOURCE, started
from agent.hub_server import COMMIT, TOKEN, Fault, HubServer, listed
from tollgate.agent import hub as hub_questions
from tollgate.agent.downloads import DownloadFailed, Downloads, Progress
from tollgate.agent.parts import BLOCK
from tollgate.engines.schemas import HubSource

REPO = "ours/tiny"
MODEL = random.Random(1).randbytes(16 * BLOCK + 12345)  # noqa: S311
SMALL = MODEL[: BLOCK + 77]
DEADLINE_SECONDS = 60


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer().running() as server:
        server.repos[REPO] = {"tiny.gguf": SMALL, "README.md": b"# tiny\n"}
        yield server


def downloads(hub: HubServer, store: Path, **options: Any) -> Downloads:
    return Downloads(store, hub.url, **{"stall_seconds": DEADLINE_SECONDS, "pauses": [0.0] * 3, **options})


async def fetch(made: Downloads, source: HubSource = SOURCE, token: str | None = None) -> Path:
    return await made.fetch(source, token, lambda _: None)


def parts(store: Path) -> list[Path]:
    return list(store.rglob("*.part"))


async def failed(made: Downloads, source: HubSource = SOURCE, token: str | None = None) -> DownloadFailed:
    with pytest.raises(DownloadFailed) as refused:
        await fetch(made, source, token)
    return refused.value


def test_twenty_cuts_and_five_kills_fetch_no_byte_twice_beyond_a_block(hub: HubServer, tmp_path: Path) -> None:
    hub.repos[REPO]["tiny.gguf"] = MODEL
    for _ in range(5):
        hub.faults.extend([*[Fault("cut", 300_000)] * 4, Fault("hold", BLOCK + BLOCK // 2)])
        killed_in_the_middle(hub, tmp_path)
    child = started(tmp_path, hub.url)
    child.join(DEADLINE_SECONDS)
    assert child.exitcode == 0
    assert Downloads(tmp_path).verified(SOURCE) == tmp_path / "ours--tiny" / "main" / "tiny.gguf"
    assert (tmp_path / "ours--tiny" / "main" / "tiny.gguf").read_bytes() == MODEL
    assert {file.name for file in tmp_path.rglob("*") if file.is_file()} == {"tiny.gguf", ".tollgate.json"}
    assert len(MODEL) <= hub.sent <= len(MODEL) + 5 * BLOCK


def killed_in_the_middle(hub: HubServer, store: Path) -> None:
    """When all blocks are on the disk that the hub has sent so far."""
    before = sum(part.stat().st_size for part in parts(store))
    child = started(store, hub.url)
    deadline = time.monotonic() + DEADLINE_SECONDS
    try:
        while hub.faults or sum(part.stat().st_size for part in parts(store)) < before + 4 * 300_000 + BLOCK:
            assert time.monotonic() < deadline
            assert child.is_alive()
            time.sleep(0.01)
    finally:
        child.kill()
        child.join()
        hub.release.set()
        hub.release.clear()


async def test_what_is_whole_is_not_asked_for_again_and_is_deleted(hub: HubServer, tmp_path: Path) -> None:
    seen: list[Progress] = []
    made = downloads(hub, tmp_path)
    path = await made.fetch(SOURCE, None, seen.append)
    assert path.read_bytes() == SMALL
    assert (seen[-1].bytes_done, seen[-1].bytes_total, seen[-1].file) == (len(SMALL), len(SMALL), "tiny.gguf")
    asked = len(hub.asked)
    assert await fetch(made) == path
    assert await fetch(Downloads(tmp_path, "http://127.0.0.1:1", offline=True)) == path
    assert len(hub.asked) == asked
    path.write_bytes(SMALL[:-1] + b"?")
    os.utime(path, (0, 0))  # the file system's clock may not have ticked since the download
    assert made.verified(SOURCE) is None
    assert (await fetch(made)).read_bytes() == SMALL
    made.delete(SOURCE)
    made.delete(SOURCE)
    assert os.listdir(tmp_path) == []
    assert (await failed(Downloads(tmp_path, hub.url, offline=True))).reason == "offline"


async def test_the_whole_of_a_repository_is_what_an_engine_needs(hub: HubServer, tmp_path: Path) -> None:
    hub.repos["ours/big"] = {
        "config.json": b'{"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}',
        "model.safetensors": SMALL,
        "pytorch_model.bin": b"old",
        "original/params.json": b"{}",
        "README.md": b"#",
        "picture.png": b"",
    }
    source = HubSource(repo_id="ours/big")
    folder = await fetch(downloads(hub, tmp_path), source)
    assert set(os.listdir(folder)) == {"config.json", "model.safetensors", ".tollgate.json"}
    assert downloads(hub, tmp_path).verified(source) == folder
    about = await hub_questions.config(hub.url, "ours/big", "main")
    assert (about["hidden_size"], about["num_hidden_layers"], about["commit"]) == (64, 2, COMMIT)
    assert about["facts"]["weight_bytes"] == len(SMALL)
    hub.repos["ours/gguf"] = {"m-Q4_K_M.gguf": SMALL, "m-Q8_0.gguf": SMALL * 2, "README.md": b"#"}
    about = await hub_questions.config(hub.url, "ours/gguf", "main")
    groups = [(group["quant_type"], group["bytes"]) for group in about["gguf_groups"]]
    assert groups == [("Q4_K_M", len(SMALL)), ("Q8_0", 2 * len(SMALL))]
    assert about["facts"]["weight_bytes"] == len(SMALL)


async def test_a_wrong_digest_is_tried_twice(hub: HubServer, tmp_path: Path) -> None:
    made = downloads(hub, tmp_path)
    hub.faults.extend([Fault("corrupt")])
    assert (await fetch(made)).read_bytes() == SMALL
    made.delete(SOURCE)
    hub.faults.extend([Fault("corrupt")] * 2)
    refused = await failed(made)
    assert (refused.reason, refused.retryable) == ("digest", False)
    assert parts(tmp_path) == []
    assert made.verified(SOURCE) is None


async def test_a_gated_repository_needs_a_token_and_only_the_hub_gets_it(hub: HubServer, tmp_path: Path) -> None:
    hub.gated.add(REPO)
    for token in (None, "hf_bad"):
        refused = await failed(downloads(hub, tmp_path), SOURCE, token)
        assert (refused.reason, refused.retryable) == ("gated", False)
        assert str(token) not in refused.message
    hub.asked.clear()
    with HubServer().running() as elsewhere:
        elsewhere.repos = hub.repos
        elsewhere.faults.append(Fault("status"))
        hub.elsewhere = elsewhere
        assert (await fetch(downloads(hub, tmp_path), SOURCE, TOKEN)).read_bytes() == SMALL
        assert {authorization for _, _, authorization in hub.asked} == {f"Bearer {TOKEN}"}
        assert {authorization for _, _, authorization in elsewhere.asked} == {None}
        assert hub.sent == 0


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (HubSource(repo_id="ours/none"), "absent"),
        (HubSource(repo_id=REPO, revision="other"), "absent"),
        (HubSource(repo_id=REPO, files=["none.gguf"]), "absent"),
        (HubSource(repo_id=REPO, files=["../x"]), "absent"),
    ],
)
async def test_what_the_hub_does_not_have_is_said(
    hub: HubServer, tmp_path: Path, source: HubSource, reason: str
) -> None:
    refused = await failed(downloads(hub, tmp_path), source)
    assert (refused.reason, refused.retryable) == (reason, False)


async def test_faults_of_the_network_are_tried_again_until_nothing_comes(hub: HubServer, tmp_path: Path) -> None:
    hub.faults.extend([Fault("status"), Fault("hold", 10_000), Fault("cut", 10_000), Fault("no_range")])
    assert (await fetch(downloads(hub, tmp_path, stall_seconds=2))).read_bytes() == SMALL
    made = downloads(hub, tmp_path)
    made.delete(SOURCE)
    hub.faults.extend([Fault("cut", 500_000), *[Fault("status")] * 4])
    refused = await failed(made)
    assert (refused.reason, refused.retryable) == ("network", True)
    assert [part.stat().st_size for part in parts(tmp_path)] == [500_000]
    gone = await failed(Downloads(tmp_path, "http://127.0.0.1:1", pauses=[0.0]))
    assert (gone.reason, gone.retryable) == ("network", True)


async def test_a_full_disk_is_said_before_and_during_and_the_part_is_kept(hub: HubServer, tmp_path: Path) -> None:
    before = await failed(downloads(hub, tmp_path, free_bytes=lambda _: 2**28 + 1000))
    assert (before.reason, before.retryable, hub.sent) == ("no_space", False, 0)
    limit = 700_000
    child = started(tmp_path, hub.url, limit)
    await asyncio.to_thread(child.join, DEADLINE_SECONDS)
    assert child.exitcode == NO_SPACE
    assert [part.stat().st_size for part in parts(tmp_path)] == [limit]
    hub.asked.clear()
    assert (await fetch(downloads(hub, tmp_path))).read_bytes() == SMALL
    assert [ranged for _, ranged, _ in hub.asked] == [f"bytes={limit}-"]


async def test_a_cancelled_download_keeps_its_part(hub: HubServer, tmp_path: Path) -> None:
    hub.repos[REPO]["tiny.gguf"] = MODEL
    hub.faults.append(Fault("hold", 2 * BLOCK))
    moved = asyncio.Event()
    made = downloads(hub, tmp_path)
    task = asyncio.create_task(made.fetch(SOURCE, None, lambda progress: moved.set()))
    await asyncio.wait_for(moved.wait(), DEADLINE_SECONDS)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert parts(tmp_path)[0].stat().st_size >= BLOCK
    assert (await fetch(made)).read_bytes() == MODEL


async def test_files_of_another_tool_are_adopted_by_their_digest(hub: HubServer, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "blob").write_bytes(SMALL)
    (theirs / "tiny.gguf").symlink_to("blob")
    path = await downloads(hub, tmp_path / "store").adopt(theirs, SOURCE)
    assert path.read_bytes() == SMALL
    assert hub.asked == []
    (theirs / "blob").unlink()
    (theirs / "blob").write_bytes(b"x" * len(SMALL))
    path = await downloads(hub, tmp_path / "other").adopt(theirs, SOURCE)
    assert path.read_bytes() == SMALL
    assert (theirs / "blob").read_bytes() == b"x" * len(SMALL)


async def test_a_list_cannot_write_outside_the_store_and_a_store_that_cannot_be_written_says_so(
    hub: HubServer, tmp_path: Path
) -> None:
    hub.lists[REPO] = [
        listed(name, SMALL) for name in ("../../evil.gguf", "/evil.gguf", "a/../../evil.gguf", ".tollgate.json")
    ]
    hub.lists[REPO] += [{**listed("evil.gguf", b"x"), "oid": "/../../../evil"}]
    assert (await failed(downloads(hub, tmp_path), HubSource(repo_id=REPO))).reason == "absent"
    assert (await failed(downloads(hub, Path("/sys/tollgate")))).reason == "read_only"


async def test_two_processes_share_one_download(hub: HubServer, tmp_path: Path) -> None:
    both = await asyncio.gather(*(fetch(downloads(hub, tmp_path)) for _ in range(2)))
    assert {path.read_bytes() == SMALL for path in both} == {True}
    assert hub.sent == len(SMALL)


def test_the_address_of_the_hub_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.test")
    assert Downloads(tmp_path)._hub == "http://mirror.test"
    assert os.environ["HF_ENDPOINT"] != Downloads(tmp_path, "http://ours.test")._hub
