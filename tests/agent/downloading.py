"""Downloads in a process of its own, so that it can be killed."""

import asyncio
import multiprocessing
import resource
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Final

from tollgate.agent.downloads import DownloadFailed, Downloads
from tollgate.engines.schemas import HubSource

SOURCE: Final = HubSource(repo_id="ours/tiny", files=["tiny.gguf"])
NO_SPACE: Final = 3
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tollgate.agent.downloads", "agent.downloading", "pytest"])


def started(store: Path, hub: str, most_file_bytes: int | None = None) -> ForkServerProcess:
    process = _processes.Process(target=_download, args=(store, hub, most_file_bytes))
    process.start()
    return process


def _download(store: Path, hub: str, most_file_bytes: int | None) -> None:
    if most_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_file_bytes, most_file_bytes))
    try:
        asyncio.run(Downloads(store, hub, pauses=[0.0] * 3).fetch(SOURCE, None, lambda _: None))
    except DownloadFailed as failed:
        sys.exit(NO_SPACE if failed.reason == "no_space" else 1)
