"""The commands of README.md and docs/ run as printed, in the order of the page, in one POSIX shell for each page."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from servers.process import free_port, status

ROOT = Path(__file__).parents[2]
MAKE = "make --old-file=.venv/.run --old-file=.venv/bin/uv"
PRINTED_ADDRESS = "http://127.0.0.1:8000"
PRINTED_PORT = "9000"
WAIT_SECONDS = 120
SERVER, REFUSED, UNTESTED = 'title="First terminal"', 'title="Refused"', 'title="Untested: '
FENCED = re.compile(r"^ *```(\w*) ?([^\n]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
PREAMBLE = """
set -eu
make() { command %s "$@"; }
curl() { command curl --silent --show-error $FAIL "$@"; }
"""


class Block(NamedTuple):
    language: str
    mark: str
    """What the info string says beside the language: nothing, or a title, which the site shows."""
    text: str

    @property
    def runs(self) -> bool:
        return self.language == "sh" and self.mark in {"", REFUSED}


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in FENCED.findall(page.read_text(encoding="utf-8"))]


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUNNABLE = [page for page in PAGES if any(block.runs for block in blocks(page))]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def in_group(process_group: int) -> bool:
    try:
        os.killpg(process_group, 0)
    except ProcessLookupError:
        return False
    return True


def settings_of(page: Path) -> dict[str, str]:
    """What the page sets when it starts the server: `NAME=value make up`."""
    starts = [block.text.split()[:-2] for block in blocks(page) if block.mark == SERVER]
    return dict(setting.split("=", 1) for setting in chain.from_iterable(starts))


@contextlib.contextmanager
def up(data: Path, settings: Mapping[str, str], screen: Path) -> Iterator[str]:
    """What `make up` serves with this data. Its terminal is a file."""
    port = free_port()
    given = os.environ | settings | {"PORT": str(port), "TOLLGATE_DATA_DIR": str(data)}
    with screen.open("wb") as shown:
        deadline = time.monotonic() + WAIT_SECONDS
        made = subprocess.Popen([*MAKE.split(), "up"], cwd=ROOT, env=given, stdout=shown, stderr=shown, process_group=0)
        try:
            while status(port, "/healthz") != 200:
                assert made.poll() is None, screen.read_text()
                assert time.monotonic() < deadline, "`make up` did not serve in time"
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(made.pid, signal.SIGINT)  # as Ctrl-C: make alone would leave the server behind
            made.wait(WAIT_SECONDS)
            deadline = time.monotonic() + WAIT_SECONDS  # from here: the page may have taken longer
            while in_group(made.pid):
                assert time.monotonic() < deadline, "the server did not end"
                time.sleep(0.05)


@pytest.fixture(scope="session")
def used_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a first `make up` leaves, to be copied for each page: to make it takes seconds."""
    folder = tmp_path_factory.mktemp("up")
    with up(folder / "data", {}, folder / "screen"):
        return folder / "data"


@pytest.fixture
def address(page: Path, used_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    data = tmp_path / "data"
    subprocess.run(["cp", "-a", used_data, data], check=True)
    monkeypatch.setenv("TOLLGATE_DATA_DIR", str(data))
    with up(data, settings_of(page), tmp_path / "screen") as made:
        yield made


def as_run_here(text: str, address: str) -> str:
    here = {PRINTED_ADDRESS: address, PRINTED_PORT: str(free_port()), ".tollgate/": "$TOLLGATE_DATA_DIR/"}
    for printed, ours in here.items():
        text = text.replace(printed, ours)
    return text


def script(page: Path, address: str, outputs: Path) -> str:
    """All blocks of a page in one shell, so that a variable that one block sets is there in the next."""
    lines = [PREAMBLE % MAKE]
    for number, block in enumerate(blocks(page)):
        if block.runs:
            fail = "" if block.mark == REFUSED else "--fail-with-body"
            lines.append(f"FAIL={fail}\n{{\n{block.text}\n}} > '{outputs}/{number}'\n")
    return as_run_here("\n".join(lines), address)


def in_a_shell(commands: str) -> tuple[int, str]:
    """Its exit status and standard error. What it left running is ended with it."""
    shell = subprocess.Popen(["sh", "-c", commands], cwd=ROOT, stderr=subprocess.PIPE, text=True, process_group=0)
    try:
        _, complaints = shell.communicate(timeout=WAIT_SECONDS)
        return shell.returncode, complaints
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)


def object_in(printed: str) -> Any:
    return json.loads(printed[printed.index("{") : printed.rindex("}") + 1])


def names_in(value: Any, path: str = "") -> set[str]:
    """The path of each field, so that a field in another place is another field."""
    if isinstance(value, dict):
        return {f"{path}.{name}" for name in value} | {
            found for name, inner in value.items() for found in names_in(inner, f"{path}.{name}")
        }
    if isinstance(value, list):
        return {found for inner in value for found in names_in(inner, f"{path}[]")}
    return set()


@pytest.mark.parametrize("page", [pytest.param(page, marks=pytest.mark.slow, id=name(page)) for page in RUNNABLE])
def test_the_commands_of_a_page_run_in_order_and_print_what_it_shows(page: Path, address: str, tmp_path: Path) -> None:
    status, complaints = in_a_shell(script(page, address, tmp_path))
    said = "\n".join(file.read_text() for file in sorted(tmp_path.glob("[0-9]*")))
    assert status == 0, f"{name(page)}: {complaints}\n{said}"
    found = blocks(page)
    for number, (block, shown) in enumerate(pairwise(found)):
        if block.runs and shown.language == "json":
            printed = (tmp_path / str(number)).read_text()
            assert names_in(object_in(shown.text)) <= names_in(object_in(printed)), printed


def test_refused_commands_print_an_error() -> None:
    for page in PAGES:
        found = blocks(page)
        for block, shown in pairwise(found):
            if block.mark == REFUSED:
                assert shown.language == "json", name(page)
                assert {".error", ".error.code", ".error.message"} <= names_in(object_in(shown.text)), name(page)


def test_every_sh_block_runs_or_says_why_not() -> None:
    for page in PAGES:
        for block in blocks(page):
            if block.language == "sh":
                stands = block.runs or block.mark == SERVER or re.fullmatch(UNTESTED + r'.{8,}"', block.mark)
                assert stands, f"{name(page)}: ```sh {block.mark}"
                assert block.mark != SERVER or re.fullmatch(r"(\w+=\S+ )*make up\n", block.text), name(page)


def test_the_blocks_that_do_not_run_are_these() -> None:
    """A new one must be added here, so that nobody leaves a command untested without a reason."""
    counted = {name(page): sum(block.mark.startswith(UNTESTED) for block in blocks(page)) for page in PAGES}
    assert {page: count for page, count in counted.items() if count} == UNTESTED_BLOCKS


def test_the_pages_can_be_pasted_into_bash_and_zsh() -> None:
    """In zsh at a terminal, `#` begins no comment, and an unquoted `?` or `[` is a pattern."""
    for page in RUNNABLE:
        for block in blocks(page):
            if block.runs:
                outside = re.sub(r"'[^']*'|\"[^\"]*\"", "", block.text)
                assert not re.search(r"\s#|[?\[]", outside), f"{name(page)}: {block.text}"


def test_pages_share_the_names_of_their_variables() -> None:
    others = re.compile(r"\$\{?(URL|TOLLGATE|HOST|API_KEY|TOKEN|ADMIN)\b")
    for page in PAGES:
        for block in blocks(page):
            assert block.language != "sh" or not others.search(block.text), f"{name(page)}: {block.text}"


UNTESTED_BLOCKS = {
    "docs/how-to/agent.md": 3,
    "docs/how-to/alerts.md": 3,
    "docs/how-to/bring-your-own-key.md": 3,
    "docs/how-to/deploy-digitalocean.md": 4,
    "docs/how-to/deploy-docker.md": 3,
    "docs/how-to/deploy-heroku.md": 1,
    "docs/how-to/deploy-lambda.md": 5,
    "docs/how-to/deploy-railway.md": 3,
    "docs/how-to/deploy-server.md": 5,
    "docs/how-to/deploy-supabase.md": 7,
    "docs/how-to/deploy-vercel.md": 6,
    "docs/how-to/monitor-with-prometheus.md": 1,
    "docs/how-to/operate.md": 3,
    "docs/how-to/images-speech-rerank.md": 1,
    "docs/how-to/hosts.md": 2,
    "docs/how-to/own-servers.md": 3,
    "docs/how-to/price-extras.md": 1,
    "docs/how-to/read-logs.md": 7,
    "docs/how-to/recover.md": 4,
    "docs/how-to/run-it-here.md": 1,
    "docs/how-to/trace-with-opentelemetry.md": 2,
    "docs/how-to/vendors.md": 1,
    "docs/how-to/run-on-postgres.md": 2,
    "docs/tutorial/models-on-your-machine.md": 3,
}
