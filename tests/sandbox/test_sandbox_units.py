"""Images, speech, rerank and moderations of the sandbox."""

import base64
import struct
import zlib
from typing import Any

import httpx
import pytest

from sandbox.serving import a_sandbox, in_process
from tollgate.sandbox.app import Sandbox

BASE = "/api/v1"


@pytest.fixture
def sandbox() -> Sandbox:
    return a_sandbox()


async def asked(sandbox: Sandbox, path: str, status: int = 200, **body: Any) -> httpx.Response:
    async with in_process(sandbox) as http:
        answer = await http.post(f"{BASE}{path}", json=body)
    assert answer.status_code == status, answer.text
    return answer


async def test_pictures_differ_by_prompt_and_number_and_by_nothing_else(sandbox: Sandbox) -> None:
    body = {"model": "sandbox/painter", "prompt": "a cat", "n": 2}
    answer = (await asked(sandbox, "/images", **body)).json()
    one, other = [base64.b64decode(picture["b64_json"]) for picture in answer["data"]]
    assert one != other
    assert (await asked(sandbox, "/images", **body)).json()["data"] == answer["data"]
    assert one[:8] == b"\x89PNG\r\n\x1a\n"
    length = struct.unpack(">I", one[33:37])[0]
    assert len(zlib.decompress(one[41 : 41 + length])) == 16 * (1 + 3 * 16)
    assert answer["usage"]["cost"] == pytest.approx(0.080002)
    assert sandbox.ledger.owed_nanos == 2 * 80_002_000


async def test_a_document_with_more_words_of_the_query_comes_first(sandbox: Sandbox) -> None:
    documents = ["a tree", {"text": "Small BIRDS sing"}, "birds"]
    body = {"model": "sandbox/rank", "query": "small birds", "documents": documents, "top_n": 2}
    answer = (await asked(sandbox, "/rerank", **body)).json()
    assert [(one["index"], one["relevance_score"]) for one in answer["results"]] == [(1, 1), (2, 0.5)]
    assert (answer["usage"]["search_units"], sandbox.ledger.owed_nanos) == (1, 2_000_000)


async def test_texts_are_flagged_by_their_words(sandbox: Sandbox) -> None:
    answer = (await asked(sandbox, "/moderations", model="sandbox/guard", input=["Kill it!", "skill"])).json()
    bad, good = answer["results"]
    assert (bad["flagged"], bad["categories"]["violence"], good["flagged"]) == (True, True, False)
    assert "usage" not in answer


async def test_speech_is_as_long_as_its_text_and_its_header_says_what_it_is(sandbox: Sandbox) -> None:
    wav = await asked(sandbox, "/audio/speech", model="sandbox/voice", input="four", response_format="wav")
    assert (wav.headers["content-type"], wav.content[:4], wav.content[8:12]) == ("audio/wav", b"RIFF", b"WAVE")
    pcm = await asked(sandbox, "/audio/speech", model="sandbox/voice", input="four", response_format="pcm")
    assert pcm.content == wav.content[44:]
    assert sandbox.ledger.owed_nanos == 2 * 4 * 15_000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/images", {"model": "sandbox/echo", "prompt": "x"}),
        ("/images", {"model": "sandbox/painter", "prompt": "x", "n": 11}),
        ("/audio/speech", {"model": "sandbox/voice", "input": "x" * 4097}),
        ("/audio/speech", {"model": "sandbox/voice", "input": "x", "response_format": "tape"}),
        ("/rerank", {"model": "sandbox/rank", "query": "x", "documents": []}),
        ("/moderations", {"model": "sandbox/guard", "input": 7}),
        ("/chat/completions", {"model": "sandbox/voice", "messages": [{"role": "user", "content": "x"}]}),
    ],
)
async def test_what_makes_no_sense_is_refused_and_owed_nothing(
    sandbox: Sandbox, path: str, body: dict[str, Any]
) -> None:
    assert (await asked(sandbox, path, 400, **body)).json()["error"]["code"] == 400
    assert sandbox.ledger.owed_nanos == 0
