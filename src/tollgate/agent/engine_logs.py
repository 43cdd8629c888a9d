"""What engines print: a file for each of the last starts. The engine writes it itself, since it outlives the agent; the
agent keeps it short, removes secrets from it when the engine has ended, and from all that it reads of it before."""

import contextlib
import os
from pathlib import Path
from typing import Final

from tollgate.core.redaction import Redactor

STARTS_KEPT: Final = 5
MOST_BYTES: Final = 2 * 1024**2
HEAD_BYTES: Final = 128 * 1024
"""Kept when a log is cut: the first error, which counts, is there."""
TAIL_BYTES: Final = 8 * 1024
READ_BYTES: Final = 256 * 1024


class EngineLogs:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self) -> Path:
        """The file of the next start. The oldest one is removed."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        files = self.files()
        for old in files[: max(len(files) - STARTS_KEPT + 1, 0)]:
            old.unlink(missing_ok=True)
        number = int(files[-1].stem) + 1 if files else 1
        made = self._folder / f"{number:06}.log"
        made.touch(mode=0o600)
        return made

    def files(self) -> list[Path]:
        return sorted(one for one in self._folder.glob("*.log") if one.stem.isdigit())

    def size(self) -> int:
        files = self.files()
        with contextlib.suppress(FileNotFoundError):
            return files[-1].stat().st_size if files else 0
        return 0

    def text(self, redact: Redactor, most: int = READ_BYTES) -> str:
        """The log of the last start, without secrets: its head and its tail, if it is long."""
        files = self.files()
        if not files:
            return ""
        with contextlib.suppress(FileNotFoundError):
            return redact(_head_and_tail(files[-1], most))
        return ""

    def tail(self, redact: Redactor) -> str:
        return self.text(redact)[-TAIL_BYTES:].encode()[-TAIL_BYTES:].decode(errors="ignore")

    def lines(self, redact: Redactor, count: int) -> list[str]:
        return self.text(redact).splitlines()[-count:]

    def bound(self) -> None:
        """Cuts a log that has become long. The engine appends, so it goes on at the new end."""
        files = self.files()
        if files and files[-1].stat().st_size > MOST_BYTES:
            kept = _head_and_tail(files[-1], MOST_BYTES // 2).encode()
            os.truncate(files[-1], 0)
            with files[-1].open("ab") as out:
                out.write(kept)

    def finish(self, redact: Redactor) -> None:
        """After the end of the engine: rewrites its log without secrets."""
        files = self.files()
        if files:
            clean = self.text(redact, MOST_BYTES)
            beside = files[-1].with_suffix(".new")
            beside.write_text(clean, encoding="utf-8")
            beside.chmod(0o600)
            beside.replace(files[-1])


def _head_and_tail(file: Path, most: int) -> str:
    with file.open("rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(0)
        if size <= most:
            return opened.read().decode(errors="replace")
        head = opened.read(min(HEAD_BYTES, most // 2))
        opened.seek(size - (most - len(head)))
        return f"{head.decode(errors='replace')}\n[…]\n{opened.read().decode(errors='replace')}"
