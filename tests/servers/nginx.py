"""nginx with the configuration that we ship, as it stands before Tollgate in the stack and on a server of one's own."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from servers.process import free_port, listens, running

PROGRAM = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
SHIPPED = Path(__file__).parents[2] / "deploy" / "nginx.conf"
AROUND = """
daemon off;
{user}
worker_processes 1;
pid {folder}/pid;
error_log {folder}/errors;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  include {folder}/shipped;
}}
"""


@contextlib.contextmanager
def nginx(before: str, folder: Path, change: Callable[[Path], None] = lambda shipped: None) -> Iterator[str]:
    """Its address. Only what is Docker's in the file is replaced, the names and the port; then it is changed."""
    port = free_port()
    changes = {"http://api:8000": before, "listen 8080;": f"listen 127.0.0.1:{port};"}
    shipped = SHIPPED.read_text()
    for ours, here in changes.items():
        assert shipped.count(ours) == 1, ours
        shipped = shipped.replace(ours, here)
    (folder / "shipped").write_text(shipped)
    change(folder / "shipped")
    with listening(port, folder):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def listening(port: int, folder: Path) -> Iterator[None]:
    """With the `server` block in the folder's file `shipped`."""
    assert PROGRAM is not None
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(AROUND.format(folder=folder, user=user))
    command = [PROGRAM, "-c", str(folder / "nginx.conf"), "-e", str(folder / "errors")]
    with running(command, lambda: listens(port), folder / "log"):
        yield
