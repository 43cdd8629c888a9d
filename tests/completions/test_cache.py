"""The completion cache as clients meet it: what is answered from it, to whom, and what that costs."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from completions.paid import Turnstile
from completions.stage import Stage, before, erring, staged
from gateway import Upstream
from people import Person
from sandbox.serving import a_chat, payloads, serving, until
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.sandbox.app import create_sandbox
from tollgate.sandbox.state import Habits
from turns import not_at_the_end_of

CACHE = "x-tollgate-cache"


@pytest.fixture(scope="module")
async def stage(shared_database: str) -> AsyncIterator[Stage]:
    with erring(["status=400", "status=502", "cut=2"]) as upstream, before(upstream, shared_database) as gateway:
        async with staged(gateway, shared_database) as made:
            yield made


def came(stage: Stage) -> int:
    """How many calls the upstream has answered."""
    return len(stage.gateway.upstream.generations())


async def clear(stage: Stage, **filters: str) -> int:
    found = await stage.door.call("tollgate_clear_cache", caller={"console": "tests"}, filters=filters)
    return int(found["cleared"])


def came_in(gate: Turnstile, many: int) -> Callable[[], Awaitable[bool]]:
    async def have() -> bool:
        return gate.came >= many

    return have


KINDS = {
    "plain": ("/v1/chat/completions", a_chat("Sing.", cache=True)),
    "stream": ("/v1/chat/completions", a_chat("Sing.", cache=True, stream=True)),
    "stream without usage": (
        "/v1/completions",
        {"model": "sandbox/echo", "prompt": "x", "cache": True, "stream": True},
    ),
    "embeddings": ("/v1/embeddings", {"model": "sandbox/embed", "input": ["x"], "cache": True}),
    "responses": ("/v1/responses", {"model": "sandbox/echo", "input": "x", "cache": True, "stream": True}),
    "messages": (
        "/v1/messages",
        {
            "model": "sandbox/echo",
            "max_tokens": 9,
            "messages": [{"role": "user", "content": "x"}],
            "cache": True,
            "stream": True,
        },
    ),
}


@pytest.mark.parametrize(("path", "body"), KINDS.values(), ids=KINDS)
async def test_an_identical_request_is_answered_from_the_cache_for_nothing(
    stage: Stage, path: str, body: dict[str, Any]
) -> None:
    someone = await stage.customer()
    first = await stage.post(someone, body, path)
    assert (first.status_code, first.headers[CACHE]) == (200, "miss"), first.text
    cost = int(first.headers["x-tollgate-charge-nanos"]) if not body.get("stream") else await stage.charged(someone)
    assert cost > 0
    before_it = came(stage)
    again = await stage.post(someone, body, path)
    assert (again.status_code, again.headers[CACHE]) == (200, "hit"), again.text
    assert came(stage) == before_it
    assert again.headers["x-tollgate-charge-nanos"] == "0"
    assert again.headers["x-tollgate-balance-nanos"] == str(NANOS_PER_CREDIT - cost)
    assert again.headers["content-type"] == first.headers["content-type"]
    assert int(again.headers["age"]) >= 0
    assert await stage.charged(someone) == cost
    missed, hit = await stage.rows(someone)
    assert (missed["cached"], hit["cached"]) == (False, True)
    assert hit["id"] == again.headers["x-tollgate-request-id"]
    assert (hit["state"], hit["charge_nanos"], hit["cost_nanos"], hit["status"]) == ("settled", 0, 0, 200)
    assert hit["served_model"] == missed["served_model"]
    assert await stage.money(someone) == (NANOS_PER_CREDIT - cost, 0)


async def test_a_hit_states_its_own_charge_and_is_otherwise_the_same_answer(stage: Stage) -> None:
    someone = await stage.customer()
    first = (await stage.post(someone, a_chat("Hum.", cache=True))).json()
    again = (await stage.post(someone, a_chat("Hum.", cache=True))).json()
    assert first["usage"]["cost"] > 0
    assert again["usage"]["cost"] == 0
    for answer in (first, again):
        del answer["usage"]["cost"]
        answer["usage"].pop("cost_details", None)
    assert first == again


async def test_a_stream_is_replayed_as_a_stream_with_the_charge_for_those_who_ask(stage: Stage) -> None:
    someone = await stage.customer()
    body, wants = a_chat("Whistle.", cache=True, stream=True), {"x-tollgate-usage": "true"}
    first = payloads((await stage.post(someone, body, **wants)).text)
    again = await stage.post(someone, body, **wants)
    shown = payloads(again.text)
    assert shown[:-2] == first[:-2]
    assert shown[-1] == "[DONE]"
    told = json.loads(shown[-2])["usage"]["tollgate"]
    assert (told["charge_nanos"], told["request_id"]) == (0, again.headers["x-tollgate-request-id"])


async def test_nothing_is_cached_unless_asked_for_and_our_field_never_goes_upstream(stage: Stage) -> None:
    someone = await stage.customer()
    for body in (a_chat("Quiet."), a_chat("Quiet.", cache=False), a_chat("Quiet.")):
        answer = await stage.post(someone, body)
        assert CACHE not in answer.headers
    assert [row["cached"] for row in await stage.rows(someone)] == [None] * 3
    await stage.post(someone, a_chat("Quiet.", cache=True))
    await stage.post(someone, a_chat("Quiet.", cache={"theirs": 1}))
    mine, theirs = [one["parameters"] for one in stage.gateway.upstream.generations()[-2:]]
    assert "cache" not in mine
    assert theirs["cache"] == {"theirs": 1}
    assert await stage.sql("select count(*) from tollgate.cache_entries where org_id = $1", someone.org_id) == 1


async def test_the_header_says_to_read_to_write_or_neither(stage: Stage) -> None:
    someone = await stage.customer()

    async def ask(wish: str, **more: str) -> str | None:
        answer = await stage.post(someone, a_chat("Drum.", cache=True), **{CACHE: wish}, **more)
        assert answer.status_code == 200, answer.text
        return answer.headers.get(CACHE)

    assert await ask("read") == "miss"
    assert await ask("read") == "miss"
    assert await ask("off") is None
    assert await ask("write, ttl=60") == "miss"
    assert await ask("read") == "hit"
    assert await ask("write") == "miss"
    assert await ask("on") == "hit"
    assert await ask("on", **{"cache-control": "no-cache"}) == "miss"
    assert await ask("on", **{"cache-control": "no-store"}) is None


@pytest.mark.parametrize(
    "wish", ["", "yes", "on, off", "read, ttl=0", "ttl=604801", "ttl=-1", "on, ttl=1, ttl=2", "off, ttl=x"]
)
async def test_an_unreadable_wish_is_refused_with_what_to_send(stage: Stage, wish: str) -> None:
    someone = await stage.customer()
    answer = await stage.post(someone, a_chat(), **{CACHE: wish})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_request", "X-Tollgate-Cache")
    assert await stage.rows(someone) == []


async def test_two_orgs_never_share_an_entry_and_two_keys_of_one_org_do(stage: Stage) -> None:
    first, other = await stage.customer(), await stage.customer()
    body = a_chat("A secret of the first.", cache=True)
    await stage.post(first, body)
    assert (await stage.post(other, body)).headers[CACHE] == "miss"
    colleague = await stage.customer(nanos=0)
    await stage.sql("update tollgate.users set org_id = $1 where id = $2", first.org_id, colleague.user_id)
    assert (await stage.post(colleague, body)).headers[CACHE] == "hit"
    await stage.sql("update tollgate.users set org_id = $1 where id = $2", colleague.org_id, colleague.user_id)


async def test_a_hit_needs_a_key_that_may_call_and_takes_from_its_limits(stage: Stage) -> None:
    someone = await stage.customer()
    body = a_chat("Limited.", cache=True)
    await stage.post(someone, body)
    await stage.sql(
        "update tollgate.api_keys set limits = row(3, null, null, null, null, null)::tollgate.limits where id = $1",
        someone.key_id,
    )
    left = [(await stage.post(someone, body)).headers["x-ratelimit-remaining-requests"] for _ in range(3)]
    assert left == ["2", "1", "0"]
    refused = await stage.post(someone, body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    await stage.sql("update tollgate.api_keys set limits = null, disabled_at = now() where id = $1", someone.key_id)
    assert (await stage.post(someone, body)).status_code == 401
    stranger = Person(stage.door)
    assert (await stage.post(stranger, body)).status_code == 401


async def test_a_share_of_the_charge_is_posted_and_needs_credits(stage: Stage, shared_database: str) -> None:
    body = a_chat("Dear.", cache=True)
    with before(stage.gateway.upstream, shared_database, CACHE_HIT_SHARE="0.25") as gateway:
        someone = await stage.customer(markup_ppm=100_000)
        first = await gateway.post(someone, body)
        charge = int(first.headers["x-tollgate-charge-nanos"])
        again = await gateway.post(someone, body)
        share = -(-charge // 4)
        assert (again.headers[CACHE], again.headers["x-tollgate-charge-nanos"]) == ("hit", str(share))
        assert again.json()["usage"]["cost"] == pytest.approx(share / NANOS_PER_CREDIT)
        assert await stage.charged(someone) == charge + share
        await stage.sql(
            "update tollgate.api_keys set budget_nanos = 1, budget_reset = 'never' where id = $1", someone.key_id
        )
        assert (await gateway.post(someone, body)).json()["error"]["code"] == "key_budget_exhausted"


UNSTORED = {
    "a refusal": (a_chat(model="sandbox/fault-status=400"), 400),
    "a failure": (a_chat(model="sandbox/fault-status=502"), 502),
    "a tool call": (
        a_chat(model="sandbox/tools", tools=[{"type": "function", "function": {"name": "look", "parameters": {}}}]),
        200,
    ),
}


@pytest.mark.parametrize(("body", "status"), UNSTORED.values(), ids=UNSTORED)
async def test_what_failed_or_calls_a_tool_is_not_stored(stage: Stage, body: dict[str, Any], status: int) -> None:
    someone = await stage.customer()
    for _ in range(2):
        answer = await stage.post(someone, {**body, "cache": True})
        assert answer.status_code == status, answer.text
        assert answer.headers.get(CACHE, "miss") == "miss"
    entries = await stage.sql(
        "select count(*) from tollgate.cache_entries where org_id = $1 and request_id is not null", someone.org_id
    )
    assert entries == 0


async def test_an_answer_cut_by_the_balance_or_at_all_is_not_stored(stage: Stage) -> None:
    poor = await stage.customer(nanos=200_000)
    words = a_chat(model="sandbox/words", cache=True)
    assert (await stage.post(poor, words)).headers[CACHE] == "miss"
    cut = await stage.post(poor, a_chat(model="sandbox/fault-cut=2", stream=True, cache=True, max_tokens=9))
    assert "upstream_cut" in cut.text
    entries = await stage.sql(
        "select count(*) from tollgate.cache_entries where org_id = $1 and request_id is not null", poor.org_id
    )
    assert entries == 0


async def test_a_search_and_a_free_count_bypass_the_cache(stage: Stage) -> None:
    someone = await stage.customer()
    searching = a_chat(plugins=[{"id": "web"}], cache=True)
    assert (await stage.post(someone, searching)).headers[CACHE] == "bypass"
    counting = {"model": "sandbox/echo", "messages": [{"role": "user", "content": "x"}], "cache": True}
    assert (await stage.post(someone, counting, "/v1/messages/count_tokens")).headers[CACHE] == "bypass"


async def test_an_idempotency_key_gets_its_own_answer_and_not_that_of_the_cache(stage: Stage) -> None:
    someone = await stage.customer()
    body = a_chat("Once.", cache=True)
    await stage.post(someone, body)
    mine = await stage.post(someone, body, **{"idempotency-key": "mine"})
    assert mine.headers[CACHE] == "miss"
    again = await stage.post(someone, body, **{"idempotency-key": "mine"})
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == mine.json()


async def test_the_setting_of_an_org_or_a_key_caches_what_is_the_same_each_time(stage: Stage) -> None:
    someone = await stage.customer()
    cold = a_chat("By setting.", temperature=0)

    async def ask(body: dict[str, Any]) -> str | None:
        return (await stage.post(someone, body)).headers.get(CACHE)

    assert await ask(cold) is None
    await stage.sql("update tollgate.orgs set cache = true where id = $1", someone.org_id)
    await ask(a_chat("Something else."))  # this process learns it with the next answer
    assert [await ask(cold), await ask(cold)] == ["miss", "hit"]
    assert [await ask(a_chat("Warm.", temperature=0.1)), await ask(a_chat("Unsaid."))] == [None, None]
    assert await ask({**cold, "cache": False}) is None
    await stage.sql("update tollgate.api_keys set cache = false where id = $1", someone.key_id)
    assert [await ask(cold), await ask(cold)] == [None, None]


async def test_clearing_takes_effect_at_once_also_for_an_answer_on_its_way(stage: Stage, shared_database: str) -> None:
    someone = await stage.customer()
    gate = Turnstile(create_sandbox(Habits(generation_delay_seconds=0.0)))
    with serving(gate) as address, before(Upstream(gate.app, address), shared_database) as gateway:
        bodies = [a_chat("One.", cache=True), a_chat("Two.", cache=True, model="sandbox/words", max_tokens=3)]
        for body in bodies:
            await gateway.post(someone, body)
        assert await clear(stage, org_id=someone.org_id, model="sandbox/words") == 1
        assert [(await gateway.post(someone, body)).headers[CACHE] for body in bodies] == ["hit", "miss"]
        assert await clear(stage, key_id=someone.key_id) == 2

        gate.is_open, gate.came = False, 0
        under_way = asyncio.create_task(gateway.post(someone, bodies[0]))
        await until(came_in(gate, 1))
        await clear(stage, org_id=someone.org_id)
        gate.is_open = True
        assert (await under_way).headers[CACHE] == "miss"
        assert (await gateway.post(someone, bodies[0])).headers[CACHE] == "miss"
    await sizes_agree(stage, someone)
    event = await stage.sql(
        "select details::text from tollgate.audit_events where action = 'cache.cleared' and org_id = $1 and"
        " details ? 'model'",
        someone.org_id,
    )
    assert json.loads(event) == {"org_id": someone.org_id, "model": "sandbox/words", "cleared": 1}


async def sizes_agree(stage: Stage, someone: Person) -> tuple[int, int]:
    """What the cache has of an org, and that its size is known."""
    counted = await stage.sql(
        "select array[count(*), coalesce(sum(bytes), 0)] from tollgate.cache_entries"
        " where org_id = $1 and request_id is not null",
        someone.org_id,
    )
    assert counted == await stage.sql(
        "select array[entries, bytes] from tollgate.cache_sizes where org_id = $1", someone.org_id
    )
    return int(counted[0]), int(counted[1])


async def test_an_answer_expires_and_is_deleted(stage: Stage) -> None:
    someone = await stage.customer()
    body = a_chat("Fleeting.", cache=True)
    await stage.post(someone, body, **{CACHE: "on, ttl=60"})
    await stage.post(someone, a_chat("Lasting."), **{CACHE: "on, ttl=3600"})
    left = await stage.sql(
        "select array_agg(round(extract(epoch from expires_at - filled_at)) order by expires_at)"
        " from tollgate.cache_entries where org_id = $1",
        someone.org_id,
    )
    assert left == [60, 3600]
    past = (
        "update tollgate.cache_entries set expires_at = now()"
        " where org_id = $1 and expires_at < now() + interval '2 minutes'"
    )
    await stage.sql(past, someone.org_id)
    again = [(await stage.post(someone, body, **{CACHE: "on, ttl=60"})).headers[CACHE] for _ in range(2)]
    assert again == ["miss", "hit"]
    await stage.sql(past, someone.org_id)
    while (await stage.door.call("tollgate_drop_expired_cached", page_size=1))["more"]:
        pass
    assert (await sizes_agree(stage, someone))[0] == 1


async def test_the_oldest_answers_of_an_org_make_room_and_too_large_ones_are_not_stored(
    stage: Stage, shared_database: str
) -> None:
    someone, other = await stage.customer(), await stage.customer()
    bodies = [a_chat(f"{number}. " + "word " * 100, cache=True) for number in range(6)]
    await stage.post(other, bodies[0])
    await stage.post(someone, bodies[0])
    _, each = await sizes_agree(stage, someone)
    limits = {"CACHE_MAX_ORG_BYTES": str(3 * each + each // 2), "CACHE_MAX_ANSWER_BYTES": str(each)}
    with before(stage.gateway.upstream, shared_database, **limits) as gateway:
        for body in bodies[1:]:
            await gateway.post(someone, body)
        found = [(await gateway.post(someone, body, **{CACHE: "read"})).headers[CACHE] for body in bodies]
        assert found == ["miss"] * 3 + ["hit"] * 3
        assert (await gateway.post(other, bodies[0])).headers[CACHE] == "hit"
        large = a_chat("word " * 500, cache=True)
        assert [(await gateway.post(someone, large)).headers[CACHE] for _ in range(2)] == ["miss", "miss"]
    entries, size = await sizes_agree(stage, someone)
    assert (entries, size <= int(limits["CACHE_MAX_ORG_BYTES"])) == (3, True)
    with before(stage.gateway.upstream, shared_database, CACHE_MAX_ORG_BYTES="0") as off:
        assert CACHE not in (await off.post(someone, bodies[5])).headers


async def test_operators_see_clear_and_list_what_came_from_the_cache(stage: Stage) -> None:
    await not_at_the_end_of("day")  # the figures are of one day
    someone, operator = await stage.customer(), await stage.customer(role="admin")

    async def ask(method: str, path: str, **more: Any) -> Any:
        url, bearer = stage.gateway.address + path, {"authorization": f"Bearer {operator.secret}"}
        answer = await stage.http.request(method, url, headers=bearer, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    for words in ("One.", "One.", "One.", "Two."):
        await stage.post(someone, a_chat(words, cache=True))
    charge = (await stage.rows(someone))[0]["charge_nanos"]
    stats = await ask("GET", f"/admin/cache?org_id={someone.org_id}&days=1")
    figures = {"hits": 2, "misses": 2, "hit_rate": 0.5, "saved_nanos": 2 * charge}
    (model,) = stats["models"]
    assert figures.items() <= stats.items()
    assert figures.items() <= model.items()
    assert (model["model"], stats["entries"], stats["redis"]) == ("sandbox/echo", 2, "not_configured")
    assert stats["bytes"] == (await sizes_agree(stage, someone))[1]

    log = await ask("GET", f"/v1/admin/logs?org_id={someone.org_id}&cached=true")
    assert [row["cached"] for row in log["data"]] == [True, True]
    one = await ask("GET", f"/admin/usage/{log['data'][0]['id']}")
    assert (one["settlement"]["basis"], one["charge_nanos"]) == ("cache", 0)
    shown = (await ask("GET", "/admin/monitor"))["cache"]
    (today,) = [one for one in shown["models"] if one["model"] == "sandbox/echo"]
    assert shown["hits"] >= today["hits"] >= 2
    assert today["hit_rate"] == pytest.approx(today["hits"] / (today["hits"] + today["misses"]), abs=1e-4)
    bearer = {"authorization": f"Bearer {operator.secret}"}
    metrics = (await stage.http.get(f"{stage.gateway.address}/metrics", headers=bearer)).text
    assert 'tollgate_cache_lookups_total{model="sandbox/echo",result="hit"}' in metrics

    assert await ask("POST", "/admin/cache/warm") == {"warmed": 0, "redis": "not_configured"}
    assert await ask("DELETE", f"/admin/cache?org_id={someone.org_id}&model=sandbox/words") == {"cleared": 0}
    assert await ask("DELETE", f"/admin/cache?org_id={someone.org_id}") == {"cleared": 2}
    for term, path in (("cache", f"/admin/orgs/{someone.org_id}"), ("cache", f"/admin/keys/{someone.key_id}")):
        assert (await ask("PATCH", path, json={term: True}))[term] is True
        assert (await ask("GET", path))[term] is True
    assert (await ask("PATCH", f"/admin/keys/{someone.key_id}", json={"cache": None}))["cache"] is None
    refused = await stage.http.get(
        stage.gateway.address + "/admin/cache", headers={"authorization": f"Bearer {someone.secret}"}
    )
    assert refused.status_code == 403
