import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Scope

from tollgate.runtime.network import client_ip
from tollgate.runtime.settings import TrustedProxy

PEER = "192.0.2.1"
CALLER = "203.0.113.7"
FORGED = "198.51.100.66"
PRESETS: tuple[TrustedProxy, ...] = ("none", "vercel", "railway", "heroku", "lambda", "alb")


def request(*headers: tuple[str, str], client: tuple[str, int] | None = (PEER, 50000)) -> Scope:
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return {"type": "http", "headers": raw, "client": client}


FORGED_EVERYWHERE = [
    ("x-forwarded-for", FORGED),
    ("x-real-ip", FORGED),
    ("forwarded", f"for={FORGED}"),
    ("x-client-ip", FORGED),
    ("cf-connecting-ip", FORGED),
    ("true-client-ip", FORGED),
    ("x-vercel-forwarded-for", FORGED),
]


@pytest.mark.parametrize("proxy", ["none", "lambda"])
def test_without_a_proxy_that_writes_headers_no_header_is_believed(proxy: TrustedProxy) -> None:
    assert client_ip(request(*FORGED_EVERYWHERE), proxy) == PEER


@pytest.mark.parametrize("proxy", ["vercel", "railway"])
def test_a_host_that_overwrites_x_real_ip_is_believed_there_and_nowhere_else(proxy: TrustedProxy) -> None:
    forged = [header for header in FORGED_EVERYWHERE if header[0] != "x-real-ip"]
    assert client_ip(request(*forged, ("x-real-ip", CALLER)), proxy) == CALLER
    assert client_ip(request(*forged), proxy) is None


@pytest.mark.parametrize("proxy", ["heroku", "alb"])
@pytest.mark.parametrize(
    "claims",
    [
        [f"{FORGED}, {CALLER}"],
        [f"{FORGED},{CALLER}"],
        [f"{FORGED}, 10.0.0.1, not-an-address,  {CALLER} "],
        [FORGED, CALLER],
        [f"{FORGED}, {FORGED}", f"{FORGED}, {CALLER}"],
        [CALLER],
    ],
)
def test_of_a_list_only_what_the_nearest_proxy_added_is_believed(proxy: TrustedProxy, claims: list[str]) -> None:
    forged = [header for header in FORGED_EVERYWHERE if header[0] != "x-forwarded-for"]
    assert client_ip(request(*forged, *(("x-forwarded-for", claim) for claim in claims)), proxy) == CALLER


def test_heroku_without_its_header_names_nobody() -> None:
    assert client_ip(request(("x-real-ip", FORGED)), "heroku") is None


def test_a_load_balancer_before_a_lambda_gives_the_list_as_the_peer() -> None:
    assert client_ip(request(client=(f"{FORGED}, {CALLER}", 0)), "alb") == CALLER


@pytest.mark.parametrize(
    ("claimed", "told"),
    [
        ("::ffff:203.0.113.7", CALLER),
        ("::FFFF:cb00:7107", CALLER),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:203.0.113.7%eth0", CALLER),
        (f" {CALLER}\t", CALLER),
    ],
)
def test_one_address_is_told_in_one_form(claimed: str, told: str) -> None:
    assert client_ip(request(client=(claimed, 1)), "none") == told
    assert client_ip(request(("x-real-ip", claimed)), "vercel") == told
    assert client_ip(request(("x-forwarded-for", f"{FORGED}, {claimed}")), "heroku") == told


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "unknown",
        "localhost",
        "203.0.113",
        "203.0.113.256",
        "203.0.113.7:80",
        "[2001:db8::1]",
        "010.0.0.1",
        "%",
        "\xb2",
    ],
)
def test_garbage_names_nobody(garbage: str) -> None:
    assert client_ip(request(client=(garbage, 1)), "none") is None
    assert client_ip(request(("x-real-ip", garbage)), "railway") is None
    assert client_ip(request(("x-forwarded-for", f"{CALLER}, {garbage}")), "heroku") is None


@pytest.mark.parametrize("proxy", PRESETS)
def test_a_request_without_a_peer_names_nobody(proxy: TrustedProxy) -> None:
    assert client_ip(request(client=None), proxy) is None


LATIN = st.text(st.characters(codec="latin-1"))


@given(
    proxy=st.sampled_from(PRESETS),
    headers=st.lists(st.tuples(st.sampled_from(["x-forwarded-for", "x-real-ip", "forwarded"]), LATIN)),
    client=st.none() | st.tuples(st.text(), st.integers(0, 65535)),
)
def test_no_header_text_at_all_breaks_it(
    proxy: TrustedProxy, headers: list[tuple[str, str]], client: tuple[str, int] | None
) -> None:
    told = client_ip(request(*headers, client=client), proxy)
    assert told is None or client_ip(request(client=(told, 1)), "none") == told


@given(claims=st.lists(LATIN), proxy=st.sampled_from(PRESETS))
def test_no_claim_of_a_caller_moves_what_the_proxy_says(claims: list[str], proxy: TrustedProxy) -> None:
    claimed = [("x-forwarded-for", claim) for claim in claims]
    by_proxy = {"vercel": "x-real-ip", "railway": "x-real-ip", "heroku": "x-forwarded-for", "alb": "x-forwarded-for"}
    headers = [*claimed, (by_proxy[proxy], CALLER)] if proxy in by_proxy else claimed
    assert client_ip(request(*headers), proxy) == (CALLER if proxy in by_proxy else PEER)
