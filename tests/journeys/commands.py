"""`python -m tollgate …` to its end. One process imports it all once, and forks for each command."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from sandbox.serving import PATIENCE_SECONDS
from tollgate.__main__ import main

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([main.__module__, "tollgate.app"])
STREAMS = ("in", "out", "err")
LONGEST_SECONDS = 5 * PATIENCE_SECONDS
"""Of a command: some make a whole Postgres first."""


def environment(folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """As on a machine where nothing else is set."""
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "PORT": "0", **settings}


def run(
    *arguments: str, folder: Path, settings: Mapping[str, str], given: str = ""
) -> subprocess.CompletedProcess[str]:
    """In that folder."""
    with tempfile.TemporaryDirectory() as streams:
        files = [Path(streams, stream) for stream in STREAMS]
        files[0].write_text(given)
        process = PROCESSES.Process(
            target=_as_a_program, args=(arguments, folder, environment(folder, settings), files)
        )
        process.start()
        try:
            process.join(LONGEST_SECONDS)
        finally:
            process.kill()
            process.join()
        code = process.exitcode
        process.close()
        return subprocess.CompletedProcess(arguments, code, *(file.read_text() for file in files[1:]))


def _as_a_program(arguments: tuple[str, ...], folder: Path, environ: Mapping[str, str], files: list[Path]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    for number, file in enumerate(files):
        os.dup2(os.open(file, os.O_RDWR | os.O_CREAT), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.exit(main(arguments))
