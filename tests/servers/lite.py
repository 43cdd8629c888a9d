"""Supabase's own small server for development: its key handling before a real Postgres."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from servers.postgres import PACKAGES
from servers.process import free_port, running, status

PROGRAM = PACKAGES / "@supabase" / "lite" / "dist" / "cli" / "index.js"
SECRET_KEY = "sb_secret_AAAAAAAAAAAAAAAAAAAAAA_BBBBBBBB"
PUBLISHABLE_KEY = "sb_publishable_AAAAAAAAAAAAAAAAAAAAAA_BBBBBBBB"


@contextlib.contextmanager
def lite(database_url: str, folder: Path) -> Iterator[str]:
    """Its address, as SUPABASE_URL would have it."""
    port = free_port()
    (folder / "supabase").mkdir(parents=True)
    (folder / "supabase" / "config.toml").write_text(
        f"[api]\nport = {port}\n"
        f'[db]\ndriver = "postgres"\nurl = "{database_url}"\n'
        '[auth]\nenabled = false\njwt_secret = "a-secret-of-the-tests-with-32-characters"\n'
        f'publishable_key = "{PUBLISHABLE_KEY}"\nsecret_key = "{SECRET_KEY}"\n'
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "DO_NOT_TRACK": "1", "LITE_TELEMETRY": "0"}
    # Its admin pages would answer calls without a key as service_role.
    command = ["node", str(PROGRAM), "start", "--no-admin"]
    with running(
        command, lambda: (status(port, "/rest/v1/") or 500) < 500, folder / "log", cwd=folder, env=environment
    ):
        yield f"http://127.0.0.1:{port}"
