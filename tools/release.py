"""Keeps this version as the one that was released last: tests/hosts/test_rolling.py runs it beside today's code.

Run it when a version is released, and commit what it leaves in tests/hosts/released: the wheel, code and migrations.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
RELEASED = ROOT / "tests" / "hosts" / "released"
UV = Path(sys.executable).parent / "uv"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([UV, "build", "--quiet", "--wheel", "--out-dir", folder], cwd=ROOT, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        shutil.rmtree(RELEASED, ignore_errors=True)
        RELEASED.mkdir()
        shutil.move(wheel, RELEASED)


if __name__ == "__main__":
    main()
