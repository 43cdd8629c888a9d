"""What Vercel makes of this repository, by its own command line, without an account."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from servers.postgres import PACKAGES

ROOT = Path(__file__).parents[2]
PROJECT = {"projectId": "prj_of_the_tests", "orgId": "team_of_the_tests", "settings": {}}
BUILD_ENVIRONMENT = {"VERCEL_PYTHON_COMPILEALL": "1"}
"""As `vercel pull` fetches it. `vercel deploy` takes it from vercel.json; `vercel build` does not look there."""


@dataclass(frozen=True)
class Function:
    """One function of a build: what it is told, and where each of its files lies."""

    name: str
    folder: Path
    project: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / ".vc-config.json").read_text()))

    @cached_property
    def files(self) -> dict[str, Path]:
        """By their paths in the function."""
        elsewhere = {path: self.project / source for path, source in self.config["filePathMap"].items()}
        beside = {str(path.relative_to(self.folder)): path for path in self.folder.rglob("*") if path.is_file()}
        del beside[".vc-config.json"]
        return elsewhere | beside

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.files.values())

    @property
    def python(self) -> Path:
        """The one that it was built with, without the packages that were installed for the build."""
        return (self.project / ".vercel" / "python" / ".venv" / "bin" / "python").resolve()

    def laid_out(self, folder: Path) -> Path:
        """As the function finds its files when it starts."""
        for path, source in self.files.items():
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, place)
        return folder


@dataclass(frozen=True)
class Output:
    project: Path
    printed: str

    @property
    def folder(self) -> Path:
        return self.project / ".vercel" / "output"

    @property
    def config(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "config.json").read_text()))

    @property
    def published(self) -> list[Path]:
        """What anyone may fetch, past the function."""
        return [path for path in (self.folder / "static").rglob("*") if path.is_file()]

    @property
    def functions(self) -> list[Function]:
        return [
            Function(config.parent.name, config.parent, self.project)
            for config in (self.folder / "functions").rglob(".vc-config.json")
        ]


def uploaded(folder: Path) -> set[str]:
    """What the command line uploads of that folder: it asks .vercelignore, and does not ask .gitignore."""
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    kept = _listed(folder, "--others", f"--exclude-from={ROOT / '.vercelignore'}")
    shutil.rmtree(folder / ".git")
    return kept


def copied(folder: Path) -> Path:
    """The repository as it is uploaded, with the changes that are not committed yet."""
    ours = {name for name in _listed(ROOT, "--cached", "--others", "--exclude-standard") if (ROOT / name).is_file()}
    for name in ours:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in ours - uploaded(folder):
        (folder / name).unlink()
    return folder


def built(project: Path) -> Output:
    """Needs Node, uv and the Python that the project asks for on the path, and what of PyPI uv does not have here."""
    _settle(project / ".vercel")
    cli = ["node", PACKAGES / "vercel" / "dist" / "vc.js", "--global-config", project / ".cli"]
    done = subprocess.run(
        [*cli, "build", "--prod", "--yes"],
        cwd=project,
        env=os.environ | {"VERCEL_TELEMETRY_DISABLED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return Output(project, done.stdout)


def _settle(folder: Path) -> None:
    """What `vercel pull` leaves behind, and uv's cache where Vercel keeps one between builds."""
    cache = folder / "python" / "cache"
    cache.mkdir(parents=True)
    told = subprocess.run(["uv", "cache", "dir"], check=True, capture_output=True, text=True)
    (cache / "uv").symlink_to(told.stdout.strip())
    (folder / "project.json").write_text(json.dumps(PROJECT))
    (folder / ".env.production.local").write_text("".join(f"{k}={v}\n" for k, v in BUILD_ENVIRONMENT.items()))


def _listed(folder: Path, *which: str) -> set[str]:
    listed = subprocess.run(["git", "ls-files", "-z", *which], cwd=folder, check=True, capture_output=True, text=True)
    return {name for name in listed.stdout.split("\0") if name}
