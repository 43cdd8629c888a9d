"""The contract of the doors: every test here runs through both, and both must give the same."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway import BOTH_DOORS, ONE_DOOR
from sandbox.serving import PATIENCE_SECONDS, until
from servers.postgres import GUARDED_PASSWORD, Cluster
from servers.postgrest import token
from servers.relay import Relay
from tollgate.core.errors import DatabaseUnavailable, InternalError, TollgateError
from tollgate.database import Door
from tollgate.database.postgres import PostgresDoor
from tollgate.database.supabase import SupabaseDoor
from tollgate.process.http_client import USER_AGENT, Http

pytestmark = BOTH_DOORS

OUTAGES = ["08006", "25006", "40P01", "53100", "53300", "55P03", "57014", "57P01", "57P02", "57P03", "58030"]
DEFECTS = ["22003", "23505", "42703", "P0001", "XX000"]
IMPATIENT = pytest.mark.parametrize("deadline_seconds", [1.0])
"""A call through `door` ends soon."""
PATIENT = pytest.mark.parametrize("deadline_seconds", [3600.0])
"""A call through `door` that waits for its deadline hangs."""


@pytest.fixture
def deadline_seconds() -> float:
    return 30.0


@pytest.fixture
async def door(wire: Relay, shared_database: str, deadline_seconds: float) -> AsyncIterator[Door]:
    """Each door in turn, over a wire that can be cut."""
    http = Http()
    made: Door
    if wire.path_prefix:
        made = SupabaseDoor(
            f"http://127.0.0.1:{wire.port}", token("service_role"), http=http, deadline_seconds=deadline_seconds
        )
    else:
        # Without TLS: asyncpg reports a cancelled TLS handshake only when it is garbage collected, in a later test.
        url = f"{Cluster(wire.port).url(shared_database.rsplit('/', 1)[1])}?sslmode=disable"
        made = PostgresDoor(url, pool_size=8, deadline_seconds=deadline_seconds)
    yield made
    await made.close()
    await http.close()


def http_answer(status: str, body: str, content_type: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    return (head + body).encode()


async def refusal(door: Door, function: str, **arguments: object) -> TollgateError:
    with pytest.raises(TollgateError) as caught:
        await door.call(function, **arguments)
    return caught.value


async def test_a_call_answers_with_the_function_s_json(door: Door) -> None:
    answer = await door.call("tollgate_health")
    assert answer["user_count"] >= 0
    assert len(answer["schema_version"]) == 14


@pytest.mark.parametrize(
    "sent",
    [
        {"words": "plain", "number": 1, "yes": True, "document": {"a": [1, {"b": None}]}, "list": ["x", 2]},
        {
            "words": "Ünïcødé \U0001f600 \"quoted\" 'too' \\ \n\t",
            "number": -1,
            "yes": False,
            "document": {},
            "list": [],
        },
        {"words": "", "number": 2**63 - 1, "yes": None, "document": {"deep": [[[[]]]]}, "list": [None]},
        {"words": None, "number": None, "yes": None, "document": {"n": 9007199254740993}, "list": [True]},
    ],
)
async def test_arguments_arrive_as_they_were_sent(door: Door, sent: dict[str, object]) -> None:
    assert await door.call("tollgate_test_echo", **sent) == sent


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "invalid_api_key"), (403, "permission_denied"), (404, "not_found"), (409, "key_is_final")],
)
async def test_a_refusal_arrives_as_the_error_of_its_code(door: Door, status: int, code: str) -> None:
    facts = {"key_id": "key_1", "nested": {"list": [1, 2]}, "text": "ü\n"}
    error = await refusal(door, "tollgate_test_refuse", status=status, code=code, facts=facts)
    assert (error.status, error.code, error.facts) == (status, code, facts)


async def test_a_refusal_with_a_param_names_it(door: Door) -> None:
    error = await refusal(door, "tollgate_test_refuse", status=400, code="invalid_request", facts={"param": "state"})
    assert error.body()["error"]["param"] == "state"


async def test_a_refusal_that_the_code_does_not_know_is_an_internal_error(door: Door) -> None:
    error = await refusal(door, "tollgate_test_refuse", status=402, code="not_of_this_version", facts={})
    assert isinstance(error, InternalError)


@pytest.mark.parametrize("state", OUTAGES)
async def test_a_state_of_an_outage_is_database_unavailable(door: Door, state: str) -> None:
    assert isinstance(await refusal(door, "tollgate_test_fail", state=state), DatabaseUnavailable)


@pytest.mark.parametrize("state", DEFECTS)
async def test_a_state_of_a_defect_is_an_internal_error_that_tells_nothing(door: Door, state: str) -> None:
    error = await refusal(door, "tollgate_test_fail", state=state)
    assert isinstance(error, InternalError)
    assert "made to fail" not in str(error.body())


async def test_a_function_that_is_missing_is_database_unavailable(door: Door) -> None:
    assert isinstance(await refusal(door, "tollgate_of_tomorrow", caller={}), DatabaseUnavailable)


async def test_after_a_refusal_the_door_still_works(door: Door) -> None:
    for _ in range(20):
        await refusal(door, "tollgate_test_refuse", status=404, code="not_found", facts={})
    assert await door.call("tollgate_health")


async def test_a_hundred_calls_at_once_are_all_answered(door: Door) -> None:
    numbers = await asyncio.gather(
        *(
            door.call("tollgate_test_echo", words=None, number=number, yes=None, document={}, list=[])
            for number in range(100)
        )
    )
    assert [answer["number"] for answer in numbers] == list(range(100))


@PATIENT
async def test_a_database_that_is_down_is_unavailable_at_once_and_found_again(door: Door, wire: Relay) -> None:
    await door.call("tollgate_health")
    wire.cut = True
    wire.drop_connections()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert isinstance(await refusal(door, "tollgate_health"), DatabaseUnavailable)
    wire.restore()
    assert await door.call("tollgate_health")


async def test_a_database_down_from_the_start_is_found_when_it_comes(door: Door, wire: Relay) -> None:
    wire.cut = True
    assert isinstance(await refusal(door, "tollgate_health"), DatabaseUnavailable)
    wire.restore()
    assert await door.call("tollgate_health")


@IMPATIENT
@pytest.mark.parametrize("warm", [True, False], ids=["mid-session", "from the start"])
async def test_a_database_that_hangs_is_given_up_at_the_deadline(door: Door, wire: Relay, warm: bool) -> None:
    if warm:
        await until(lambda: answers(door))
    wire.stall()
    async with asyncio.timeout(PATIENCE_SECONDS):
        errors = await asyncio.gather(*(refusal(door, "tollgate_health") for _ in range(20)))
    assert all(isinstance(error, DatabaseUnavailable) for error in errors)
    wire.restore()
    await until(lambda: answers(door))


@IMPATIENT
async def test_a_slow_function_is_given_up_at_the_deadline(door: Door) -> None:
    error = await refusal(door, "tollgate_test_sleep", milliseconds=4000)
    assert isinstance(error, DatabaseUnavailable)
    await until(lambda: answers(door))


async def answers(door: Door) -> bool:
    with contextlib.suppress(DatabaseUnavailable):
        return bool(await door.call("tollgate_health"))
    return False


async def test_connections_lost_in_between_do_not_show(door: Door, wire: Relay) -> None:
    await asyncio.gather(*(door.call("tollgate_health") for _ in range(8)))
    wire.drop_connections()
    await asyncio.sleep(0.5)  # an idle connection's end reaches us as an event of the loop
    answers = await asyncio.gather(*(door.call("tollgate_health") for _ in range(8)))
    assert len(answers) == 8


SLEEPING = """
select count(*) from pg_stat_activity
where datname = current_database() and wait_event = 'PgSleep' and query_start > $1
"""
"""Since then: what a test before this one gave up may still be asleep, and wake up in between."""


async def test_a_connection_lost_during_a_call_is_unavailable(
    door: Door, wire: Relay, shared_database: str, sql: Any
) -> None:
    began_at = await sql(shared_database, "select clock_timestamp()")
    running = asyncio.ensure_future(refusal(door, "tollgate_test_sleep", milliseconds=30_000))

    async def is_at_work() -> bool:
        return bool(await sql(shared_database, SLEEPING, began_at))

    await until(is_at_work)
    wire.drop_connections()
    assert isinstance(await running, DatabaseUnavailable)
    assert await door.call("tollgate_health")


@pytest.fixture
async def unheard() -> AsyncIterator[None]:
    """asyncpg complains of connections that were given up while it made them, and nobody but itself can hear it."""
    loop = asyncio.get_running_loop()
    usual = loop.get_exception_handler()
    assert usual

    def hear(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if str(context.get("exception")) != "unexpected connection_lost() call":
            usual(loop, context)

    loop.set_exception_handler(hear)
    yield
    loop.set_exception_handler(usual)


@pytest.mark.usefixtures("unheard")
async def test_calls_that_are_cancelled_leave_nothing_behind(door: Door) -> None:
    for _ in range(5):
        calls = [asyncio.ensure_future(door.call("tollgate_test_sleep", milliseconds=1000)) for _ in range(20)]
        await asyncio.sleep(0.05)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    await until(lambda: answers(door))  # PostgREST does not notice that its caller has left


@pytest.mark.parametrize(
    "url_of",
    [
        pytest.param(lambda cluster: cluster.url(user="guarded", password="wrong"), id="wrong password"),
        pytest.param(lambda cluster: cluster.url(user="nobody_here", password="x"), id="unknown user"),
        pytest.param(lambda cluster: cluster.url("no_such_database"), id="unknown database"),
        pytest.param(lambda cluster: cluster.url(), id="database without our schema"),
        pytest.param(lambda cluster: "postgresql://postgres@no-such-host.invalid/x", id="unknown host"),
    ],
)
async def test_a_login_that_postgres_refuses_is_unavailable(postgres: Cluster, url_of: object) -> None:
    assert callable(url_of)
    door = PostgresDoor(url_of(postgres), pool_size=2, deadline_seconds=30)
    assert isinstance(await refusal(door, "tollgate_health"), DatabaseUnavailable)
    await door.close()


async def test_a_login_with_a_password_works(postgres: Cluster, shared_database: str) -> None:
    url = postgres.url(shared_database.rsplit("/", 1)[1], "guarded", GUARDED_PASSWORD)
    door = PostgresDoor(url, pool_size=2, deadline_seconds=30)
    assert await door.call("tollgate_health")
    await door.close()


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(token("service_role", secret="another-secret-of-32-characters!!"), id="another project's key"),
        pytest.param(token("anon"), id="public key"),
        pytest.param("sb_secret_unknown", id="new key that this API does not know"),
        pytest.param("garbage", id="not a key"),
    ],
)
async def test_a_key_that_supabase_refuses_is_unavailable(supabase_api: Relay, key: str) -> None:
    http = Http()
    door = SupabaseDoor(f"http://127.0.0.1:{supabase_api.port}", key, http=http, deadline_seconds=30)
    assert isinstance(await refusal(door, "tollgate_balance", caller={}), DatabaseUnavailable)
    await http.close()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(http_answer("400 Bad Request", ""), id="an empty 400: a query severed by a dying Postgres"),
        pytest.param(http_answer("400 Bad Request", '{"code":"","message":""}'), id="a 400 with an empty code"),
        pytest.param(http_answer("401 Unauthorized", '{"message":"Invalid API key"}'), id="the gateway's 401"),
        pytest.param(http_answer("503 Service Unavailable", "<h1>503</h1>", "text/html"), id="a web page"),
        pytest.param(http_answer("503 Service Unavailable", '{"code":"PGRST001"}'), id="no connection to Postgres"),
        pytest.param(http_answer("504 Gateway Timeout", '{"code":"PGRST003"}'), id="pool exhausted"),
        pytest.param(http_answer("404 Not Found", '{"code":"PGRST202","message":"x"}'), id="schema cache stale"),
        pytest.param(http_answer("405 Method Not Allowed", '{"code":"25006","message":"x"}'), id="read-only"),
        pytest.param(http_answer("200 OK", "<h1>Hello</h1>", "text/html"), id="a web page with 200"),
        pytest.param(http_answer("200 OK", ""), id="an empty 200"),
        pytest.param(http_answer("200 OK", "[1]"), id="a list"),
        pytest.param(http_answer("204 No Content", ""), id="a 204"),
        pytest.param(http_answer("302 Found", ""), id="a redirect"),
        pytest.param(http_answer("200 OK", "[" * 100_000), id="nesting without end"),
        pytest.param(b"garbage\r\n\r\n", id="not HTTP"),
    ],
)
@pytest.mark.parametrize("wire", ["supabase"], indirect=True)
async def test_what_is_not_an_answer_of_ours_is_unavailable(door: Door, wire: Relay, answer: bytes) -> None:
    wire.canned = answer
    assert isinstance(await refusal(door, "tollgate_health"), DatabaseUnavailable)


@IMPATIENT
@ONE_DOOR
async def test_a_server_that_does_not_speak_postgres_is_unavailable(door: Door, wire: Relay) -> None:
    wire.canned = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    assert isinstance(await refusal(door, "tollgate_health"), DatabaseUnavailable)


@pytest.mark.parametrize("wire", ["supabase"], indirect=True)
async def test_supabase_is_asked_as_ourselves_and_never_as_a_browser(door: Door, wire: Relay) -> None:
    await door.call("tollgate_health")
    asked = b"".join(wire.seen).lower()
    assert f"user-agent: {USER_AGENT}\r\n".encode() in asked
    assert f"x-client-info: {USER_AGENT}\r\n".encode() in asked
    assert b"mozilla" not in asked


async def test_a_new_secret_key_travels_in_apikey_alone(supabase_api: Relay) -> None:
    supabase_api.restore()
    supabase_api.seen.clear()
    http = Http()
    door = SupabaseDoor(f"http://127.0.0.1:{supabase_api.port}", "sb_secret_x", http=http, deadline_seconds=30)
    await refusal(door, "tollgate_health")
    asked = b"".join(supabase_api.seen).lower()
    assert b"apikey: sb_secret_x\r\n" in asked
    assert b"authorization" not in asked
    await http.close()
