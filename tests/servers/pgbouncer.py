"""PgBouncer in transaction mode, as Supavisor and many hosts put it before Postgres."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from servers.postgres import Cluster
from servers.process import free_port, give_away, listens, running, unprivileged

PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")


@contextlib.contextmanager
def pgbouncer(behind: Cluster, folder: Path, server_connections: int = 2) -> Iterator[Cluster]:
    assert PROGRAM is not None
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)
    give_away(folder)
    port = free_port()
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        "[databases]\n"
        f"* = host=127.0.0.1 port={behind.port} user=postgres\n"
        "[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = transaction\ndefault_pool_size = {server_connections}\n"
        "max_client_conn = 500\nserver_login_retry = 1\nquery_wait_timeout = 20\n"
        "ignore_startup_parameters = extra_float_digits\n"
    )
    with running(unprivileged(PROGRAM, settings), lambda: listens(port), folder / "log"):
        yield Cluster(port)
