"""What a cold start costs on Vercel: from the start of the process to its first paid answer.

    python bench/cold_start.py [--rounds 10] [--profile]

Builds Tollgate and two controls as Vercel does, and starts each inside Vercel's own Python runtime, in turn: an empty
FastAPI app, and one that makes one call to Supabase with the same client. Postgres, PostgREST and the sandbox upstream
run here. Prints the size of each function, the medians of what a start took and of the CPU time in it, and where
the time of ours went. `--profile` prints what our imports cost instead. Needs what the tests need (`make test`).
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from gateway import CHAT, Upstream
from hosts.program import customer, settings_of
from hosts.vercel_build import Function, built, copied
from hosts.vercel_runtime import Instance, instance
from people import Person
from sandbox.serving import serving
from servers.postgres import cluster
from servers.postgrest import postgrest, token
from servers.relay import relay
from tollgate.database import migrations
from tollgate.sandbox.app import create_sandbox
from tollgate.sandbox.state import Habits

BODY = b'{"model": "sandbox/echo", "messages": [{"role": "user", "content": "Hello"}]}'
TICKS = os.sysconf("SC_CLK_TCK")

CONTROL = {
    ".python-version": "3.13\n",
    "vercel.json": '{"framework": "fastapi"}',
    "pyproject.toml": """
        [project]
        name = "control"
        version = "0"
        requires-python = ">=3.11"
        dependencies = ["fastapi>=0.165,<0.166", "postgrest>=2.34.1,<3"]
        """,
    "app.py": """
        import os

        from fastapi import FastAPI

        app = FastAPI()


        @app.get("/")
        async def nothing() -> dict[str, str]:
            return {}


        @app.get("/call")
        async def call() -> dict[str, object]:
            import httpx
            from postgrest import AsyncPostgrestClient

            key = os.environ["SUPABASE_SECRET_KEY"]
            async with httpx.AsyncClient() as http:
                client = AsyncPostgrestClient(
                    os.environ["SUPABASE_URL"] + "/rest/v1",
                    headers={"apikey": key, "authorization": f"Bearer {key}"},
                    http_client=http,
                )
                return {"said": (await client.rpc("tollgate_health", {}).execute()).data}
        """,
}


class Start(NamedTuple):
    """One cold start, in seconds."""

    ready: float
    answered: float
    cpu: float


class Subject(NamedTuple):
    name: str
    function: Function
    task_root: Path
    request: Callable[[str], urllib.request.Request]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tollgate-cold-") as made:
        folder = Path(made)
        folder.chmod(0o711)
        with surroundings(folder) as (environment, someone):
            subjects = built_subjects(folder, someone)
            if options.profile:
                profile(subjects[-1], environment)
            else:
                report(subjects, measured(subjects, environment, options.rounds))
    return 0


@contextlib.contextmanager
def surroundings(folder: Path) -> Iterator[tuple[dict[str, str], Person]]:
    """A Supabase of our own and a sandbox upstream; what tells a function of them, and someone who may call it."""
    habits = Habits(generation_delay_seconds=0.0)
    with cluster(folder / "postgres") as postgres, serving(sandbox := create_sandbox(habits)) as upstream:
        url = postgres.create_supabase_project("cold")
        asyncio.run(migrations.migrate(url))
        someone = asyncio.run(customer(url))
        with postgrest(url, folder / "postgrest") as port, relay(port, path_prefix=b"/rest/v1") as supabase:
            yield (
                settings_of(
                    Upstream(sandbox, upstream),
                    TOLLGATE_ENV="production",
                    SUPABASE_URL=f"http://127.0.0.1:{supabase.port}",
                    SUPABASE_SECRET_KEY=token("service_role"),
                ),
                someone,
            )


def built_subjects(folder: Path, someone: Person) -> list[Subject]:
    for place in ("control", "ours"):
        (folder / place).mkdir()
    for name, text in CONTROL.items():
        (folder / "control" / name).write_text(textwrap.dedent(text).lstrip())
    (control,) = built(folder / "control").functions
    (ours,) = built(copied(folder / "ours")).functions
    control_root, our_root = control.laid_out(folder / "task-control"), ours.laid_out(folder / "task-ours")
    paying = {"authorization": f"Bearer {someone.secret}", "content-type": "application/json"}
    return [
        Subject("empty", control, control_root, lambda url: urllib.request.Request(url + "/")),
        Subject("one call", control, control_root, lambda url: urllib.request.Request(url + "/call")),
        Subject("Tollgate", ours, our_root, lambda url: urllib.request.Request(url + CHAT, BODY, paying)),
    ]


def measured(subjects: list[Subject], environment: Mapping[str, str], rounds: int) -> dict[str, list[Start]]:
    """In turn, so that what else the machine does hits all alike. The first round only warms the disk's cache."""
    starts: dict[str, list[Start]] = {subject.name: [] for subject in subjects}
    for _ in range(rounds + 1):
        for subject in subjects:
            starts[subject.name].append(cold(subject, environment))
    return {name: taken[1:] for name, taken in starts.items()}


def cold(subject: Subject, environment: Mapping[str, str]) -> Start:
    with instance(subject.function, subject.task_root, environment) as made:
        request = subject.request(made.address)
        ready = perf_counter()
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
        return Start(ready - made.started, perf_counter() - made.started, cpu_seconds(made))


def cpu_seconds(made: Instance) -> float:
    fields = Path(f"/proc/{made.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def report(subjects: list[Subject], starts: Mapping[str, list[Start]]) -> None:
    print("| | MB unpacked | ready, ms | first answer, ms | least | CPU, ms |\n|---|---|---|---|---|---|")
    for subject in subjects:
        ready, answered, cpu = (statistics.median(times) * 1000 for times in zip(*starts[subject.name], strict=True))
        least = min(start.answered for start in starts[subject.name]) * 1000
        size = subject.function.size / 2**20
        print(f"| {subject.name} | {size:.0f} | {ready:.0f} | {answered:.0f} | {least:.0f} | {cpu:.0f} |")
    for other in ("empty", "one call"):
        time, cpu = ratio(starts, other, "answered"), ratio(starts, other, "cpu")
        print(f"Tollgate / {other}: {time:.2f} of time, {cpu:.2f} of CPU")


def ratio(starts: Mapping[str, list[Start]], other: str, of: str) -> float:
    """The median of the ratios within each round."""
    rounds = zip(starts["Tollgate"], starts[other], strict=True)
    return statistics.median(getattr(ours, of) / getattr(theirs, of) for ours, theirs in rounds)


def profile(ours: Subject, environment: Mapping[str, str]) -> None:
    """What importing the entry costs, dearest first."""
    given = {"PATH": os.environ["PATH"], "VERCEL": "1", **ours.function.config["environment"], **environment}
    command = [ours.function.python, "-S", "-X", "importtime", "-c", "import api.index"]
    done = subprocess.run(command, cwd=ours.task_root, env=given, capture_output=True, text=True, check=True)
    lines = [line.removeprefix("import time:").split("|") for line in done.stderr.splitlines() if line.count("|") == 2]
    dearest = sorted((int(own), int(all_in), name) for own, all_in, name in lines[1:])[-60:]
    for own, all_in, name in reversed(dearest):
        print(f"{own / 1000:8.1f} {all_in / 1000:8.1f} {name.strip()}")


if __name__ == "__main__":
    sys.exit(main())
