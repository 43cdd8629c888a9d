"""Writes the next step of supabase/migrations: `make migration NAME=refunds`.

It builds one database from the migrations and one from supabase/schemas, and compares their dumps. The step holds the
functions that were added or changed, drops those that are gone, and records its version. Changes of tables, types,
indexes and triggers are listed, and are to be written into the step by hand. `make migration NAME=baseline` writes the
schemas as they are, and is refused once there are steps.
"""

import asyncio
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

from servers.postgres import binaries, cluster
from tollgate.database import migrations

ROOT = Path(__file__).parents[1]
SUPABASE = ROOT / "supabase"
NEEDED = ROOT / "src" / "tollgate" / "database" / "schema_version.py"
ENTRY = re.compile(
    r"^--\n-- Name: (?P<name>.+); Type: (?P<type>.+); Schema: (?P<schema>.+); Owner: .*\n--\n", re.MULTILINE
)
FUNCTION = re.compile(
    r"^create function (?P<name>(?:tollgate|public)\.\w+)\(.*?^\$\$;\n"
    r"\ncomment on function .*?';\n"
    r"(?:\nselect tollgate\.expose\('.*?'\);\n)?",
    re.MULTILINE | re.DOTALL,
)
RESULT = re.compile(r"^CREATE FUNCTION .+? RETURNS (?P<result>.+)$", re.MULTILINE)
UNKNOWN = "TODO"
BASELINE_NAME = "baseline"

BASELINE = """\
-- Why:  the first release starts from one file.
-- What: all of supabase/schemas, in the order of supabase/config.toml.
-- Care: for a database without a schema `tollgate`.

set check_function_bodies = off;

{body}

insert into tollgate.schema_version (version) values ('{version}');
reset check_function_bodies;
"""
STEP = """\
-- Why:  {unknown}
-- What: {what}.
-- Care: {unknown}

set lock_timeout = '1s';
set check_function_bodies = off;

{body}


revoke execute on all functions in schema tollgate from public;
update tollgate.schema_version set version = '{version}';
reset check_function_bodies;
"""


@dataclass(frozen=True, order=True)
class Entry:
    """What pg_dump names: an object, its comment or its grants."""

    schema: str
    name: str
    type: str

    @property
    def function(self) -> str | None:
        """The signature of the function that it is, or belongs to."""
        if self.type == "FUNCTION":
            return f"{self.schema}.{self.name}"
        if self.type in ("COMMENT", "ACL") and self.name.startswith("FUNCTION "):
            return f"{self.schema}.{self.name.removeprefix('FUNCTION ')}"
        return None


Dump = dict[Entry, str]


def schema_files() -> list[Path]:
    """All files of supabase/schemas, in the order in which they are loaded."""
    patterns = tomllib.loads((SUPABASE / "config.toml").read_text())["db"]["migrations"]["schema_paths"]
    return list(dict.fromkeys(file for pattern in patterns for file in sorted(SUPABASE.glob(pattern))))


def definitions() -> list[tuple[str, str, Path]]:
    """Each function of the schemas: its name, its text with comment and grant, its file."""
    return [(found["name"], found[0], file) for file in schema_files() for found in FUNCTION.finditer(file.read_text())]


async def load_schemas(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("set local check_function_bodies = off")
            for file in schema_files():
                await connection.execute(file.read_text())
    finally:
        await connection.close()


def dumped(url: str) -> Dump:
    """All that is in the schemas tollgate and public, but for rows."""
    command = [binaries("18") / "pg_dump", "--schema-only", "--no-owner", "--schema=tollgate", "--schema=public", url]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    parts = ENTRY.split(text.partition("--\n-- PostgreSQL database dump complete")[0])[1:]
    named = zip(parts[0::4], parts[1::4], parts[2::4], parts[3::4], strict=True)
    return {Entry(schema, name, kind): sql.strip() for name, kind, schema, sql in named}


def differences(was: Dump, now: Dump) -> list[Entry]:
    return sorted(entry for entry in was.keys() | now.keys() if was.get(entry) != now.get(entry))


def baseline(version: str) -> str:
    files = [f"-- {file.relative_to(SUPABASE)}\n\n{file.read_text().strip()}" for file in schema_files()]
    return BASELINE.format(body="\n\n\n".join(files), version=version)


def step(was: Dump, now: Dump, version: str) -> str:
    """Drops and replaces functions. One whose result changed cannot be replaced, so it is dropped before."""
    changed = {entry.function for entry in differences(was, now) if entry.function}
    before, after = _results(was), _results(now)
    dropped = sorted(name for name in changed if name in before and before[name] != after.get(name))
    written = sorted({_name(name) for name in changed if name in after})
    gone = sorted({_name(name) for name in dropped if name not in after} - set(written))
    texts = {name: text for name, text, _ in definitions()}
    replaced = [texts[name].replace("create function", "create or replace function", 1).strip() for name in written]
    what = "; ".join(f"{verb} {', '.join(names)}" for verb, names in (("writes", written), ("drops", gone)) if names)
    body = "\n\n\n".join([*(f"drop function {name};" for name in dropped), *replaced])
    return STEP.format(unknown=UNKNOWN, what=what or UNKNOWN, body=body, version=version)


def next_version() -> str:
    last = max((int(migration.version) for migration in migrations.shipped()), default=0)
    return str(max(int(datetime.now(UTC).strftime("%Y%m%d%H%M%S")), last + 1))


def both_dumps() -> tuple[Dump, Dump]:
    """Of a database made by the migrations, and of one made by the schemas."""
    with tempfile.TemporaryDirectory(prefix="tollgate-migration-") as folder:
        Path(folder).chmod(0o711)
        with cluster(Path(folder) / "postgres") as server:
            migrated, loaded = map(server.create_supabase_project, ("migrated", "loaded"))
            asyncio.run(migrations.migrate(migrated))
            asyncio.run(load_schemas(loaded))
            return dumped(migrated), dumped(loaded)


def write(name: str, version: str, text: str) -> Path:
    """The step, and the version that the code needs from now on."""
    file = SUPABASE / "migrations" / f"{version}_{name}.sql"
    file.write_text(text)
    NEEDED.write_text(re.sub(r'^NEEDED = "\d{14}"', f'NEEDED = "{version}"', NEEDED.read_text(), flags=re.MULTILINE))
    return file


def main() -> None:
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        sys.exit("tollgate: name the migration in lower-case letters, digits and _: make migration NAME=refunds")
    if name == BASELINE_NAME:
        write_baseline()
    else:
        write_step(name)


def write_baseline() -> None:
    shipped = migrations.shipped()
    if [migration.name for migration in shipped] not in ([], [BASELINE_NAME]):
        sys.exit("tollgate: there are steps after the baseline; write another step: make migration NAME=refunds")
    version = shipped[0].version if shipped else next_version()
    sys.stdout.write(f"{write(BASELINE_NAME, version, baseline(version)).relative_to(ROOT)} was written.\n")


def write_step(name: str) -> None:
    was, now = both_dumps()
    found = differences(was, now)
    if not found:
        sys.exit("tollgate: the migrations already make what is in supabase/schemas; nothing was written")
    version = next_version()
    file = write(name, version, step(was, now, version)).relative_to(ROOT)
    sys.stdout.write(f"{file} was written. Say in its header why, and what to take care of.\n")
    if by_hand := [entry for entry in found if entry.function is None]:
        sys.stdout.write(f"These differ, and are to be changed by hand in {file}:\n")
        sys.stdout.writelines(f"  {entry.type.lower()} {entry.schema}.{entry.name}\n" for entry in by_hand)


def _results(dump: Dump) -> dict[str, str]:
    """What each function returns, by its signature."""
    made = {entry.function: RESULT.search(sql) for entry, sql in dump.items() if entry.type == "FUNCTION"}
    return {name: found["result"] for name, found in made.items() if name and found}


def _name(signature: str) -> str:
    return signature.partition("(")[0]


if __name__ == "__main__":
    main()
