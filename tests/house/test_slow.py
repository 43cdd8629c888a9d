"""What `make test` leaves out is run by CI."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def commands(target: str) -> str:
    made = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True)
    return made.stdout


def test_ci_runs_the_tests_that_make_test_leaves_out() -> None:
    assert '-m "not slow"' in commands("test")
    everything = commands("test-all")
    assert "pytest" in everything
    assert "-m " not in everything
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "CI=true make lint test-all"
