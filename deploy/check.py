#!/usr/bin/env python3
"""Looks at a live Tollgate from outside, and says in a line each what is right, what is not, and what to do about it.

    TOLLGATE_KEY=… [CRON_SECRET=…] python3 deploy/check.py https://tollgate.example

Needs Python 3.11 and nothing else. With a key it makes two small completions, which cost a fraction of a cent, and two
keys that it revokes. No secret is ever printed. Ends with 0 when nothing is red, 1 when something is, 2 for wrong
usage.
"""

import argparse
import contextlib
import http.client
import ipaddress
import json
import os
import secrets
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

PATIENCE_SECONDS = 60
COMPLETIONS = "/v1/chat/completions"
MOST_SKEW_SECONDS = 5.0
LEAST_CERTIFICATE_DAYS = 14
SLOWEST_FIRST_BYTE_SECONDS = 30.0
TOO_SHORT_TO_TELL_SECONDS = 0.3
LONGEST_SHOWN = 300
MOMENT_SECONDS = 0.01
LEAST_MOMENTS = 5
"""A stream that came at fewer moments was held back by somebody: so few are the packets of one write."""

SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
NEVER_PUBLIC = (
    "/.env",
    "/pyproject.toml",
    "/requirements.txt",
    "/vercel.json",
    "/api/index.py",
    "/src/tollgate/app.py",
)
ELSEWHERE = "198.51.100.66"
"""An address that nobody has: RFC 5737 keeps it for documents."""
CLAIMS = {
    **dict.fromkeys(
        ("X-Forwarded-For", "X-Real-IP", "X-Client-IP", "CF-Connecting-IP", "True-Client-IP", "DO-Connecting-IP",
         "X-Vercel-Forwarded-For", "X-Envoy-External-Address", "Fly-Client-IP"), ELSEWHERE,
    ),
    "Forwarded": f"for={ELSEWHERE}",
    "X-Amzn-Request-Context": json.dumps({"http": {"sourceIp": ELSEWHERE}, "identity": {"sourceIp": ELSEWHERE}}),
}  # fmt: skip
NOT_PUBLIC = ["10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
              "::1/128", "fc00::/7", "fe80::/10"]  # fmt: skip
EVERYWHERE = ["0.0.0.0/0", "::/0"]
SLOWLY = {"x-sandbox-fault": "slow=0.02"}
"""The sandbox says a word in that time, where it would say all at once; others do not know the header."""
PROMPT = "Count from one to thirty, in English words, separated by spaces. Nothing else."


REMEDIES = {
    "reached": "Is the address right, is it up, and is its certificate one that everybody trusts?",
    "alive": "No Tollgate answers here: look at the platform's log. On an HTTP API of AWS the stage must be $default.",
    "TLS": "Keys in the clear, or a certificate that ends within two weeks. Use https; renew the certificate.",
    "clock": "One of the two machines has the wrong time: turn on NTP there.",
    "clock inside": "The machine that Tollgate runs on has the wrong time, or a cache answers for /health.",
    "security headers": "Something between here and Tollgate takes headers away: a CDN or a proxy of yours.",
    "request id": "A proxy strips x-request-id: without it nobody can find a request in the log.",
    "production": "Set TOLLGATE_ENV=production: in development a missing pepper is not refused.",
    "ready": "behind: `make migrate`. unavailable: DATABASE_URL, or SUPABASE_URL and SUPABASE_SECRET_KEY; is the "
    "project paused? The log's line with the source `database` names the cause.",
    "upstream": "error, not_configured: OPENROUTER_API_KEY. unavailable: can the host reach OpenRouter? Try again.",
    "own upstreams": "`GET /admin/upstreams` says what is wrong; `POST /admin/upstreams/refresh-health` checks again.",
    "refuses": "Another program, or a cache, answers in Tollgate's place.",
    "/internal is closed": "Anybody may sweep, or something else is served there. Give CRON_SECRET a value of its own.",
    "no source is public": "The platform serves the repository as files. On Vercel: `framework` in vercel.json.",
    "sweep": "404: the deployment has another CRON_SECRET, or none. Until it sweeps, holds of lost requests stay.",
    "key": "The key is not in this deployment's database, or was made under another KEY_PEPPER.",
    "completion": "402: grant credits. 404: name a --model that is there. 502: OPENROUTER_API_KEY, or the credit at "
    "OpenRouter. 504: the platform's limit is shorter than the completion.",
    "charge": "The upstream did not say its cost (the sweeper finds it), or the model is free: name another --model.",
    "balance": "Did another call of this org come between? Try again. Else run `python -m tollgate audit`.",
    "paid once": "A proxy strips Idempotency-Key or Idempotency-Replayed: who tries again pays again.",
    "stream": "Somebody cuts a stream off or rewrites it. UPSTREAM_TIMEOUT_SECONDS must be below the platform's limit.",
    "first byte": "Hosts give up at 30 s. A cold start so long wants more memory, or compiled bytecode.",
    "arrives in pieces": "Somebody holds the answer back. Behind Mangum on Lambda it is always so (--buffered says you "
    "know); elsewhere it is a proxy: turn off its buffering, and its compression of text/event-stream.",
    "forged addresses": "Set TRUSTED_PROXY as this host's page says: until then an IP allowlist keeps nobody out.",
    "client's address": "Set TRUSTED_PROXY as this host's page says: now all clients look like one, or like nobody.",
}
STRANGE = "What answers there speaks another language than this Tollgate. Is it the same version?"


class Line(NamedTuple):
    name: str
    ok: bool | None
    """None where it was not looked at."""
    found: str

    @property
    def remedy(self) -> str:
        name = "refuses" if self.name.startswith("refuses ") else self.name
        return "" if self.ok is not False else REMEDIES.get(name, STRANGE)


class Piece(NamedTuple):
    at: float
    data: bytes


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    """By their names in lower case."""
    pieces: list[Piece]
    began: float
    clock: float
    """Our own, when the headers came."""

    @property
    def body(self) -> bytes:
        return b"".join(piece.data for piece in self.pieces)

    @property
    def document(self) -> Any:
        """What the body says, or an empty object."""
        try:
            said = json.loads(self.body)
        except ValueError:
            return {}
        return said if isinstance(said, dict) else {}

    @property
    def code(self) -> str:
        error = self.document.get("error")
        return str(error.get("code", "no code")) if isinstance(error, dict) else "no error of ours"

    @property
    def said(self) -> str:
        return f"{self.status}" if self.status < 400 else f"{self.status} {self.code}"


class Site:
    def __init__(self, url: str, key: str, cron_secret: str, model: str, *, may_buffer: bool) -> None:
        self.parts = urlsplit(url if "://" in url else f"https://{url}")
        self.key = key
        self.cron_secret = cron_secret
        self.model = model
        self.may_buffer = may_buffer
        self.certificate: Mapping[str, Any] = {}
        self.tls = ""

    @property
    def is_here(self) -> bool:
        """On this machine, or in this network."""
        host = self.parts.hostname or ""
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(host).is_private
        return host == "localhost"

    def ask(self, method: str, path: str, body: Any = None, *, key: str = "", **headers: str) -> Reply:
        """One connection each: what is kept between two requests could hide something."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key:
            sent["authorization"] = f"Bearer {key}"
        if body is not None:
            sent["content-type"] = "application/json"
        connection = self._connection()
        began = time.monotonic()
        try:
            connection.request(
                method,
                self.parts.path.rstrip("/") + path,
                None if body is None else json.dumps(body),
                {"user-agent": "tollgate-check", "accept-encoding": "identity", **sent},
            )
            self._look_at_tls(connection)
            answer = connection.getresponse()
            clock = time.time()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, named, list(_pieces(answer)), began, clock)
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self.parts.hostname or "", self.parts.port
        if self.parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=PATIENCE_SECONDS)
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=PATIENCE_SECONDS, context=context)

    def _look_at_tls(self, connection: http.client.HTTPConnection) -> None:
        if isinstance(connection.sock, ssl.SSLSocket):
            self.tls = connection.sock.version() or ""
            self.certificate = connection.sock.getpeercert() or {}


def _pieces(answer: http.client.HTTPResponse) -> Iterator[Piece]:
    while data := answer.read1(65536):
        yield Piece(time.monotonic(), data)


Check = Callable[[Site], Iterator[Line]]


def alive(site: Site) -> Iterator[Line]:
    asked = f"check-{secrets.token_hex(6)}"
    reply = site.ask("GET", "/healthz", x_request_id=asked)
    yield Line("alive", reply.status == 200 and reply.document.get("status") == "ok", f"/healthz {reply.said}")
    yield _tls(site)
    skew = abs(_date(reply.headers.get("date", "")) - reply.clock)
    yield Line("clock", skew <= MOST_SKEW_SECONDS, f"{skew:.0f} s off" if skew < 1e9 else "no Date header to tell")
    wrong = [name for name, value in SECURITY_HEADERS.items() if reply.headers.get(name) != value]
    yield Line("security headers", not wrong, ", ".join(wrong) or f"all {len(SECURITY_HEADERS)}")
    echoed = reply.headers.get("x-request-id") == asked
    yield Line("request id", echoed, "comes back as it was sent" if echoed else "does not come back")
    if site.tls:
        strict = "strict-transport-security" in reply.headers
        yield Line("production", strict, f"strict-transport-security is {'' if strict else 'not '}sent")


def _tls(site: Site) -> Line:
    if not site.tls:
        return Line("TLS", site.is_here, "none")
    ends = ssl.cert_time_to_seconds(site.certificate["notAfter"])
    days = int((ends - time.time()) / 86_400)
    return Line("TLS", days >= LEAST_CERTIFICATE_DAYS, f"{site.tls}, a certificate for {days} more days")


def _date(written: str) -> float:
    try:
        return parsedate_to_datetime(written).timestamp()
    except ValueError:
        return 0.0


def ready(site: Site) -> Iterator[Line]:
    reply = site.ask("GET", "/readyz")
    parts = ", ".join(f"{part} {state}" for part, state in reply.document.get("parts", {}).items())
    yield Line("ready", reply.status == 200, f"/readyz {reply.status}: {parts or reply.code}")
    health = site.ask("GET", "/health")
    skew = abs(datetime.fromisoformat(health.document["timestamp"]).timestamp() - health.clock)
    yield Line("clock inside", skew <= MOST_SKEW_SECONDS, f"{skew:.0f} s off")
    upstream = health.document.get("openrouter", "unknown")
    made_up = ": answers are made up" if upstream == "sandbox" else ""
    own = health.document.get("upstreams") or {}
    serves = upstream in ("connected", "sandbox") or (upstream == "not_configured" and any(own.values()))
    yield Line("upstream", serves, f"OpenRouter {upstream}{made_up}")
    if any(own.values()):
        counts = ", ".join(f"{count} {state}" for state, count in own.items())
        yield Line("own upstreams", not own.get("down"), f"at their last health check: {counts}")


def refusals(site: Site) -> Iterator[Line]:
    """A key nobody knows is asked of the database; one with a misprint is not."""
    misspelt, unknown = f"tg_live_{'x' * 49}", f"check-{secrets.token_hex(16)}"
    asked = {
        "no key": (site.ask("GET", "/user/balance"), "401 missing_api_key"),
        "a misspelt key": (site.ask("GET", "/user/balance", key=misspelt), "401 invalid_api_key"),
        "an unknown key": (site.ask("GET", "/user/balance", key=unknown), "401 invalid_api_key"),
        "a stranger at /admin": (site.ask("GET", "/admin/monitor"), "401 missing_api_key"),
        "an unpaid completion": (site.ask("POST", COMPLETIONS, {}), "401 missing_api_key"),
        "an unknown path": (site.ask("GET", "/nothing/is/here"), "404 not_found"),
    }
    for name, (reply, wanted) in asked.items():
        found = reply.said if reply.said == wanted else f"{reply.said}, not {wanted}"
        yield Line(f"refuses {name}", reply.said == wanted, found)


def closed(site: Site) -> Iterator[Line]:
    wrong = secrets.token_hex(16)
    said = [site.ask("POST", "/internal/sweep").said, site.ask("POST", "/internal/sweep", key=wrong).said]
    said += [site.ask("GET", path).said for path in ("/internal", "/internal/")]
    yield Line("/internal is closed", set(said) == {"404 not_found"}, ", ".join(dict.fromkeys(said)))
    published = [path for path in NEVER_PUBLIC if site.ask("GET", path).status == 200]
    yield Line("no source is public", not published, ", ".join(published) or "none of ours was found")
    if not site.cron_secret:
        yield Line("sweep", None, "set CRON_SECRET, and use https, to have it tried")
        return
    swept = site.ask("POST", "/internal/sweep", key=site.cron_secret)
    ends = ", ".join(f"{number} {end}" for end, number in swept.document.items() if end != "error")
    yield Line("sweep", swept.status == 200 and "settled" in swept.document, ends or swept.said)


def paid(site: Site) -> Iterator[Line]:
    before = site.ask("GET", "/user/balance", key=site.key)
    has_key = before.status == 200
    yield Line("key", has_key, f"{before.document.get('credits')} credits" if has_key else before.said)
    if not has_key:
        return
    site.model = site.model or _cheapest(site)
    once = {"idempotency_key": f"check-{secrets.token_hex(12)}"}
    reply = site.ask("POST", COMPLETIONS, _question(site), key=site.key, **once)
    is_answer = reply.status == 200 and bool(reply.document.get("choices"))
    yield Line("completion", is_answer, f"{site.model or 'no model'}: {reply.said} in {_seconds(reply):.2f} s")
    if is_answer:
        yield from _charged(site, before.document, reply)
        again = site.ask("POST", COMPLETIONS, _question(site), key=site.key, **once)
        is_same = again.headers.get("idempotency-replayed") == "true" and again.body == reply.body
        yield Line("paid once", is_same, "the same Idempotency-Key, " + ("the same answer" if is_same else again.said))


def _charged(site: Site, before: Mapping[str, Any], reply: Reply) -> Iterator[Line]:
    after = site.ask("GET", "/user/balance", key=site.key).document.get("credits_nanos")
    charge, balance = (reply.headers.get(f"x-tollgate-{name}-nanos", "") for name in ("charge", "balance"))
    is_test = before.get("environment") == "test"
    is_charged = charge.isdigit() and (int(charge) > 0 or is_test)
    yield Line("charge", is_charged, f"{charge or 'unknown'} nanos{' (a test key)' if is_test else ''}")
    left = before["credits_nanos"] - int(charge or 0)
    found = f"{balance or 'unknown'} nanos by the answer, {after} when asked, {left} by our count"
    yield Line("balance", after == left and balance == str(left), found)


def streamed(site: Site) -> Iterator[Line]:
    if not site.model:
        return
    asked = _question(site) | {"stream": True}
    reply = site.ask("POST", COMPLETIONS, asked, key=site.key, x_tollgate_usage="true", **SLOWLY)
    is_stream = reply.headers.get("content-type", "").startswith("text/event-stream")
    is_whole = is_stream and reply.body.rstrip().endswith(b"data: [DONE]") and b'"charge_nanos"' in reply.body
    broken = f"{reply.said}, {len(reply.body)} bytes, no end or no charge in them"
    yield Line("stream", is_whole, "whole, with its charge" if is_whole else broken)
    if is_stream and reply.pieces:
        first = reply.pieces[0].at - reply.began
        yield Line("first byte", first < SLOWEST_FIRST_BYTE_SECONDS, f"after {first:.2f} s")
        yield _in_pieces(site, reply)


def _in_pieces(site: Site, reply: Reply) -> Line:
    gaps = [later.at - piece.at for piece, later in pairwise(reply.pieces)]
    moments = 1 + sum(gap > MOMENT_SECONDS for gap in gaps)
    found = f"at {moments} moments in {_seconds(reply):.2f} s"
    if moments < LEAST_MOMENTS and site.may_buffer:
        return Line("arrives in pieces", None, f"{found}, as --buffered says")
    if moments < LEAST_MOMENTS and _seconds(reply) < TOO_SHORT_TO_TELL_SECONDS:
        return Line("arrives in pieces", None, f"{found}: too short to tell, name a slower --model")
    return Line("arrives in pieces", moments >= LEAST_MOMENTS, found)


def addresses(site: Site) -> Iterator[Line]:
    """With keys that open from certain addresses only, made for this and revoked."""
    with _bound(site, [f"{ELSEWHERE}/32"]) as key:
        if not key:
            yield Line("forged addresses", None, "this key may make no others, so it cannot be tried")
            return
        believed = [name for name, claim in CLAIMS.items() if _opens(site, key, **{name: claim})]
        none = f"{len(CLAIMS)} headers were tried, none is believed"
        yield Line("forged addresses", not believed, f"believed: {', '.join(believed)}" if believed else none)
    if site.is_here:
        return
    with _bound(site, NOT_PUBLIC) as inside, _bound(site, EVERYWHERE) as anywhere:
        is_known, is_inside = _opens(site, anywhere), _opens(site, inside)
        found = "none" if not is_known else "one of an inner network: a proxy's" if is_inside else "a public one"
        yield Line("client's address", is_known and not is_inside, found)


def _opens(site: Site, key: str, **claims: str) -> bool:
    return site.ask("GET", "/user/balance", key=key, **claims).status == 200


@contextlib.contextmanager
def _bound(site: Site, networks: list[str]) -> Iterator[str]:
    """A key that opens only from there; empty where ours may make none. It ends soon, even if we cannot revoke it."""
    ends = (datetime.now(UTC) + timedelta(minutes=30)).isoformat()
    terms = {"name": "deploy/check", "scopes": ["usage"], "ip_allowlist": networks, "expires_at": ends}
    made = site.ask("POST", "/user/api-keys", terms, key=site.key).document
    try:
        yield str(made.get("key", ""))
    finally:
        if "id" in made:
            site.ask("DELETE", f"/user/api-keys/{made['id']}", key=site.key)


def _question(site: Site) -> dict[str, Any]:
    return {"model": site.model, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 60}


def _cheapest(site: Site) -> str:
    """Of what this key may use and must pay for; the sandbox's where it is there."""
    listed = site.ask("GET", "/v1/models?usable=true&output_modalities=text", key=site.key).document.get("data", [])
    prices = {model["id"]: _price(model["pricing"]) for model in listed}
    paid = {name: price for name, price in prices.items() if price > 0}
    return "sandbox/words" if "sandbox/words" in paid else min(paid, key=lambda name: paid[name], default="")


def _price(pricing: Mapping[str, Any]) -> Decimal:
    return sum((Decimal(str(pricing.get(name, 0))) for name in ("prompt", "completion", "request")), Decimal(0))


def _seconds(reply: Reply) -> float:
    return (reply.pieces[-1].at if reply.pieces else time.monotonic()) - reply.began


OPEN: tuple[Check, ...] = (ready, refusals, closed)
WITH_KEY: tuple[Check, ...] = (paid, streamed, addresses)


def lines(site: Site) -> Iterator[Line]:
    """In the order in which one would mend them. Where nobody is there, nothing else is asked."""
    first = list(_careful(alive, site))
    yield from first
    if first[0].name == "reached":
        return
    if not (site.tls or site.is_here):
        site.key = site.cron_secret = ""  # not in the clear
    for check in OPEN:
        yield from _careful(check, site)
    if not site.key:
        yield Line("paid calls", None, "set TOLLGATE_KEY, or name a --key-file, and use https, to have them tried")
        return
    for check in WITH_KEY:
        yield from _careful(check, site)


def _careful(check: Check, site: Site) -> Iterator[Line]:
    """A check that breaks is a red line, and the others go on."""
    try:
        yield from check(site)
    except (OSError, http.client.HTTPException) as error:
        yield Line("reached", False, f"no answer when asking for `{check.__name__}`: {error or type(error).__name__}")
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        yield Line(check.__name__, False, f"not understood: {type(error).__name__} {error}")


class Printer:
    def __init__(self, hidden: list[str], *, coloured: bool) -> None:
        self._hidden = [secret for secret in hidden if secret]
        self._coloured = coloured

    def show(self, line: Line) -> None:
        mark, colour = {True: ("✓", "32"), False: ("✗", "31"), None: ("–", "90")}[line.ok]
        shown = f"{mark} {line.name:<27} {_printable(line.found)}"
        if line.ok is False:
            shown += f"\n{'':<30}→ {line.remedy}"
        print(self.safe(f"\x1b[{colour}m{shown}\x1b[0m" if self._coloured else shown), flush=True)

    def safe(self, text: str) -> str:
        """Without a secret, should somebody have sent one back to us."""
        for secret in self._hidden:
            text = text.replace(secret, "[hidden]")
        return text


def main() -> int:
    parser = _parser()
    options = parser.parse_args()
    key = _secret(parser, "the key", options.key_file or os.environ.get("TOLLGATE_KEY", ""))
    cron_secret = _secret(parser, "CRON_SECRET", os.environ.get("CRON_SECRET", ""))
    site = Site(options.url, key, cron_secret, options.model, may_buffer=options.buffered)
    printer = Printer([key, cron_secret], coloured=sys.stdout.isatty() and "NO_COLOR" not in os.environ)
    seen = []
    for line in lines(site):
        seen.append(line)
        if not options.json:
            printer.show(line)
    count = {ok: sum(line.ok is ok for line in seen) for ok in (True, False, None)}
    if options.json:
        report = {"url": options.url, "wrong": count[False], "lines": [_told(line) for line in seen]}
        print(printer.safe(json.dumps(report, ensure_ascii=False)))
    else:
        print(f"\n{count[True]} right, {count[False]} wrong, {count[None]} not looked at.")
    return 1 if count[False] else 0


def _printable(text: str) -> str:
    """What a server sent may want to play with the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text[:LONGEST_SHOWN])


def _secret(parser: argparse.ArgumentParser, name: str, written: str) -> str:
    secret = written.strip()
    if not (secret.isascii() and secret.isprintable()):
        parser.error(f"{name} has characters that no header can carry; was it copied whole?")
    return secret


def _contents(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(f"cannot read {path}: {error}") from None


def _told(line: Line) -> dict[str, Any]:
    return line._asdict() | {"remedy": line.remedy}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="where Tollgate is; https:// is assumed")
    parser.add_argument("--key-file", type=_contents, metavar="FILE", help="has the key, instead of TOLLGATE_KEY")
    parser.add_argument("--model", default="", help="what to complete with; default: the cheapest that has a price")
    parser.add_argument("--buffered", action="store_true", help="streams are known to arrive whole here")
    parser.add_argument("--json", action="store_true", help="report as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
