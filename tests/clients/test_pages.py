"""The Python of the pages that tell how to call Tollgate, run as a reader would."""

import asyncio
import re
from functools import reduce
from pathlib import Path

import openai
import pytest

from clients.conftest import Customer
from gateway import Gateway

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
LEFT_OUT = {"send(…": 'send(model="sandbox/echo", messages=[{"role": "user", "content": "Hello"}]'}
"""What a block leaves to its reader."""
PRINTED = {
    "call-it.md": "Hello stop",
    "call-it-with-anthropic.md": "Hello end_turn",
    "images-speech-rerank.md": "",
    "transcribe.md": "The sandbox heard",
}


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the folder where the blocks run."""
    monkeypatch.chdir(tmp_path)
    Path("hello.wav").write_bytes(b"RIFF\xff\xff\xff\xffWAVEfmt " + bytes(32_000))


@pytest.mark.parametrize("page", PRINTED)
async def test_the_python_of_a_page_runs(
    page: str,
    gateway: Gateway,
    customer: Customer,
    recording: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    secret = (await customer()).secret
    given = {"https://tollgate.example": gateway.address, "tg_live_…": secret, **LEFT_OUT}
    known = {"client": openai.OpenAI(base_url=f"{gateway.address}/v1", api_key=secret)}
    for block in BLOCK.findall((HOW_TO / page).read_text()):
        code = reduce(lambda written, one: written.replace(*one), given.items(), block)
        await asyncio.to_thread(exec, code, known)
    assert PRINTED[page] in capsys.readouterr().out
