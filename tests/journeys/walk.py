"""The whole API as its document tells it: every operation, with what it takes to ask for it."""

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from people import PEPPER, Person
from tollgate.app import create_app
from tollgate.settings import read

OPEN = {
    ("get", "/health"),
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("post", "/auth/sign-in"),
    ("get", "/auth/ways"),
}
"""Who asks these needs no key."""
ADMINS = ("/admin/", "/metrics")
AGENTS = "/agent/"
"""Agents of hosts have keys of their own. What these open is tested in tests/fleet."""
SCOPELESS = {
    ("get", "/user/balance"),
    ("get", "/api/v1/key"),
    ("get", "/user/profile"),
    ("get", "/user/plan"),
    ("get", "/user/limit"),
    ("get", "/auth/me"),
    ("post", "/auth/sign-out"),
    ("get", "/auth/sessions"),
    ("delete", "/auth/sessions"),
    ("delete", "/auth/sessions/{session_id}"),
}
"""What any key may ask of its own org."""
ASKED_OF_AN_ORG = {"/admin/limit"}
"""One of three parameters is needed; no schema of a query can say so."""


class Operation(NamedTuple):
    method: str
    path: str
    told: dict[str, Any]
    """What the document says of it."""

    @property
    def is_open(self) -> bool:
        return (self.method, self.path) in OPEN

    @property
    def is_for_agents(self) -> bool:
        return self.path.startswith(AGENTS)

    @property
    def is_for_admins(self) -> bool:
        return self.path.startswith(ADMINS)

    @property
    def names(self) -> list[str]:
        """Of the parameters in its path."""
        return re.findall(r"{(\w+)(?::\w+)?}", self.path)

    def at(self, values: Mapping[str, str]) -> str:
        return re.sub(r"{(\w+)(?::\w+)?}", lambda found: values.get(found[1], "unknown"), self.path)

    def example(self, document: dict[str, Any]) -> Any:
        """A body that it would take."""
        if "requestBody" not in self.told:
            return None
        content = self.told["requestBody"]["content"]["application/json"]
        schema = resolved(content["schema"], document)
        found = content.get("example") or schema.get("example") or next(iter(schema.get("examples", [])), None)
        return found if found is not None else example_of(schema, document)

    def query(self, document: dict[str, Any]) -> dict[str, Any]:
        """What must be in it."""
        if self.path in ASKED_OF_AN_ORG and self.method != "post":
            return {"org_id": "org_of_nobody"}
        needed = [one for one in self.told.get("parameters", ()) if one["in"] == "query" and one.get("required")]
        return {one["name"]: example_of(resolved(one["schema"], document), document) for one in needed}


@functools.cache
def whole_document() -> dict[str, Any]:
    """Of the API. Made once: it takes a second."""
    return create_app(read({"KEY_PEPPER": PEPPER})).described_from_code()


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, item in document["paths"].items():
        for method, told in item.items():
            yield Operation(method, path, told)


def resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return resolved(document["components"]["schemas"][name], document)
    if "anyOf" in schema:
        return {**resolved(schema["anyOf"][0], document), **{k: v for k, v in schema.items() if k != "anyOf"}}
    return schema


def example_of(schema: dict[str, Any], document: dict[str, Any]) -> Any:
    """The least that fits."""
    schema = resolved(schema, document)
    if schema.get("examples"):
        return schema["examples"][0]
    if "default" in schema:
        return schema["default"]
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {
                name: example_of(schema["properties"][name], document)
                for name in schema.get("required", ())
                if name in schema.get("properties", {})
            }
        case "array":
            return [example_of(schema["items"], document)]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
    return "2026-01-01T00:00:00Z" if schema.get("format") == "date-time" else "something"


def ids_of(someone: Person) -> dict[str, str]:
    """What this person's things are called, by the names that paths have for them."""
    return {"org_id": someone.org_id, "user_id": someone.user_id, "key_id": someone.key_id}
