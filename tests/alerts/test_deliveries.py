"""What is due is sent to real receivers, which may fail, hang, redirect and lie."""

import asyncio
import contextlib
import io
import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from alerts import receivers
from alerts.receivers import Receiver, mail_receiver, receiver
from alerts.senders import a_sender
from alerts.watch import Row, Watch
from completions.paid import eventually
from people import Person
from tollgate.alerts import deliveries as sending
from tollgate.alerts import rules
from tollgate.alerts.channels import Channels
from tollgate.alerts.deliveries import Deliveries
from tollgate.core.errors import BadRequest
from tollgate.database import Door
from tollgate.process import logs
from tollgate.upstreams.address_guard import Guard
from tollgate.vault.rotation import rotate
from tollgate.vault.rules import Vault

pytestmark = pytest.mark.anyio

KEY = bytes(range(32))
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "alerts.md"
FIELDS = {"name": "ops", "severity": "info", "rules": None, "org_ids": None, "state": "active", "secret": None}


class Ops:
    """An operator with channels, and a sender."""

    def __init__(self, watch: Watch, door: Door, sender: Callable[[Vault], Deliveries]) -> None:
        self.watch = watch
        self.door = door
        self.sender_with = sender
        self.sender = sender(Vault([KEY]))
        self.channels = Channels(Vault([KEY]), Guard(allow_private=True), self.sender, "admin")

    async def create(self, **fields: Any) -> Row:
        made: Row = await self.channels.create(self.door, {**FIELDS, **fields})
        return made

    async def fire(self, value: float = 1) -> None:
        self.watch.observed = {("books_faults", "installation"): value}
        await self.watch.round()

    async def sent(self) -> list[Row]:
        """The deliveries after a round of sending."""
        await self.sender.send_due()
        return await self.watch.rows("select * from tollgate.deliveries order by created_at, id")

    async def again(self) -> Row:
        """The newest delivery after its next attempt."""
        due = "due_at = now() - interval '1 s'"
        await self.watch.sql.execute(f"update tollgate.deliveries set {due} where state = 'waiting'")
        return (await self.sent())[-1]


@pytest.fixture
async def ops(watch: Watch) -> AsyncIterator[Ops]:
    admin = Person(watch.door, "admin")
    await admin.seed()
    async with a_sender(watch.door) as sender:
        yield Ops(watch, admin.at_the_door(), sender)


@pytest.fixture
async def hook() -> AsyncIterator[Receiver]:
    async with receiver() as made:
        yield made


def verify(secret: str, got: receivers.Received) -> None:
    """As a customer would, with the library of Standard Webhooks."""
    assert Webhook(secret).verify(got.body, got.headers) == got.json


def test_the_signature_is_that_of_standard_webhooks() -> None:
    secret, message = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek"
    signed = rules.signature(secret, message, 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.slow
def test_the_functions_of_the_page_know_our_signatures_from_others() -> None:
    """docs/how-to/alerts.md has one in Python, one in Node."""
    page = PAGE.read_text()
    python, node = (re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)[0] for language in ("python", "js"))
    secret = rules.mint_secret(bytes(32))
    delivery = {"id": "dlv_1", "content": {"type": "x", "data": {"name": "é 🦊"}}}
    sent, old = (rules.webhook("", secret, delivery, int(time.time()) - age) for age in (0, 600))
    two_keys = {**sent.headers, "webhook-signature": "v1,other " + sent.headers["webhook-signature"]}
    cases = [
        (secret, sent.headers, sent.body, True),
        (secret, two_keys, sent.body, True),
        (secret, sent.headers, sent.body + b" ", False),
        (rules.mint_secret(bytes(31) + b"1"), sent.headers, sent.body, False),
        (secret, old.headers, old.body, False),
    ]
    names: dict[str, Any] = {}
    exec(python, names)  # noqa: S102  # it is ours
    assert [names["is_genuine"](*given) for *given, _ in cases] == [expected for *_, expected in cases]
    given = json.dumps([[secret, headers, body.decode()] for secret, headers, body, _ in cases])
    program = f"{node}\nconsole.log(JSON.stringify({given}.map((one) => isGenuine(...one))))"
    ran = subprocess.run(["node", "--input-type=module", "-e", program], check=True, capture_output=True, text=True)
    assert json.loads(ran.stdout) == [expected for *_, expected in cases]


def test_attempts_come_later_and_later_for_a_day_and_end() -> None:
    early, late = ([rules.again_seconds(tries, chance, 500) for tries in range(1, 9)] for chance in (0.0, 1.0))
    assert early == [12, 48, 240, 1440, 5760, 17280, 34560, None]
    assert late == [18, 72, 360, 2160, 8640, 25920, 51840, None]
    assert rules.again_seconds(1, 0.5, 410) is None


async def test_a_webhook_is_signed_and_says_what_fires_and_what_is_resolved(ops: Ops, hook: Receiver) -> None:
    made = await ops.create(kind="webhook", url=hook.url)
    assert made["last_four"] == made["secret"][-4:]
    out = io.StringIO()
    logs.configure("debug", [], out)
    await ops.fire()
    (sent,) = await ops.sent()
    await ops.fire(0)
    await ops.sent()
    for got in hook.received:
        verify(made["secret"], got)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(line["event"], line["status"]) for line in lines] == [("delivery_sent", 200)] * 2
    assert made["secret"] not in out.getvalue()
    first, second = (got.json for got in hook.received)
    assert (first["type"], first["data"]["firing"], second["data"]["resolved"]) == ("alerts.changed", 1, 1)
    assert first["data"]["alerts"][0]["id"] == second["data"]["alerts"][0]["id"]
    assert (sent["state"], sent["attempts"][0]["status"], sent["attempts"][0]["answer"]) == ("sent", 200, "ok")


async def test_a_receiver_that_answers_500_gets_the_same_message_later(ops: Ops, hook: Receiver) -> None:
    await ops.create(kind="webhook", url=hook.url)
    hook.answer = receivers.ERROR
    await ops.fire()
    (failed,) = await ops.sent()
    assert (failed["state"], failed["tries"], failed["attempts"][0]["answer"]) == ("waiting", 1, "broken")
    assert failed["due_at"] > failed["created_at"]
    await ops.sent()
    assert len(hook.received) == 1  # it is not due yet
    await ops.again()
    (channel,) = await ops.watch.rows("select failures, last_error from tollgate.channels")
    assert channel == {"failures": 2, "last_error": "HTTP 500"}
    hook.answer = receivers.OK
    done = await ops.again()
    assert (done["state"], done["tries"], len(done["attempts"])) == ("sent", 3, 3)
    assert {got.headers["webhook-id"] for got in hook.received} == {done["id"]}
    (channel,) = await ops.watch.rows("select failures, last_error from tollgate.channels")
    assert channel == {"failures": 0, "last_error": None}


async def test_after_the_last_attempt_it_failed_and_can_be_resent(ops: Ops, hook: Receiver) -> None:
    await ops.create(kind="webhook", url=hook.url)
    hook.answer = receivers.GONE
    await ops.fire()
    (failed,) = await ops.sent()
    assert failed["state"] == "failed"
    await ops.channels.resend(ops.door, failed["id"])
    hook.answer = receivers.OK
    (done,) = await ops.sent()
    assert (done["state"], done["id"], len(done["attempts"])) == ("sent", failed["id"], 2)


async def test_one_that_hangs_is_tried_again_and_its_next_page_waits_for_the_next_sweep(
    ops: Ops, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "ATTEMPT_SECONDS", 0.2)
    hook.answer = receivers.HANGS
    made = await ops.create(kind="webhook", url=hook.url)
    await ops.watch.sql.execute(WAITING, made["id"], sending.PAGE + 1)
    assert await ops.sender.send_due() == {"sent": 0, "more": False}
    found = await ops.watch.rows("select tries, attempts -> 0 ->> 'error' as error from tollgate.deliveries")
    expected = {(1, sending.OUT_OF_TIME): sending.PAGE, (0, None): 1}
    assert Counter((row["tries"], row["error"]) for row in found) == expected


WAITING = """
insert into tollgate.deliveries (channel_id, event, content, due_at, created_at)
select $1, 'test.waiting', '{"type": "test.waiting", "data": {}}', now() - interval '1 hour', now()
from generate_series(1, $2)
"""

BAD = {
    "hangs up": (b"HTTP/1.1 200 OK\r\ncontent-le", "waiting"),
    "redirects": (b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n", "waiting"),
    "no length": (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nok", "waiting"),
    "says too much": (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok" + b"x" * 1000, "sent"),
    "sends too little": (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", "sent"),
    "never ends": (receivers.NEVER_WHOLE, "sent"),
    "ten megabytes": (b"HTTP/1.1 200 OK\r\ncontent-length: 10485760\r\n\r\n" + b"x" * 10 * 1024**2, "sent"),
}
"""What a receiver answers, and the state of its delivery. The status says how that ended, so the body need not come."""


async def test_bad_receivers_hold_up_no_other_and_get_one_attempt(
    ops: Ops, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though one that hangs has more than a page, and all of it was due before."""
    monkeypatch.setattr(sending, "ATTEMPT_SECONDS", 60.0)
    monkeypatch.setattr(sending, "BODY_SECONDS", 0.05)
    async with contextlib.AsyncExitStack() as stack:
        hanging = await stack.enter_async_context(receiver(receivers.HANGS))
        stuck = await ops.create(kind="webhook", url=hanging.url)
        await ops.watch.sql.execute(WAITING, stuck["id"], sending.PAGE)
        bad = {name: await stack.enter_async_context(receiver(answer)) for name, (answer, _) in BAD.items()}
        names = {(await ops.create(kind="webhook", url=one.url))["id"]: name for name, one in bad.items()}
        await ops.create(kind="webhook", url=hook.url)
        await ops.fire()
        sender = asyncio.create_task(ops.sent())
        await eventually(lambda: all(one.received for one in (hanging, hook, *bad.values())))
        assert not sender.done()
        hanging.hang_up()
        done = {names[row["channel_id"]]: row for row in await sender if row["channel_id"] in names}
    assert {name: (row["state"], row["tries"], len(bad[name].received)) for name, row in done.items()} == {
        name: (state, 1, 1) for name, (_, state) in BAD.items()
    }
    assert len(hook.received) == 1
    assert len(hanging.received) == sending.PAGE - len(BAD) - 1
    assert done["redirects"]["attempts"][0]["error"] == "HTTP 302: redirects are not followed"
    assert len(done["ten megabytes"]["attempts"][0]["answer"]) == rules.MOST_ANSWER


async def test_an_owner_s_webhook_never_reaches_a_private_address(ops: Ops, hook: Receiver) -> None:
    """Neither when it is created, nor when its name leads there later."""
    org = Person(ops.watch.door)
    await org.seed()
    of_org = Channels(Vault([KEY]), Guard(allow_private=False), ops.sender, "keys")
    body = {**FIELDS, "kind": "webhook", "events": None}
    with pytest.raises(BadRequest, match="not public"):
        await of_org.create(org.at_the_door(), {**body, "url": hook.url})
    lax = Channels(Vault([KEY]), Guard(allow_private=True), ops.sender, "keys")
    made = await lax.create(org.at_the_door(), {**body, "url": hook.url.replace("127.0.0.1", "localhost")})
    await of_org.test(org.at_the_door(), made["id"])
    assert hook.received == []
    (failed,) = await ops.watch.rows("select attempts from tollgate.deliveries")
    assert "not public" in failed["attempts"][0]["error"]


async def test_secrets_of_channels_move_to_a_new_key_of_the_vault(ops: Ops, hook: Receiver) -> None:
    made = await ops.create(kind="webhook", url=hook.url)
    new = bytes(reversed(KEY))
    assert await rotate(ops.door, Vault([new, KEY])) == (1, [])
    await ops.fire()
    (locked,) = await ops.sent()
    assert "VAULT_KEY" in locked["attempts"][0]["error"]
    ops.sender = ops.sender_with(Vault([new]))
    assert (await ops.again())["state"] == "sent"
    verify(made["secret"], hook.received[0])


async def test_two_senders_send_once(ops: Ops, hook: Receiver) -> None:
    await ops.create(kind="webhook", url=hook.url)
    await ops.fire()
    leased = (await ops.watch.door.call("tollgate_lease_deliveries", page_size=5, lease_seconds=60))["data"]
    assert len(leased) == 1
    await ops.sent()
    assert hook.received == []


async def test_slack_and_pagerduty_get_their_own_shapes(ops: Ops, hook: Receiver) -> None:
    slack = await ops.create(kind="slack", url=f"{hook.url}/T0/B0/secret-of-slack")
    assert "secret-of-slack" not in json.dumps(slack)
    async with receiver() as pager:
        await ops.create(kind="pagerduty", url=pager.url, secret="routing-key-of-pagerduty")
        await ops.fire()
        await ops.sent()
        await ops.fire(0)
        await ops.sent()
        opened, resolved = (got.json for got in pager.received)
    assert "FIRING critical: The books do not agree" in hook.received[0].json["text"]
    assert (opened["event_action"], resolved["event_action"]) == ("trigger", "resolve")
    assert opened["dedup_key"] == resolved["dedup_key"]
    assert opened["routing_key"] == "routing-key-of-pagerduty"
    assert opened["payload"]["severity"] == "critical"


async def test_an_email_goes_over_tls_with_a_login(ops: Ops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with mail_receiver(tmp_path) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        mail = {"host": "localhost", "port": server.port, "tls": "starttls", "username": "me"}
        people = {"sender": "tollgate@example.com", "recipients": ["a@example.com", "b@example.com"]}
        await ops.create(kind="email", mail={**mail, **people}, secret="password-of-mail")
        await ops.fire()
        await ops.sent()
        (got,) = server.mails
        assert (got.encrypted, got.login) == (True, ":me:password-of-mail")
        assert got.recipients == people["recipients"]
        assert "Subject: Tollgate: 1 firing" in got.text
        at_once = {"host": "localhost", "port": server.port_of_tls, "tls": "tls", "username": None}
        other = await ops.create(kind="email", mail={**at_once, **people})
        assert (await ops.channels.test(ops.door, other["id"]))["state"] == "sent"
        assert (server.mails[1].login, "Subject: Tollgate: channel.test" in server.mails[1].text) == (None, True)
        await ops.channels.delete(ops.door, other["id"])
        server.refusal = b"550 nobody\r\n"
        await ops.fire(0)
        refused = (await ops.sent())[1]
        assert refused["attempts"][0]["error"] == "the mail server refused all recipients"
        monkeypatch.delenv("SSL_CERT_FILE")
        untrusted = await ops.again()
        assert untrusted["attempts"][-1]["error"].startswith("the mail server failed: SSL")
