"""The rules of the catalog: names, prices and listings."""

import re
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.catalog import entries, rules
from tollgate.catalog.index import CatalogIndex
from tollgate.core.errors import BadRequest, CatalogUnavailable, ModelNotFound, ModelUnpriced
from tollgate.core.models import Model, Upstream
from tollgate.core.prices import Price
from tollgate.sandbox.models import MODELS

HOME = Upstream("openrouter", "openrouter", "https://openrouter.example/api/v1")
CHEAP = {"prompt": "0.000001", "completion": "0.000002"}
DEAR = {"prompt": "0.000003", "completion": "0.000001", "request": "0.5"}
A_ROUTE = {
    "model": "ours/small",
    "upstream_id": "ups_1",
    "upstream_model": "small-on-disk",
    "pricing": CHEAP,
    "context_tokens": 8192,
    "most_output": 1024,
    "priority": 50,
    "weight": 3,
    "listing": {},
    "created": 1_750_000_000,
}
AN_UPSTREAM = {
    "id": "ups_1",
    "dialect": "vllm",
    "base_url": "http://gpu.example/v1",
    "secret_name": "GPU_KEY",
    "concurrency": 8,
    "connect_seconds": 1,
    "first_byte_seconds": 30,
    "idle_seconds": 30,
    "health_path": "/health",
    "takes_org_keys": False,
}


def listed(name: str, pricing: Any = None, /, **more: Any) -> dict[str, Any]:
    return {"id": name, "pricing": CHEAP if pricing is None else pricing, **more}


def hosted(**change: Any) -> list[entries.Hosted]:
    return entries.hosted([A_ROUTE | change], [AN_UPSTREAM])


def index(
    *models: dict[str, Any], ours: list[entries.Hosted] | None = None, whole: bool = True, aliases: Any = ()
) -> CatalogIndex:
    return CatalogIndex(entries.intake(models)[0], ours or [], HOME, aliases=entries.aliases(aliases), whole=whole)


def an_alias(name: str, *targets: str, **change: Any) -> dict[str, Any]:
    """`targets` are models, with an upstream after a space."""
    named = [(*target.split(" "), None)[:2] for target in targets]
    of = [{"model": model, "weight": 1} | ({"upstream_id": upstream} if upstream else {}) for model, upstream in named]
    return {"name": name, "targets": of, "fallbacks": [], "description": "", **change}


def find(of: CatalogIndex, name: str, today: str = "2026-11-21") -> Model:
    found = of.find(name, lambda: today)
    assert isinstance(found, Model)
    return found


def chosen(of: CatalogIndex, name: str, chooser: str = "key", today: str = "2026-11-21") -> list[Model]:
    return rules.chosen(of.find(name, lambda: today), chooser)


def prompt_price(model: Model) -> Decimal:
    (route,) = model.routes
    assert route.price is not None
    return route.price.prompt


def test_a_model_is_found_by_its_id() -> None:
    model = find(index(listed("a/b", name="B")), "a/b")
    assert (model.id, model.listing["name"], model.routes[0].model) == ("a/b", "B", "a/b")
    assert model.routes[0].upstream is HOME
    assert prompt_price(model) == 1000


@pytest.mark.parametrize("name", ["a/b:nitro", "a/b:floor", "a/b:exacto", "a/b:online", "a/b:thinking", "a/b:extended",
                                  "a/b:batch", "a/b:online:nitro", "a/b-2025", "a/b-2025:nitro"])  # fmt: skip
def test_a_way_to_route_has_the_price_of_the_model_and_goes_upstream_as_it_was_written(name: str) -> None:
    model = find(index(listed("a/b", canonical_slug="a/b-2025")), name)
    assert (model.id, model.routes[0].model) == (name, name)
    assert prompt_price(model) == 1000


@pytest.mark.parametrize(
    "name",
    [
        "a/c",
        "a/b:free",
        "a/b:free:nitro",
        "a/b:cheap",
        "a/b:nitro:nitro",
        "a/b:",
        ":nitro",
        "",
        "A/B",
        "b",
        "~a/b-latest",
    ],
)
def test_what_is_not_listed_is_not_found(name: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        find(index(listed("a/b")), name)
    assert caught.value.facts["model"] == name
    assert caught.value.param == "model"


def test_a_variant_that_is_listed_itself_has_its_own_price() -> None:
    of = index(listed("a/b"), listed("a/b:free", {"prompt": "0", "completion": "0"}), listed("a/b:thinking", DEAR))
    assert prompt_price(find(of, "a/b:free")) == 0
    assert prompt_price(find(of, "a/b:online:free")) == 0
    assert find(of, "a/b:online:free").routes[0].model == "a/b:online:free"
    assert prompt_price(find(of, "a/b:thinking")) == 3000
    assert prompt_price(find(of, "a/b:nitro:thinking")) == 3000
    assert prompt_price(find(of, "a/b:nitro")) == 1000


def test_a_canonical_name_never_leads_to_the_free_variant() -> None:
    free = listed("a/b:free", {"prompt": "0", "completion": "0"}, canonical_slug="a/b-2025")
    both = index(free, listed("a/b", canonical_slug="a/b-2025"))
    assert prompt_price(find(both, "a/b-2025")) == 1000
    assert prompt_price(find(both, "a/b-2025:free")) == 0
    with pytest.raises(ModelNotFound):
        find(index(free), "a/b-2025")


def test_an_id_wins_over_another_models_canonical_name() -> None:
    of = index(listed("a/old", canonical_slug="a/b"), listed("a/b", DEAR))
    assert prompt_price(find(of, "a/b")) == 3000
    assert prompt_price(find(of, "a/b:nitro")) == 3000


def test_an_alias_without_a_price_has_that_of_what_it_stands_for() -> None:
    target = {"alias_target": {"slug": "a/b", "name": "B"}}
    of = index(listed("~a/b-latest", {}, **target), listed("~a/dear-latest", DEAR, **target), listed("a/b"))
    latest = find(of, "~a/b-latest")
    assert prompt_price(latest) == 1000
    assert latest.routes[0].model == "~a/b-latest"
    assert latest.listing["pricing"] == CHEAP
    assert prompt_price(find(of, "~a/dear-latest")) == 3000
    assert prompt_price(find(of, "~a/b-latest:nitro")) == 1000


def test_an_alias_of_nothing_is_unpriced() -> None:
    of = index(listed("~a/b-latest", {}, alias_target={"slug": "a/gone", "name": "B"}))
    assert find(of, "~a/b-latest").routes[0].price is None


def test_a_model_is_there_on_its_last_day_and_gone_after_it() -> None:
    of = index(listed("a/b", expiration_date="2026-11-21"), listed("a/c"))
    assert find(of, "a/b", "2026-11-21").id == "a/b"
    assert [model.id for model in of.offered("2026-11-21")] == ["a/b", "a/c"]
    for name in ("a/b", "a/b:nitro"):
        with pytest.raises(ModelNotFound) as caught:
            find(of, name, "2026-11-22")
        assert caught.value.facts == {"model": name, "expired_on": "2026-11-21"}
    assert [model.id for model in of.offered("2026-11-22")] == ["a/c"]


@pytest.mark.parametrize("day", [None, "", "soon", "2026-13-01", 20250601.5, [], {}])
def test_a_last_day_that_is_no_date_is_none(day: Any) -> None:
    assert find(index(listed("a/b", expiration_date=day)), "a/b").id == "a/b"


@pytest.mark.parametrize(
    "pricing",
    [
        {"prompt": "-1", "completion": "-1"},
        {"prompt": "1e-6", "completion": "-0.1"},
        {"prompt": "NaN"},
        {"prompt": "1e400"},
        {"prompt": "Infinity"},
        {"prompt": "free"},
        {"prompt": True},
        {"prompt": []},
        {"request": "1"},
        {},
        [],
        None,
        "0",
        {"prompt": "0", "overrides": 3},
        {"prompt": "0", "overrides": [{"prompt": "-1"}]},
    ],
)
def test_a_price_that_makes_no_sense_is_no_price_and_never_free(pricing: Any) -> None:
    model = find(index({"id": "a/b", "pricing": pricing}), "a/b")
    assert model.routes[0].price is None
    with pytest.raises(ModelUnpriced):
        rules.bound_price(model, None)


def test_prices_of_every_form_are_read_exactly() -> None:
    pricing = {"prompt": Decimal("0.000000000000000000000000000001"), "completion": 1, "request": "1e-12"}
    (route,) = find(index(listed("a/b", pricing)), "a/b").routes
    assert route.price == Price(prompt=Decimal("1e-21"), completion=Decimal(10**9), request=Decimal("0.001"))


def test_one_broken_entry_is_left_out_and_counted() -> None:
    broken = [
        None,
        5,
        "a/b",
        [],
        {},
        {"id": 5},
        {"id": ""},
        {"id": "a b"},
        {"id": "a\nb"},
        {"id": "a\0b"},
        {"id": "a" * 257},
    ]
    made, skipped = entries.intake([*broken, listed("a/b")])
    assert [entry.id for entry in made] == ["a/b"]
    assert skipped == len(broken)


def test_of_two_entries_with_one_id_the_first_counts() -> None:
    made, skipped = entries.intake([listed("a/b"), listed("a/b", DEAR)])
    assert [entry.listing["pricing"] for entry in made] == [CHEAP]
    assert skipped == 0


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        ({}, (None, None)),
        ({"context_length": None, "top_provider": None}, (None, None)),
        ({"context_length": 100, "top_provider": {"context_length": 200, "max_completion_tokens": 50}}, (200, 50)),
        ({"context_length": 100, "top_provider": {"context_length": None, "max_completion_tokens": None}}, (100, None)),
        ({"context_length": -1, "top_provider": {"max_completion_tokens": 0}}, (None, None)),
        ({"context_length": True, "top_provider": {"max_completion_tokens": "50"}}, (None, None)),
        ({"context_length": 10**30, "top_provider": []}, (None, None)),
    ],
)
def test_limits_that_are_missing_or_make_no_sense_are_none(given: dict[str, Any], limits: Any) -> None:
    (route,) = find(index(listed("a/b", **given)), "a/b").routes
    assert (route.context_tokens, route.most_output) == limits


def test_what_the_database_keeps_reads_back_as_it_was() -> None:
    odd = listed("a/b", canonical_slug="a/b-1", description="NUL \0, ü, 🙂, \\u0000", benchmarks={"a": Decimal("0.1")})
    made, _ = entries.intake([model.shown() for model in MODELS] + [odd])
    kept = [row["listing"] for row in entries.written(made)]
    assert entries.read_back(kept) == made
    assert [(row["id"], row["also"]) for row in entries.written(made)][-1] == ("a/b", "a/b-1")


def test_a_server_of_ours_serves_its_model_by_its_own_name() -> None:
    model = find(index(ours=hosted()), "ours/small")
    (route,) = model.routes
    assert (route.upstream.id, route.upstream.secret_name, route.model) == ("ups_1", "GPU_KEY", "small-on-disk")
    assert (route.context_tokens, route.most_output, route.weight) == (8192, 1024, 3)
    with pytest.raises(ModelNotFound):
        find(index(ours=hosted()), "ours/small:nitro")


def test_a_model_that_both_have_goes_by_priority() -> None:
    for priority, order in ((50, ["ups_1", "openrouter"]), (150, ["openrouter", "ups_1"])):
        model = find(index(listed("ours/small", DEAR), ours=hosted(priority=priority)), "ours/small")
        assert [route.upstream.id for route in model.routes] == order
        assert model.listing["pricing"] == DEAR
        assert rules.bound_price(model, None).prompt == 3000
        assert rules.bound_price(model, None).completion == 2000
    by_suffix = find(index(listed("ours/small"), ours=hosted()), "ours/small:nitro")
    assert [route.upstream.id for route in by_suffix.routes] == ["openrouter"]


def test_a_model_that_openrouter_took_away_stays_with_us() -> None:
    of = index(listed("ours/small", expiration_date="2026-01-01"), ours=hosted())
    assert [route.upstream.id for route in find(of, "ours/small").routes] == ["ups_1"]
    assert [model.id for model in of.offered("2026-11-21")] == ["ours/small"]


@pytest.mark.parametrize("change", [{"upstream_id": "ups_gone"}, {"pricing": {"prompt": "-1"}}])
def test_a_route_that_is_not_understood_is_left_out(change: dict[str, Any]) -> None:
    assert hosted(**change) == []


@pytest.mark.parametrize("dialect", ["openrouter", "of-tomorrow"])
def test_an_upstream_that_is_not_understood_is_left_out(dialect: str) -> None:
    assert entries.hosted([A_ROUTE], [AN_UPSTREAM | {"dialect": dialect}]) == []


def test_while_a_list_is_missing_nobody_says_that_there_is_no_such_model() -> None:
    of = index(ours=hosted(), whole=False)
    assert find(of, "ours/small").id == "ours/small"
    with pytest.raises(CatalogUnavailable):
        find(of, "a/b")


def test_a_router_is_bounded_by_what_the_client_pays_at_most() -> None:
    model = find(index(listed("a/auto", {"prompt": "-1", "completion": "-1"})), "a/auto")
    bound = rules.bound_price(model, {"prompt": 2, "completion": Decimal("8.5"), "image": "0.01", "sort": "price"})
    assert bound == Price(prompt=Decimal(2000), completion=Decimal(8500), image=Decimal(10_000_000))


@pytest.mark.parametrize("given", [None, {}, {"prompt": 1}, {"completion": 1}, {"prompt": None, "completion": 1}])
def test_a_router_without_a_whole_bound_is_refused(given: Any) -> None:
    model = find(index(listed("a/auto", {"prompt": "-1", "completion": "-1"})), "a/auto")
    with pytest.raises(ModelUnpriced) as caught:
        rules.bound_price(model, given)
    assert caught.value.facts == {"model": "a/auto"}


@pytest.mark.parametrize("most", [-1, "-0.1", "NaN", "1e400", "much", True, [], 10**7])
def test_a_bound_that_makes_no_sense_is_refused_by_name(most: Any) -> None:
    model = find(index(listed("a/auto", {"prompt": "-1", "completion": "-1"})), "a/auto")
    with pytest.raises(BadRequest) as caught:
        rules.bound_price(model, {"prompt": 1, "completion": most})
    assert caught.value.param == "provider.max_price.completion"


def test_a_listed_price_stands_whatever_the_client_pays_at_most() -> None:
    model = find(index(listed("a/b")), "a/b")
    assert rules.bound_price(model, {"prompt": 0, "completion": 0}).prompt == 1000


def test_the_bound_of_a_long_context_survives() -> None:
    pricing = CHEAP | {"overrides": [{"min_prompt_tokens": 1000, "prompt": "0.000009"}]}
    bound = rules.bound_price(find(index(listed("a/b", pricing)), "a/b"), None)
    assert (bound.at_worst(1000).prompt, bound.at_worst(1001).prompt) == (1000, 9000)


def test_what_is_shown_is_openrouters_and_openais_at_our_price() -> None:
    given = MODELS[0].shown()
    shown = rules.shown(find(index(given), given["id"]), 50_000)
    assert list(shown)[:4] == ["id", "object", "created", "owned_by"]
    assert (shown["object"], shown["owned_by"], shown["created"]) == ("model", "sandbox", given["created"])
    assert shown["pricing"] == {"prompt": "0.0000002625", "completion": "0.0000013125", "request": "0", "image": "0"}
    untouched = {
        name: value for name, value in shown.items() if name not in ("object", "owned_by", "pricing", "endpoints")
    }
    assert untouched == {name: value for name, value in given.items() if name != "pricing"}


@pytest.mark.parametrize("created", [None, "yesterday", Decimal("1.5"), ...])
def test_a_model_of_no_known_age_is_shown_with_a_number(created: Any) -> None:
    given = listed("a/b") | ({} if created is ... else {"created": created})
    assert rules.shown(find(index(given), "a/b"), 0)["created"] == 0


def test_a_model_of_ours_is_shown_in_the_same_shape() -> None:
    ours = hosted(listing={"name": "Small", "id": "other", "pricing": {}, "architecture": {"tokenizer": "Qwen"}})
    shown = rules.shown(find(index(ours=ours), "ours/small"), 100_000)
    assert set(shown) >= set(MODELS[0].shown()) | {"object", "owned_by"}
    assert (shown["id"], shown["name"], shown["owned_by"]) == ("ours/small", "Small", "ours")
    assert shown["pricing"] == {"prompt": "0.0000011", "completion": "0.0000022"}
    assert shown["top_provider"] == {"context_length": 8192, "max_completion_tokens": 1024, "is_moderated": False}
    assert shown["architecture"] == entries.DEFAULT_LISTING["architecture"] | {"tokenizer": "Qwen"}


@pytest.mark.parametrize(("name", "owner"), [("a/b", "a"), ("~a/b-latest", "a"), ("small", "self-hosted")])
def test_a_model_is_owned_by_its_author(name: str, owner: str) -> None:
    assert rules.owner(name) == owner


@pytest.mark.parametrize(
    ("architecture", "wanted", "given"),
    [
        ({"output_modalities": ["text", "image"]}, {"image"}, True),
        ({"output_modalities": ["embeddings"]}, {"text"}, False),
        ({"output_modalities": ["embeddings"]}, {"text", "embeddings"}, True),
        ({"output_modalities": None}, {"text"}, True),
        ({"output_modalities": [["text"]]}, {"text"}, False),
        (None, {"text"}, True),
        (None, {"image"}, False),
        ("text", {"text"}, True),
    ],
)
def test_models_are_told_apart_by_what_they_put_out(architecture: Any, wanted: set[str], given: bool) -> None:
    model = find(index(listed("a/b", architecture=architecture)), "a/b")
    assert rules.gives(model, frozenset(wanted)) is given


@given(st.lists(st.text("ab*", max_size=6), max_size=3), st.text("ab", max_size=8))
def test_patterns_fit_as_they_do_in_the_database(patterns: list[str], name: str) -> None:
    expressions = [".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns]
    assert rules.allowed(patterns, name) is any(re.fullmatch(expression, name) for expression in expressions)


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [("ab*ab", False), ("a*b", True), ("ab*", True), ("*ab", True), ("*a*b*", True), ("b*a", False), ("*", True)],
)
def test_what_stands_around_a_star_does_not_overlap(pattern: str, fits: bool) -> None:
    assert rules.allowed([pattern], "ab") is fits


def test_many_stars_take_no_time() -> None:
    assert not rules.allowed(["*a" * 100 + "b"], "a" * 256)


def test_without_patterns_all_is_allowed() -> None:
    assert rules.allowed(None, "a/b")
    assert not rules.allowed([], "a/b")


@given(st.dates(date(2020, 1, 1), date(2030, 1, 1)), st.dates(date(2020, 1, 1), date(2030, 1, 1)))
def test_days_are_compared_as_days(last: date, today: date) -> None:
    of = index(listed("a/b", expiration_date=f"{last.isoformat()}T00:00:00Z"))
    assert [model.id for model in of.offered(today.isoformat())] == (["a/b"] if today <= last else [])


def test_an_alias_stands_for_one_target_and_its_fallbacks() -> None:
    of = index(listed("a/b"), listed("a/c"), aliases=[an_alias("fast", "a/b", fallbacks=["a/c", "a/b"])])
    assert [model.id for model in chosen(of, "fast")] == ["a/b", "a/c"]


def test_keys_get_different_targets_and_each_always_the_same() -> None:
    of = index(listed("a/b"), listed("a/c"), aliases=[an_alias("fast", "a/b", "a/c"), an_alias("smart", "a/b", "a/c")])
    names = [chosen(of, "fast", f"key-{number}")[0].id for number in range(40)]
    assert set(names) == {"a/b", "a/c"}
    assert names == [chosen(of, "fast", f"key-{number}")[0].id for number in range(40)]
    assert names != [chosen(of, "smart", f"key-{number}")[0].id for number in range(40)], "each alias is drawn apart"


def test_a_target_may_be_one_upstream_of_a_model() -> None:
    ours = hosted(model="a/b")
    aliases = [an_alias("ours", "a/b ups_1"), an_alias("theirs", "a/b openrouter"), an_alias("nobodys", "a/b ups_2")]
    of = index(listed("a/b"), ours=ours, aliases=aliases)
    assert [route.upstream.id for route in chosen(of, "ours")[0].routes] == ["ups_1"]
    assert [route.upstream.id for route in chosen(of, "theirs")[0].routes] == ["openrouter"]
    with pytest.raises(ModelNotFound):
        chosen(of, "nobodys")


def test_an_alias_of_its_own_name_gives_a_model_fallbacks() -> None:
    of = index(listed("a/b"), listed("a/c"), aliases=[an_alias("a/b", "a/b", fallbacks=["a/c"])])
    assert [model.id for model in chosen(of, "a/b")] == ["a/b", "a/c"]


def test_a_target_that_is_not_served_is_left_out_and_the_last_one_says_why() -> None:
    expired = listed("a/old", expiration_date="2026-11-20")
    aliases = [an_alias("fast", "a/gone", "a/old", fallbacks=["a/b"]), an_alias("lost", "a/old")]
    of = index(listed("a/b"), expired, aliases=aliases)
    assert [model.id for model in chosen(of, "fast")] == ["a/b"]
    with pytest.raises(ModelNotFound) as caught:
        chosen(of, "lost")
    assert caught.value.facts == {"model": "a/old", "expired_on": "2026-11-20"}
    partly = index(ours=hosted(), whole=False, aliases=[an_alias("fast", "a/b", "ours/small")])
    assert [model.id for model in chosen(partly, "fast")] == ["ours/small"]


def test_an_alias_is_offered_with_the_listing_of_its_first_target() -> None:
    alias = an_alias("fast", "a/b", fallbacks=["a/c"], description="Quick.", deprecated_on="2026-11-01")
    of = index(listed("a/b", name="B"), listed("a/c"), aliases=[alias, an_alias("lost", "a/gone")])
    offered = of.offered("2026-11-21")
    assert [model.id for model in offered] == ["a/b", "a/c", "fast"]
    shown = rules.shown(offered[-1], 0)
    assert (shown["id"], shown["name"], shown["description"]) == ("fast", "B", "Quick.")
    assert shown["alias_of"] == ["a/b", "a/c"]
    assert shown["deprecation"] == {"deprecated_on": "2026-11-01", "retires_on": None, "replacement": None}
    assert rules.may_use(["a/*"], offered[-1])
    assert not rules.may_use(["fast", "a/b"], offered[-1]), "an alias allows nothing by itself"


def test_a_route_serves_until_its_last_day_and_then_names_its_replacement() -> None:
    of = index(ours=hosted(deprecated_on="2026-11-01", retires_on="2026-11-30", replacement="ours/next"))
    model = find(of, "ours/small", "2026-11-30")
    assert model.retirement == ("2026-11-01", "2026-11-30", "ours/next")
    assert model.listing["expiration_date"] == "2026-11-30"
    with pytest.raises(ModelNotFound) as caught:
        find(of, "ours/small", "2026-12-01")
    assert caught.value.facts == {"model": "ours/small", "expired_on": "2026-11-30", "replacement": "ours/next"}
    assert str(caught.value) == "The model ours/small expired on 2026-11-30. Use ours/next instead."
    assert (len(of.offered("2026-11-30")), of.offered("2026-12-01")) == (1, ())


def test_a_model_with_another_route_outlives_one_of_them() -> None:
    of = index(listed("ours/small"), ours=hosted(retires_on="2026-11-30"))
    assert find(of, "ours/small").retirement is None
    assert [route.upstream.id for route in find(of, "ours/small", "2026-12-01").routes] == ["openrouter"]


def test_an_alias_that_is_over_is_refused_and_not_offered() -> None:
    alias = an_alias("fast", "a/b", retires_on="2026-11-20", replacement="a/b")
    of = index(listed("a/b"), aliases=[alias])
    with pytest.raises(ModelNotFound) as caught:
        chosen(of, "fast")
    assert caught.value.facts == {"model": "fast", "expired_on": "2026-11-20", "replacement": "a/b"}
    assert [model.id for model in of.offered("2026-11-21")] == ["a/b"]


@pytest.mark.parametrize(
    ("dialect", "translated", "missing"),
    [
        ("vllm", (), ()),
        ("openai", ("responses", "messages"), ()),
        ("anthropic", ("responses",), ("completions",)),
        ("openai-platform", ("messages",), ()),
        ("groq", ("responses", "messages"), ("completions",)),
    ],
)
def test_a_model_tells_its_endpoints(dialect: str, translated: tuple[str, ...], missing: tuple[str, ...]) -> None:
    ours = entries.hosted([A_ROUTE], [AN_UPSTREAM | {"dialect": dialect}])
    shown = {one["path"]: one["served"] for one in rules.shown(find(index(ours=ours), "ours/small"), 0)["endpoints"]}
    assert shown["/v1/chat/completions"] == "passed"
    assert {path for path, how in shown.items() if how == "translated"} == {
        f"/v1/{name}" for name in (*translated, "generate")
    }
    assert all(f"/v1/{name}" not in shown for name in (*missing, "embeddings"))
    counts = "passed" if dialect in ("vllm", "anthropic") else "estimated"
    assert shown["/v1/messages/count_tokens"] == counts


@pytest.mark.parametrize(
    ("output", "dialect", "served"),
    [
        ("embeddings", "llamacpp", ["/v1/embeddings"]),
        ("rerank", "vllm", ["/v1/rerank"]),
        ("moderation", "openai", ["/v1/moderations"]),
        ("transcription", "openai", ["/v1/audio/transcriptions", "/v1/audio/translations"]),
        ("moderation", "vllm", []),
    ],
)
def test_a_model_of_our_own_server_tells_the_endpoints_of_what_it_puts_out(
    output: str, dialect: str, served: list[str]
) -> None:
    route = A_ROUTE | {"listing": {"architecture": {"output_modalities": [output]}}}
    model = find(index(ours=entries.hosted([route], [AN_UPSTREAM | {"dialect": dialect}])), "ours/small")
    assert rules.endpoints_of(model) == [{"path": path, "served": "passed"} for path in served]
    assert model.listing["architecture"]["modality"] == f"text->{output}"


@pytest.mark.parametrize("written", ["text", None, {"output_modalities": "text"}, {"input_modalities": [1]}])
def test_an_architecture_that_was_written_by_hand_breaks_nothing(written: Any) -> None:
    route = A_ROUTE | {"listing": {"architecture": written}}
    shown = rules.shown(find(index(ours=entries.hosted([route], [AN_UPSTREAM])), "ours/small"), 0)
    assert shown["architecture"].keys() == entries.DEFAULT_LISTING["architecture"].keys()


def test_a_model_of_embeddings_is_served_there_alone() -> None:
    model = find(index(listed("a/e", architecture={"output_modalities": ["embeddings"]})), "a/e")
    assert rules.endpoints_of(model) == [{"path": "/v1/embeddings", "served": "passed"}]
