"""Writes dumps, and restores them, with Postgres' own programs: those of the embedded Postgres, or the machine's."""

import contextlib
import gzip
import os
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tollgate.backups import rules
from tollgate.database import embedded

SCHEMAS = ("tollgate", "public", "supabase_migrations")
CUSTOM = b"PGDMP"
"""With these bytes a dump in the custom format begins; any other file is taken for SQL."""
GZIP = b"\x1f\x8b"
END_BYTES = 4096


class BackupError(Exception):
    """Why there is no backup, or no restore of it, in one line for the person at the keyboard."""


def create(url: str, file: Path, programs: Path | None = None) -> None:
    """One snapshot of the database. The file appears when it is complete, and only its owner may read it."""
    part = file.with_name(f"{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists():
            raise BackupError(f"{file} is there already: name another file with --to")
        part.touch(mode=0o600)
        schemas = [f"--schema={name}" for name in SCHEMAS]
        made = _run("pg_dump", url, *schemas, "--format=custom", f"--file={part}", programs=programs)
        if made.returncode:
            raise BackupError(f"the backup was not made: {rules.why(made.stderr)}")
        part.rename(file)
    except OSError as error:
        raise BackupError(f"cannot write {file}: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)


def restore(url: str, file: Path) -> list[str]:
    """Fills an empty database. Answers what could not be restored, as sentences."""
    try:
        with file.open("rb") as opened:
            is_custom = opened.read(len(CUSTOM)) == CUSTOM
    except OSError as error:
        raise BackupError(f"cannot read {file}: {error.strerror}") from None
    return _restore_custom(url, file) if is_custom else _restore_plain(url, file)


def _restore_custom(url: str, file: Path) -> list[str]:
    made = _run("pg_restore", url, "--no-owner", str(file))
    return rules.faults_of_restore(made.stderr, made.returncode, plain=False)


def _restore_plain(url: str, file: Path) -> list[str]:
    """A cluster's dump holds more than we can restore, such as extensions of Supabase: what is ours must be whole."""
    try:
        with _unpacked(file) as sql:
            end = _end(sql)
            sql.seek(0)
            made = _run("psql", url, "--no-psqlrc", "--quiet", given=sql)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return ["the file ends too early: it was not written or copied completely"]
    early = [] if rules.is_complete(end) else [f"the file ends too early: no line says {rules.COMPLETE[0]!r}"]
    return early + rules.faults_of_restore(made.stderr, made.returncode, plain=True)


@contextlib.contextmanager
def _unpacked(file: Path) -> Iterator[IO[bytes]]:
    with file.open("rb") as opened:
        if opened.read(len(GZIP)) != GZIP:
            opened.seek(0)
            yield opened
            return
    with gzip.open(file) as packed, tempfile.TemporaryFile() as plain:
        shutil.copyfileobj(packed, plain)
        plain.seek(0)
        yield plain


def _end(text: IO[bytes]) -> str:
    size = text.seek(0, os.SEEK_END)
    text.seek(max(0, size - END_BYTES))
    return text.read().decode(errors="replace")


def _run(
    name: str, url: str, *arguments: str, given: IO[bytes] | None = None, programs: Path | None = None
) -> subprocess.CompletedProcess[str]:
    address, password = rules.without_password(url)
    secret = {"PGPASSWORD": password} if password else {}
    return subprocess.run(
        [_program(name, programs), f"--dbname={address}", *arguments],
        env={**os.environ, "LC_ALL": "C", **secret},
        stdin=given or subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def _program(name: str, programs: Path | None) -> str:
    if programs:
        return str(programs / name)
    try:
        return str(embedded.programs(embedded.NEWEST) / name)
    except embedded.EmbeddedError:
        if found := shutil.which(name):
            return found
    raise BackupError(f"{name} is missing: install the client programs of Postgres, or run this where `make up` ran")
