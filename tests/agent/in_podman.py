"""An engine as a container, from its start to its end: `python -m agent.in_podman` in tests/, where podman and runc
are. It is made with a model in two files, answers over its socket, is adopted, and stops; a container without a record
is removed."""

import asyncio
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from agent import host
from agent.inside import Inside
from engines import tiny_model
from tollgate.agent.containers import DIRECTORY_LABEL, Containers
from tollgate.agent.supervisor import SWEEP_SECONDS

IMAGE = "localhost/tollgate-llama:test"
CONFIGURATION = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
env = ["LD_LIBRARY_PATH=/app", "PATH=/app:/usr/bin:/bin"]
[engine]
runtime = "runc"
"""


def make_image(folder: Path) -> None:
    """llama-server with the libraries that it needs, and nothing else."""
    (folder / "containers.conf").write_text(CONFIGURATION)
    os.environ["CONTAINERS_CONF"] = str(folder / "containers.conf")
    binaries = host.llama_server()
    archive = folder / "image.tar"
    with tarfile.open(archive, "w", dereference=True) as made:
        for file in binaries.iterdir():
            made.add(file, f"app/{file.name}")
        for library in _libraries(binaries):
            made.add(library, library.lstrip("/"))
    subprocess.run(["podman", "import", "--quiet", archive, IMAGE], check=True)


def _libraries(binaries: Path) -> set[str]:
    """Those of the system, by their whole paths."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(binaries)}
    programs = [binaries / "llama-server", *binaries.glob("*.so")]
    told = subprocess.run(["ldd", *programs], env=environment, capture_output=True, text=True, check=True).stdout
    words = {word for line in told.splitlines() for word in line.split()}
    return {word for word in words if word.startswith("/") and not word.endswith(":")} - {
        word for word in words if word.startswith(str(binaries))
    }


def contained(directory: Path, models: Path) -> Inside:
    made = Inside(directory, models)
    made.setup.containers = Containers(["podman"])
    made.setup.capabilities = lambda: {"allowed_images": [IMAGE], "container_runtime": "podman"}
    return made


async def prove(folder: Path) -> None:
    models = folder / "models"
    models.mkdir()
    spec = host.spec(tiny_model.write_parts(models), container_image=IMAGE)
    first = contained(folder / "a", models)
    first.want("dep_1", spec)
    running = await first.becomes("dep_1", "running")
    assert running.run
    assert (await running.run.client.probe(running.run.probe)).is_success
    await first.supervisor.leave()

    second = contained(folder / "a", models)
    second.supervisor.restore()
    second.wanted, second.version = first.wanted, first.version
    adopted = await second.becomes("dep_1", "running")
    assert adopted.run
    assert adopted.run.engine.record == running.run.engine.record
    await adopted.run.engine.refresh_log()
    assert adopted.last_lines(3)
    label = f"{DIRECTORY_LABEL}={folder / 'a'}"
    await Containers(["podman"]).call(
        "run", "--detach", "--label", label, "--entrypoint", "/app/llama-server", IMAGE, "--help"
    )
    second.clock.forward(SWEEP_SECONDS + 1)
    await second.supervisor.round()
    assert await Containers(["podman"]).names(str(folder / "a")) == [adopted.run.engine.record["name"]]
    second.stop("dep_1")
    await second.becomes("dep_1", "stopped")
    assert await Containers(["podman"]).names(str(folder / "a")) == []
    await second.supervisor.leave()


if __name__ == "__main__":
    if not shutil.which("podman"):
        sys.exit("podman is not here")
    with tempfile.TemporaryDirectory(prefix="tg-") as made:
        make_image(Path(made))
        asyncio.run(prove(Path(made)))
    os.write(1, b"made, answered, adopted, swept and stopped in podman\n")
