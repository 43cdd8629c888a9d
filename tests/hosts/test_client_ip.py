"""Whose address a request comes from, on each host, whatever the caller claims."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Scope

from tollgate.settings import SettingsError, TrustedProxy, read
from tollgate.web.client_address import client_ip

PEER = "192.0.2.1"
CALLER = "203.0.113.7"
FORGED = "198.51.100.66"
OVERWRITTEN: dict[TrustedProxy, str] = {
    "vercel": "x-real-ip", "railway": "x-real-ip", "digitalocean": "do-connecting-ip",
}  # fmt: skip
"""Where the host's edge puts one address of its own, whatever came in."""
APPENDED: tuple[TrustedProxy, ...] = ("heroku", "alb", "proxy")
"""Where it adds one to X-Forwarded-For."""
CONNECTED: tuple[TrustedProxy, ...] = ("none", "lambda")
"""Where the connection, or the host's event, says it."""
PRESETS: tuple[TrustedProxy, ...] = (*OVERWRITTEN, *APPENDED, *CONNECTED)
CLAIMS = (
    "x-forwarded-for", "x-real-ip", "forwarded", "x-client-ip", "cf-connecting-ip", "true-client-ip",
    "x-vercel-forwarded-for", "do-connecting-ip", "x-envoy-external-address", "x-amzn-request-context",
)  # fmt: skip


def request(*headers: tuple[str, str], client: tuple[str, int] | None = (PEER, 50000)) -> Scope:
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return {"type": "http", "headers": raw, "client": client}


def forged(*but: str) -> list[tuple[str, str]]:
    """Every header that some proxy somewhere writes, with an address of the caller's choosing."""
    return [(name, FORGED) for name in CLAIMS if name not in but]


def said(proxy: TrustedProxy, claimed: str) -> Scope:
    """A request as it arrives on a host that says this of its caller."""
    if proxy in OVERWRITTEN:
        return request((OVERWRITTEN[proxy], claimed))
    if proxy in APPENDED:
        return request(("x-forwarded-for", f"{FORGED}, {claimed}"))
    return request(client=(claimed, 1))


@pytest.mark.parametrize("proxy", CONNECTED)
def test_without_a_proxy_that_writes_headers_no_header_is_believed(proxy: TrustedProxy) -> None:
    assert client_ip(request(*forged()), proxy) == PEER


@pytest.mark.parametrize(("proxy", "own"), OVERWRITTEN.items())
def test_where_a_host_overwrites_a_header_that_one_is_believed_and_no_other(proxy: TrustedProxy, own: str) -> None:
    assert client_ip(request(*forged(own), (own, CALLER)), proxy) == CALLER
    assert client_ip(request(*forged(own)), proxy) is None


@pytest.mark.parametrize(("proxy", "own"), OVERWRITTEN.items())
def test_a_header_that_must_come_once_and_comes_twice_names_nobody(proxy: TrustedProxy, own: str) -> None:
    assert client_ip(request((own, FORGED), (own, CALLER)), proxy) is None
    assert client_ip(request((own, CALLER), (own, FORGED)), proxy) is None
    assert client_ip(request((own, f"{FORGED}, {CALLER}")), proxy) is None


@pytest.mark.parametrize("proxy", APPENDED)
@pytest.mark.parametrize(
    "claims",
    [
        [f"{FORGED}, {CALLER}"],
        [f"{FORGED},{CALLER}"],
        [f"{FORGED}, 10.0.0.1, not-an-address,  {CALLER} "],
        [FORGED, CALLER],
        [f"{FORGED}, {FORGED}", f"{FORGED}, {CALLER}"],
        ["", CALLER],
        [CALLER],
    ],
)
def test_of_a_list_only_what_the_nearest_proxy_added_is_believed(proxy: TrustedProxy, claims: list[str]) -> None:
    lists = [("x-forwarded-for", claim) for claim in claims]
    assert client_ip(request(*forged("x-forwarded-for"), *lists), proxy) == CALLER


@pytest.mark.parametrize("proxy", ["heroku", "proxy"])
def test_where_the_proxy_s_header_is_missing_nobody_is_named(proxy: TrustedProxy) -> None:
    assert client_ip(request(*forged("x-forwarded-for")), proxy) is None
    assert client_ip(request(("x-forwarded-for", f"{FORGED},")), proxy) is None


def test_a_load_balancer_before_a_lambda_gives_the_list_as_the_peer() -> None:
    assert client_ip(request(client=(f"{FORGED}, {CALLER}", 0)), "alb") == CALLER
    assert client_ip(request(client=(f"{FORGED}, {CALLER}", 0)), "lambda") is None


@pytest.mark.parametrize("proxy", PRESETS)
@pytest.mark.parametrize(
    ("claimed", "told"),
    [
        ("::ffff:203.0.113.7", CALLER),
        ("::FFFF:cb00:7107", CALLER),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:203.0.113.7%eth0", CALLER),
        (f" {CALLER}\t", CALLER),
        (f"{CALLER}:49152", CALLER),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:49152", "2001:db8::1"),
        ("[fe80::1%eth0]:443", "fe80::1"),
        ("[::ffff:203.0.113.7]:80", CALLER),
    ],
)
def test_one_address_is_told_in_one_form(proxy: TrustedProxy, claimed: str, told: str) -> None:
    assert client_ip(said(proxy, claimed), proxy) == told


@pytest.mark.parametrize("proxy", PRESETS)
@pytest.mark.parametrize(
    "garbage",
    [
        "", "unknown", "localhost", "203.0.113", "203.0.113.256", "010.0.0.1", "%", "\xb2", "203.0.113.7:port",
        "203.0.113.7:123456", "203.0.113.7:", "[203.0.113.7", "[]", "[2001:db8::1]443", "[2001:db8::1]:123456",
        "[[2001:db8::1]]", "2001:db8::1]:443", "203.0.113.7\x00", "203.0.113.7;203.0.113.8", "http://203.0.113.7",
    ],
)  # fmt: skip
def test_garbage_names_nobody(proxy: TrustedProxy, garbage: str) -> None:
    assert client_ip(said(proxy, garbage), proxy) is None


@pytest.mark.parametrize("proxy", PRESETS)
def test_a_request_without_a_peer_names_nobody(proxy: TrustedProxy) -> None:
    assert client_ip(request(client=None), proxy) is None


LATIN = st.text(st.characters(codec="latin-1"))


@given(
    proxy=st.sampled_from(PRESETS),
    headers=st.lists(st.tuples(st.sampled_from(CLAIMS), LATIN)),
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
    if proxy in CONNECTED:
        assert client_ip(request(*claimed), proxy) == PEER
    else:
        own = OVERWRITTEN.get(proxy, "x-forwarded-for")
        assert client_ip(request(*claimed, (own, CALLER)), proxy) == CALLER


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({}, "none"),
        ({"VERCEL": "1"}, "vercel"),
        ({"VERCEL": "1", "AWS_LAMBDA_FUNCTION_NAME": "tollgate"}, "vercel"),
        ({"AWS_LAMBDA_FUNCTION_NAME": "tollgate"}, "lambda"),
        ({"RAILWAY_ENVIRONMENT_NAME": "production"}, "railway"),
        ({"DYNO": "web.1"}, "heroku"),
        ({"DYNO": ""}, "none"),
        ({"VERCEL": "1", "TRUSTED_PROXY": "none"}, "none"),
        ({"AWS_LAMBDA_FUNCTION_NAME": "tollgate", "TRUSTED_PROXY": "alb"}, "alb"),
        ({"FORWARDED_ALLOW_IPS": "*", "PORT": "8000"}, "none"),
    ],
)
def test_a_known_host_is_recognised_unless_the_operator_says_otherwise(environ: dict[str, str], proxy: str) -> None:
    database = {"DATABASE_URL": "postgresql://localhost/tollgate"}
    assert read(environ | database).trusted_proxy == proxy


def test_a_host_s_mark_in_a_file_is_not_believed(tmp_path: Path) -> None:
    """`vercel env pull` writes VERCEL=1 into a file that is then read on a laptop."""
    file = tmp_path / ".env.local"
    file.write_text("VERCEL=1\nDATABASE_URL=postgresql://localhost/tollgate\n")
    assert read({}, file).trusted_proxy == "none"


def test_a_proxy_that_is_not_known_stops_the_start() -> None:
    with pytest.raises(SettingsError) as stopped:
        read({"TRUSTED_PROXY": "cloudflare"})
    assert stopped.value.lines[0].startswith("TRUSTED_PROXY: ")
