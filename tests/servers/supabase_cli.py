"""Supabase's own command line, for pushing our migrations and for its advisors."""

import os
import subprocess
from pathlib import Path

from servers.postgres import PACKAGES

PROGRAM = PACKAGES / "@supabase" / "cli-linux-x64" / "bin" / "supabase"


def supabase(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs in a folder that holds a supabase/ of its own; its home is there too."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "DO_NOT_TRACK": "1",
        "SUPABASE_TELEMETRY_DISABLED": "1",
    }
    return subprocess.run(
        [str(PROGRAM), *words], cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
