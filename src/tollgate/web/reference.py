"""GET /docs: the OpenAPI document as a page."""

import json
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, NamedTuple

from tollgate.web import aliases
from tollgate.web.html import prose

ALIASES = aliases.TAG["name"]
Schema = Mapping[str, Any]


class Operation(NamedTuple):
    method: str
    path: str
    told: Schema

    @property
    def group(self) -> str:
        """The tag; operators' paths, which are many, are grouped further by what they are about."""
        if self.path.startswith("/admin/") and "x-alias-of" not in self.told:
            return f"admin: {self.path.split('/')[2]}"
        return next(iter(self.told.get("tags", ())), "other")


def render(document: Schema) -> str:
    """The body of the page."""
    told = [
        Operation(method.upper(), path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]
    groups: dict[str, list[Operation]] = {}
    for one in told:
        groups.setdefault(one.group, []).append(one)
    others = groups.pop(ALIASES, [])
    schemas = document["components"]["schemas"]
    return "\n".join(
        [
            _head(document["info"], [*groups]),
            *(
                _section(name, "".join(_operation(one, schemas) for one in operations))
                for name, operations in groups.items()
            ),
            _section(ALIASES, _aliases(others)),
            _section("schemas", "".join(_schema(name, schema) for name, schema in sorted(schemas.items()))),
        ]
    )


def _head(info: Schema, groups: list[str]) -> str:
    links = "".join(f'<a href="#{_id(name)}">{escape(name)}</a>' for name in [*groups, ALIASES, "schemas"])
    return (
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{prose(info['summary'])} "
        f"{prose(info['description'])} "
        '<a href="openapi.json">openapi.json</a> has the same for programs, without aliases; '
        f"<code>/openapi.json?aliases=true</code> has them too.</p>\n<nav>{links}</nav>"
    )


def _section(name: str, body: str) -> str:
    return f'<h2 id="{_id(name)}">{escape(name)}</h2>\n{body}'


def _operation(one: Operation, schemas: Schema) -> str:
    told = one.told
    stability = "" if told["x-stability"] == "stable" else f" <i>{escape(told['x-stability'])}</i>"
    return (
        f"<details><summary><b>{one.method}</b> <code>{escape(one.path)}</code> "
        f"<span>{prose(told['summary'])}{stability}</span></summary>\n"
        f"{_paragraph(told.get('description', ''))}{_parameters(told.get('parameters', ()))}"
        f"{_body(told.get('requestBody'), schemas)}{_responses(told['responses'])}</details>\n"
    )


def _paragraph(text: str) -> str:
    return f"<p>{prose(text)}</p>\n" if text else ""


def _parameters(parameters: Iterable[Schema]) -> str:
    return _fields(
        "Parameter",
        [
            (one["name"], one.get("required", False), {"description": one.get("description", ""), **one["schema"]})
            for one in parameters
        ],
    )


def _body(body: Schema | None, schemas: Schema) -> str:
    if body is None:
        return ""
    schema = body["content"]["application/json"]["schema"]
    named = schema.get("$ref", "").rsplit("/", 1)[-1]
    return _properties("Field of the body", schemas.get(named, schema))


def _responses(responses: Schema) -> str:
    rows = "".join(
        f"<tr><td>{escape(status)}</td><td>{prose(told['description'])}</td><td>{_content(told)}</td></tr>\n"
        for status, told in responses.items()
    )
    return f"<table><tr><th>Status</th><th></th><th></th></tr>\n{rows}</table>\n"


def _content(told: Schema) -> str:
    kinds = told.get("content", {}).items()
    return "<br>".join(f"{escape(media)}: {_type(of.get('schema', {}))}" for media, of in kinds)


def _schema(name: str, schema: Schema) -> str:
    body = _paragraph(schema.get("description", "")) + (_properties("Field", schema) or f"<p>{_type(schema)}</p>")
    return f'<details id="{_id(name)}"><summary><code>{escape(name)}</code></summary>\n{body}</details>\n'


def _properties(title: str, schema: Schema) -> str:
    required = schema.get("required", ())
    return _fields(title, [(name, name in required, told) for name, told in schema.get("properties", {}).items()])


def _fields(title: str, fields: list[tuple[str, bool, Schema]]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code>{' *' if required else ''}</td><td>{_type(schema)}</td>"
        f"<td>{prose(schema.get('description', ''))}{_default(schema)}</td></tr>\n"
        for name, required, schema in fields
    )
    return f"<table><tr><th>{title}</th><th>Type</th><th>* is required</th></tr>\n{rows}</table>\n" if rows else ""


def _default(schema: Schema) -> str:
    default = schema.get("default")
    return "" if default in (None, "") else f" <span class=soft>Default: {escape(json.dumps(default))}.</span>"


def _type(schema: Schema) -> str:
    match schema:
        case {"$ref": reference}:
            name = reference.rsplit("/", 1)[-1]
            return f'<a href="#{_id(name)}">{escape(name)}</a>'
        case {"anyOf": options} | {"oneOf": options} | {"allOf": options}:
            return " or ".join(dict.fromkeys(_type(option) for option in options))
        case {"enum": values}:
            return " or ".join(f"<code>{escape(str(value))}</code>" for value in values)
        case {"const": value}:
            return f"<code>{escape(str(value))}</code>"
        case {"type": "array"}:
            return f"array of {_type(schema.get('items', {}))}"
        case {"type": list() as kinds}:
            return escape(" or ".join(kinds))
        case {"type": kind}:
            return escape(kind + _bounds(schema))
    return "any"


def _bounds(schema: Schema) -> str:
    least, most = (schema.get(name) for name in ("minimum", "maximum"))
    if least is not None and most is not None:
        return f" from {least:.0f} to {most:.0f}"
    return f" ({schema['format']})" if "format" in schema else ""


def _aliases(operations: list[Operation]) -> str:
    rows = "".join(
        f"<tr><td>{one.method}</td><td><code>{escape(one.path)}</code></td>"
        f"<td><code>{escape(one.told['x-alias-of'])}</code></td></tr>\n"
        for one in operations
    )
    table = f"<table><tr><th></th><th>Alias</th><th>Canonical path</th></tr>\n{rows}</table>"
    return f"<p>{aliases.TAG['description']}</p>\n<details><summary>All aliases</summary>\n{table}</details>\n"


def _id(name: str) -> str:
    return escape(name.replace(" ", "-"))
