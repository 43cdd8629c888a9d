"""How amounts are written on the pages, from integer nanos."""

import json
import subprocess
from pathlib import Path

import pytest

CONSOLE = Path(__file__).parents[2] / "console"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("money") / "money.mjs"
    command = [
        "node_modules/.bin/esbuild",
        "src/parts/money.ts",
        "--format=esm",
        f"--outfile={made}",
        "--log-level=error",
    ]
    subprocess.run(command, cwd=CONSOLE, check=True)
    return made


def written(module: Path, expression: str) -> object:
    script = f"const m = await import({json.dumps(module.as_uri())}); console.log(JSON.stringify({expression}))"
    made = subprocess.run(["node", "--input-type=module", "-e", script], check=True, capture_output=True, text=True)
    return json.loads(made.stdout)


SHOWN = {
    "0": "0.00",
    "1": "<0.000001",
    "-1": ">−0.000001",
    "999": "<0.000001",
    "1000": "0.000001",
    "42000": "0.000042",
    "1234567": "0.00123",
    "123456789": "0.123",
    "999999999": "1.00",
    "1000000000": "1.00",
    "4795000000": "4.80",
    "-1999999999": "−2.00",
    "1043834000000": "1,043.83",
    "1000000000000001": "1,000,000.00",
}


def test_amounts_are_rounded_for_reading(module: Path) -> None:
    assert written(module, f"{json.dumps([*SHOWN])}.map(n => m.shownCredits(BigInt(n)))") == [*SHOWN.values()]


def test_amounts_are_exact_where_they_are_copied(module: Path) -> None:
    exact = {"0": "0.00", "1": "0.000000001", "-1": "−0.000000001", "1000000000000001": "1,000,000.000000001"}
    assert written(module, f"{json.dumps([*exact])}.map(n => m.exactCredits(BigInt(n)))") == [*exact.values()]


def test_prices_are_those_of_a_million_tokens(module: Path) -> None:
    prices = {"0.00000025": "0.25", "0": "0.00", "0.0000000375": "0.0375", "0.0015": "1,500.00", "-1": None, "x": None}
    assert written(module, f"{json.dumps([*prices])}.map(m.perMillion)") == [*prices.values()]
