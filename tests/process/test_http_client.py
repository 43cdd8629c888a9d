import subprocess
import sys

import httpx
import pytest
import respx

from tollgate import __version__
from tollgate.process.http_client import Http


async def test_there_is_one_client_for_all_who_ask() -> None:
    http = Http()
    assert http.client() is http.client()
    await http.close()


async def test_closing_closes_the_client_and_may_be_done_twice() -> None:
    http = Http()
    closed = http.client()
    await http.close()
    await http.close()
    assert closed.is_closed


async def test_what_was_never_opened_closes_too() -> None:
    await Http().close()


async def test_after_closing_it_opens_again() -> None:
    http = Http()
    first = http.client()
    await http.close()
    second = http.client()
    assert second is not first
    assert not second.is_closed
    await http.close()


@respx.mock
async def test_the_client_says_who_it_is() -> None:
    route = respx.get("https://upstream.example/").respond(200)
    http = Http()
    await http.client().get("https://upstream.example/")
    await http.close()
    assert route.calls.last.request.headers["user-agent"] == f"tollgate/{__version__}"


@respx.mock
async def test_a_redirect_is_not_followed_with_our_keys() -> None:
    respx.get("https://upstream.example/").respond(302, headers={"location": "https://elsewhere.example/"})
    elsewhere = respx.get("https://elsewhere.example/").respond(200)
    http = Http()
    answer = await http.client().get("https://upstream.example/", headers={"authorization": "Bearer secret"})
    await http.close()
    assert answer.status_code == 302
    assert not elsewhere.called


@pytest.mark.parametrize("phase", ["connect", "read", "write", "pool"])
async def test_no_phase_of_a_call_waits_for_ever(phase: str) -> None:
    http = Http()
    timeout = http.client().timeout
    await http.close()
    assert isinstance(timeout, httpx.Timeout)
    assert 0 < timeout.as_dict()[phase] <= 30


def test_a_cold_start_does_not_pay_for_the_client() -> None:
    script = (
        "import sys; from tollgate.app import create_app; from tollgate.settings import read; "
        "create_app(read({})); print([name for name in ('httpx', 'postgrest', 'dotenv') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert said.stdout == "[]\n"
