"""`make up` at a terminal: what Ctrl-C ends, and what is said when it cannot start."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
MAKE_UP = ("make", "--old-file=.venv/.run", "--old-file=.venv/bin/uv", "up")
"""Without installing anything."""
CTRL_C = b"\x03"
STOPPED = "tollgate: stopped, with everything that it had started"
LEADER = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
"""Makes its standard input the terminal of its session, as a shell does, so that Ctrl-C is the kernel's signal."""
WAIT_SECONDS = 60


def parents() -> dict[int, int]:
    """Of every living process."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True)
    rows = (line.split() for line in listed.stdout.splitlines())
    return {int(pid): int(parent) for pid, parent, state in rows if not state.startswith("Z")}


def is_in_another_session(pid: int, leader: int) -> bool:
    try:
        return os.getsid(pid) != leader
    except ProcessLookupError:
        return False


def wait_until(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not happened():
        assert time.monotonic() < deadline, f"waited {WAIT_SECONDS} s in vain until {what}"
        time.sleep(0.01)


@dataclass
class Terminal:
    """One that `make up` runs in, and all that it started."""

    process: subprocess.Popen[bytes]
    keyboard: int
    data: Path
    screen: bytearray = field(default_factory=bytearray)

    def press(self, keys: bytes) -> None:
        os.write(self.keyboard, keys)

    @property
    def shown(self) -> str:
        return self.screen.decode(errors="replace")

    def started(self) -> set[int]:
        living, found = parents(), {self.process.pid}
        while more := {pid for pid, parent in living.items() if parent in found} - found:
            found |= more
        return found

    def watch(self) -> None:
        with contextlib.suppress(OSError):  # EIO: every process that had it open has ended
            while piece := os.read(self.keyboard, 4096):
                self.screen += piece

    def completes(self) -> None:
        """Asks for a completion, which starts the sandbox."""
        wait_until(lambda: "A completion" in self.shown, "it is up")
        address, key = re.findall(r"is at (http\S+)", self.shown)[0], re.findall(r"tg_live_\w+", self.shown)[0]
        answer = httpx.post(
            f"{address}/v1/chat/completions",
            headers={"authorization": f"Bearer {key}"},
            json={"model": "sandbox/echo", "messages": [{"role": "user", "content": "Hello"}]},
            trust_env=False,
            timeout=WAIT_SECONDS,
        )
        assert answer.status_code == 200, answer.text


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    keyboard, line = os.openpty()
    data = tmp_path / "data"
    process = subprocess.Popen(
        [sys.executable, "-c", LEADER, *MAKE_UP],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PORT": "0", "TOLLGATE_DATA_DIR": str(data)},
        stdin=line,
        stdout=line,
        stderr=line,
        start_new_session=True,
    )
    os.close(line)
    made = Terminal(process, keyboard, data)
    watching = threading.Thread(target=made.watch)
    watching.start()
    yield made
    for pid in made.started():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
    process.wait()
    watching.join()
    os.close(keyboard)


def appears(pattern: str) -> Callable[[Terminal], None]:
    return lambda terminal: wait_until(lambda: any(terminal.data.glob(pattern)), f"{pattern} is there")


MOMENTS = {
    "while it serves": Terminal.completes,
    "while the database is made": appears("postgres.new*/PG_VERSION"),
    "while Postgres starts": appears("postgres/postmaster.pid"),
}


@pytest.mark.parametrize(
    ("moment", "presses"),
    [
        ("while it serves", "once"),
        ("while it serves", "again and again"),
        ("while the database is made", "once"),
        ("while Postgres starts", "again and again"),
    ],
)
def test_ctrl_c_ends_all_that_was_started_and_says_so(terminal: Terminal, moment: str, presses: str) -> None:
    MOMENTS[moment](terminal)
    started = terminal.started()
    apart = {pid for pid in started if is_in_another_session(pid, terminal.process.pid)}
    terminal.press(CTRL_C)
    while presses == "again and again" and STOPPED not in terminal.shown and started & parents().keys():
        terminal.press(CTRL_C)
    wait_until(lambda: STOPPED in terminal.shown, "it says so")
    assert not apart & parents().keys(), "what does not hear Ctrl-C has ended before"
    wait_until(lambda: not started & parents().keys(), "all have ended")
    assert "Traceback" not in terminal.shown
    assert not (terminal.data / "postgres" / "postmaster.pid").exists()


@pytest.fixture
def checkout() -> Iterator[Path]:
    """What the Makefile needs of this one, in a folder that any user may enter."""
    place = Path(tempfile.mkdtemp(prefix="tollgate's é "))
    place.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / name, place)
    yield place
    place.chmod(0o755)
    shutil.rmtree(place)


def make(folder: Path, *words: str, user: Sequence[str] = (), **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", **settings}
    return subprocess.run([*user, "make", *words], cwd=folder, env=environment, capture_output=True, text=True)


def first_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2
    return done.stderr.splitlines()[0]


def test_a_read_only_checkout_says_what_to_set(checkout: Path) -> None:
    checkout.chmod(0o555)
    ordinary = ["setpriv", "--reuid=nobody", "--clear-groups", "--"] if os.geteuid() == 0 else []
    assert "set TOLLGATE_DATA_DIR to a folder" in first_line(make(checkout, "up", user=ordinary))
    told = make(checkout, "--dry-run", "up", user=ordinary, TOLLGATE_DATA_DIR="/a folder/of data").stdout
    assert '"/a folder/of data/venv/bin/python" -m tollgate demo' in told
    tests = ("--old-file=/data/venv/bin/uv", "/data/venv/.dev")
    assert "copy it elsewhere" in first_line(make(checkout, *tests, user=ordinary, TOLLGATE_DATA_DIR="/data"))


def test_without_a_python_one_is_asked_for(checkout: Path) -> None:
    assert "no Python 3.11 or newer was found" in first_line(make(checkout, "up", "PYTHON="))


def test_an_installation_that_fails_shows_what_was_printed(checkout: Path) -> None:
    done = make(checkout, "up", f"PYTHON={sys.executable}", PIP_NO_INDEX="1", HOME=str(checkout))
    assert done.stdout.count("\n") == 1, "that it makes an environment"
    assert "No matching distribution found for uv==" in done.stderr
