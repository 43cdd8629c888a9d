"""One name and one shape for one thing, in every answer and every query of the document."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ValidationError

from journeys.walk import operations, whole_document
from tollgate.admin.schemas.credits import Adjustment, Grant, Refund
from tollgate.admin.schemas.limits import NewLimits
from tollgate.admin.schemas.plans import PlanAssignment
from tollgate.admin.schemas.registry import PutRoute
from tollgate.admin.schemas.upstreams import NewUpstream
from tollgate.alerts.channels import check_fields
from tollgate.alerts.schemas import NewChannel
from tollgate.completions import openapi as paid
from tollgate.completions.openapi import ERROR_SHAPES
from tollgate.core.errors import BadRequest
from tollgate.keys.schemas import KeyChanges, NewKey, NewKeyForUser
from tollgate.sessions.schemas import SignIn
from tollgate.web.error_responses import shape_of_path
from tollgate.web.faults import PATTERNS

SHAPES_OF_OPENROUTER = {
    *("/v1/models", "/v1/models/{model}", "/v1/models/{author}/{slug}/endpoints"),
    *("/v1/models/count", "/v1/models/user"),
}
"""Paths that answer in the shape of another API."""


class Answer(NamedTuple):
    where: str
    fields: dict[str, Any]


class Place(NamedTuple):
    method: str
    path: str
    operation: dict[str, Any]

    @property
    def query(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in self.operation.get("parameters", []) if one["in"] == "query"}


@cache
def ours() -> list[Place]:
    """The operations whose shapes are our own: not those of paid calls and lists of models."""
    return [
        Place(method, path, operation)
        for path, operations in whole_document()["paths"].items()
        if path not in {*paid.paths(), *SHAPES_OF_OPENROUTER} and not path.startswith("/api/v1/")
        for method, operation in operations.items()
    ]


def answers() -> Iterator[Answer]:
    """Each object of each successful answer, once."""
    schemas, seen = whole_document()["components"]["schemas"], set[str]()
    waiting = [
        content.get("schema", {})
        for place in ours()
        for status, response in place.operation["responses"].items()
        if status.startswith("2")
        for content in response.get("content", {}).values()
    ]
    while waiting:
        for name in references(waiting.pop()) - seen:
            seen.add(name)
            waiting.append(schemas[name])
            yield Answer(name, schemas[name].get("properties", {}))


def references(schema: Any) -> set[str]:
    """The components that a schema names."""
    if isinstance(schema, list):
        return set().union(*map(references, schema))
    if not isinstance(schema, dict):
        return set()
    named = {schema["$ref"].rsplit("/", 1)[-1]} if "$ref" in schema else set[str]()
    return named.union(*(references(part) for part in schema.values()))


def kinds(field: dict[str, Any]) -> list[dict[str, Any]]:
    """The types that a field may have, without null."""
    return [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]


def types(field: dict[str, Any]) -> list[str]:
    return [kind["type"] for kind in kinds(field)]


def amount_of(name: str) -> str:
    """The name of the same amount as a decimal string."""
    return "credits" if name == "credits_nanos" else f"{name.removesuffix('_nanos')}_credits"


def test_there_is_enough_to_look_at() -> None:
    assert len(ours()) > 60
    assert len(list(answers())) > 60


def test_each_amount_is_an_integer_of_nanos_and_a_decimal_string() -> None:
    wrong = []
    for where, fields in answers():
        nanos = {name for name in fields if name.endswith("nanos")}
        decimals = {name for name in fields if name == "credits" or name.endswith("_credits")}
        wrong += [f"{where}.{name}" for name in {amount_of(name) for name in nanos} ^ decimals]
        wrong += [f"{where}.{name}" for name in nanos if types(fields[name]) != ["integer"]]
        wrong += [f"{where}.{name}" for name in decimals if types(fields[name]) != ["string"]]
    assert not wrong


def test_each_time_is_a_moment() -> None:
    wrong = []
    for where, fields in answers():
        for name, field in fields.items():
            is_a_time = name.endswith(("_at", "_until", "_since")) or name in {"at", "from", "to", "start", "timestamp"}
            if ([kind.get("format") for kind in kinds(field)] == ["date-time"]) != is_a_time:
                wrong.append(f"{where}.{name}")
    assert not wrong


PERIOD = {"from", "to", "hours"}
OF_EVERY_LIST = {"limit", "cursor", "offset"}
PART_OF_A_FIELD = {
    "q": "a search over several fields",
    "include": "what to show",
    "prompt_cached": "whether cached_tokens is above 0",
    "acknowledged": "whether acknowledged_at is set",
    "actor_id": "the id in actor",
    "alert_id": "the id of one of the alerts in content",
    "model": "one of targets and fallbacks, of aliases",
    "for_org": "whose markup the prices have",
    "for_plan": "whose markup the prices have",
    "everyone": "whether to show other users' sessions",
    "min_nanos": "a bound of amount_nanos",
    "max_nanos": "a bound of amount_nanos",
}


def lists() -> Iterator[tuple[Place, dict[str, Any], dict[str, Any]]]:
    """Each operation that answers with a page, the fields of the page and those of its entries."""
    schemas = whole_document()["components"]["schemas"]
    for place in ours():
        content = place.operation["responses"].get("200", {}).get("content", {}).get("application/json", {})
        page = schemas.get(content.get("schema", {}).get("$ref", "").rsplit("/", 1)[-1], {}).get("properties", {})
        if "next_cursor" in page:
            entry = page["data"]["items"]["$ref"].rsplit("/", 1)[-1]
            yield place, page, schemas[entry]["properties"]


def test_a_period_is_given_the_same_way_everywhere() -> None:
    for place in ours():
        assert not PERIOD & set(place.query) or set(place.query) >= PERIOD, place.path


def test_a_filter_has_the_name_of_the_field_it_filters() -> None:
    for place, _, entry in lists():
        if "by" not in place.query:
            filters = set(place.query) - PERIOD - OF_EVERY_LIST - {"sort", *PART_OF_A_FIELD}
            assert filters <= set(entry), place.path


def test_every_list_has_the_same_pages() -> None:
    for place, page, _ in lists():
        assert set(place.query) >= OF_EVERY_LIST, place.path
        assert types(page["next_cursor"]) == ["string"], place.path
        assert "total" not in page or page["total"]["type"] == "integer", place.path


def test_lists_are_sorted_by_a_field_and_a_direction() -> None:
    for place, _, _ in lists():
        for kind in kinds(place.query["sort"]["schema"]) if "sort" in place.query else []:
            assert all(re.fullmatch(r"[a-z_]+:(asc|desc)", word) for word in kind["enum"]), place.path


NOT_CREATING = {
    "disable": "sets a state",
    "enable": "sets a state",
    "rotate": "a key that was rotated is refused the next time, and of a host only the last enrolment works",
    "assign-plan": "sets the plan",
    "warm": "copies what is stored",
    "audit": "reads the books",
    "limit": "sets all limits",
    "refresh-health": "checks again",
    "refresh-models": "reads the list again",
    "aliases": "changes the alias of the same name",
    "registry": "changes the route of the same model and upstream",
    "acknowledge": "sets a state",
    "rules": "refuses an id that is taken",
    "reset": "sets a state",
    "resend": "sends the same delivery again",
    "sign-in": "starts one more session, which ends by itself",
    "sign-out": "ends a session",
    "sign-in-link": "creates one more link, which expires by itself",
    "password": "sets it",
    "cordon": "sets a state",
    "uncordon": "sets a state",
    "retire": "sets a state",
    "enrolments": "ends the one before, and expires by itself",
    "start": "sets a state",
    "stop": "sets a state",
    "apply": "starts the model again",
    "archive": "sets a state",
    "download": "sets a state",
    "dry-run": "starts nothing",
    "run": "replaces the outcome",
    "test": "asks again",
    "enrol": "a token works once",
    "sync": "has a number of its own",
    "{task_id}": "the first result counts",
}


def test_every_post_that_creates_takes_an_idempotency_key() -> None:
    for place in ours():
        if place.method == "post":
            headers = {one["name"] for one in place.operation.get("parameters", []) if one["in"] == "header"}
            assert ("Idempotency-Key" in headers) != (place.path.rsplit("/", 1)[-1] in NOT_CREATING), place.path


def test_every_answer_in_json_says_its_fields() -> None:
    for operation in operations(whole_document()):
        for status, answer in operation.told["responses"].items():
            schema = answer.get("content", {}).get("application/json", {}).get("schema")
            assert schema is None or references(schema), (*operation[:2], status)


ACROSS_FIELDS = [
    (NewKey, {"name": "x", "role": "member", "scopes": ["chat"]}),
    (NewKeyForUser, {"name": "x", "budget_credits": 1, "budget_nanos": 1}),
    (KeyChanges, {"budget_credits": 1, "budget_nanos": 1}),
    (PutRoute, {"model": "x"}),
    (PutRoute, {"model": "x", "upstream_id": "ups_1", "url": "http://x/v1"}),
    (NewUpstream, {"name": "x"}),
    (NewUpstream, {"name": "x", "dialect": "vllm"}),
    (NewUpstream, {"name": "x", "preset": "azure-openai"}),
    (NewUpstream, {"name": "x", "preset": "groq", "dialect": "groq"}),
    (SignIn, {}),
    (SignIn, {"email": "a@example.com"}),
    (SignIn, {"key": "x", "link": "x"}),
    (SignIn, {"key": "x", "email": "a@example.com"}),
    (PlanAssignment, {"plan": "pro"}),
    (NewLimits, {"org_id": "org_1", "role": "member"}),
    (Grant, {"org_id": "org_1", "credits": "1", "credits_nanos": 1, "reason": "x"}),
    (Adjustment, {"org_id": "org_1", "credits": 0, "reason": "x"}),
    (Refund, {"request_id": "req_1", "credits": "1", "credits_nanos": 1, "reason": "x"}),
]


@pytest.mark.parametrize(("model", "body"), ACROSS_FIELDS)
def test_what_fields_together_are_refused_for_is_in_the_schema(model: type[BaseModel], body: dict[str, Any]) -> None:
    """`oneOf` and its like: an object is valid for each of its fields."""
    with pytest.raises((ValidationError, BadRequest)):
        model.model_validate(body)
    validator = schema_of(model.__name__)
    assert not validator.is_valid(body)
    assert validator.is_valid(validator.schema["examples"][0])


def schema_of(name: str) -> Any:
    document = whole_document()
    return Draft202012Validator({**document["components"]["schemas"][name], "components": document["components"]})


NEW_CHANNEL: dict[str, Any] = {
    "name": "x",
    "kind": "email",
    "mail": {"host": "h", "sender": "a@b.example", "recipients": ["c@d.example"]},
}
CHANNELS_REFUSED: list[dict[str, Any]] = [
    {"kind": "webhook", "url": None, "mail": None},
    {"kind": "slack", "mail": None},
    {"kind": "slack", "url": "https://example.com/x", "secret": "x" * 20, "mail": None},
    {"kind": "pagerduty", "mail": None},
    {"kind": "webhook", "url": "https://example.com/x"},
    {"url": "https://example.com/x"},
    {"mail": None},
    {"mail": {**NEW_CHANNEL["mail"], "username": "x"}},
    {"secret": "x" * 20, "mail": {**NEW_CHANNEL["mail"], "username": "x", "tls": "none"}},
]


@pytest.mark.parametrize("changed", CHANNELS_REFUSED)
def test_what_goes_with_a_kind_of_channel_is_in_the_schema(changed: dict[str, Any]) -> None:
    body = {name: value for name, value in {**NEW_CHANNEL, **changed}.items() if value is not None}
    given = NewChannel.model_validate(body)
    with pytest.raises(BadRequest):
        check_fields(given.kind, given.changes())
    validator = schema_of("NewChannel")
    assert not validator.is_valid(body)
    assert validator.is_valid(NEW_CHANNEL)


def test_a_paid_call_has_one_bound_and_may_have_no_model() -> None:
    validator = schema_of("ChatCompletionRequest")
    asked = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    assert validator.is_valid(asked)
    assert not validator.is_valid(asked | {"max_completion_tokens": 1})
    assert schema_of("TranscriptionRequest").is_valid({"input_audio": {"data": "UklG", "format": "wav"}})


def test_errors_have_the_shape_of_their_paths() -> None:
    for method, path, told in operations(whole_document()):
        refusals = [answer for status, answer in told["responses"].items() if status[0] == "4"]
        shapes = set().union(*(references(answer["content"]) for answer in refusals))
        assert shapes == ({ERROR_SHAPES[shape_of_path(path)]} if refusals else set()), (method, path)


def test_every_pattern_of_a_request_is_told_in_words() -> None:
    of_amounts = {r"^-?[0-9]+\.[0-9]{2,9}$", r"^-?[0-9]{1,9}(\.[0-9]{1,9})?$"}
    assert set(_patterns(whole_document())) <= PATTERNS.keys() | of_amounts


def _patterns(part: Any) -> Iterator[str]:
    match part:
        case {"pattern": str(pattern)}:
            yield pattern
        case dict() | list():
            for inner in part.values() if isinstance(part, dict) else part:
                yield from _patterns(inner)
