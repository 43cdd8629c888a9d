"""Writes the files that are made from others, or with --check says which are stale.

.env.example, docs/reference/settings.md    from settings.py
docs/reference/errors.md                    from core/errors.py
docs/reference/endpoints.md                 from core/endpoints.py
docs/reference/audit-actions.md             from audit/actions.py
docs/reference/alerts.md                    from alerts/signals.py
src/tollgate/openapi.json                   from the app, which serves it
docs/reference/api.md                       from the same
docs/reference/aliases.md                   from web/aliases.py
docs/reference/sandbox-faults.md            from sandbox/faults.py
docs/reference/translation.md               from core/dialects
deploy/grafana/dashboards/*.json            from tools/dashboards.py
requirements.txt                            from uv.lock
src/tollgate/console/files                  from console/, where npm installed what builds it
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo

import dashboards
from tollgate.alerts.signals import RULES, SIGNALS, Rule
from tollgate.app import create_app
from tollgate.audit.actions import ACTIONS
from tollgate.core.dialects import generate
from tollgate.core.dialects.messages import tables as messages
from tollgate.core.dialects.responses import tables as responses
from tollgate.core.dialects.treatments import Table, Treatment
from tollgate.core.endpoints import ENDPOINTS, Form
from tollgate.core.errors import tree
from tollgate.core.models import Dialect
from tollgate.sandbox import faults
from tollgate.settings import DEVELOPMENT_PEPPER, Settings
from tollgate.web.aliases import ALIASES

ROOT = Path(__file__).parents[1]
BUILT = "src/tollgate/console/files"
MADE_BY = "Written by `make exports`; change the code it comes from instead."


def exports() -> Iterator[tuple[str, str]]:
    yield ".env.example", env_example()
    yield "docs/reference/settings.md", settings_page()
    yield "docs/reference/errors.md", errors_page()
    yield "docs/reference/endpoints.md", endpoints_page()
    yield "docs/reference/audit-actions.md", audit_actions_page()
    yield "docs/reference/alerts.md", alerts_page()
    document = create_app(Settings()).described_from_code()
    yield "src/tollgate/openapi.json", json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    yield "docs/reference/api.md", api_page(document)
    yield "docs/reference/aliases.md", aliases_page()
    yield "docs/reference/sandbox-faults.md", sandbox_faults_page()
    yield "docs/reference/translation.md", translation_page()
    yield from dashboards.written()
    yield "requirements.txt", requirements()
    if (ROOT / "console" / "node_modules").is_dir():
        yield from pages()


def settings() -> Iterator[tuple[str, str, str]]:
    """Name, default as one would write it, sentence."""
    for field in Settings.model_fields.values():
        yield str(field.alias), _default(field), str(field.description)


def env_example() -> str:
    lines = [f"# {MADE_BY}", "# Copy to .env and uncomment what you change.", ""]
    for name, default, sentence in settings():
        lines += [f"# {sentence}", f"#{name}={default}", ""]
    return "\n".join(lines[:-1]) + "\n"


def settings_page() -> str:
    code = "`{}`".format
    rows = [f"| {code(name)} | {code(default) if default else ''} | {said} |" for name, default, said in settings()]
    return "\n".join(
        [
            "# Settings",
            "",
            "Read once at start from the environment, and from the file that `ENV_FILE` names (`.env` where there is",
            "one); the environment wins. An empty value counts as not set. A value that cannot be used stops the start",
            "with one line that names the variable.",
            "",
            "| variable | default | |",
            "|---|---|---|",
            *rows,
            "",
            f"_{MADE_BY}_",
            "",
        ]
    )


def errors_page() -> str:
    rows = [f"| {error.status} | `{error.code}` | `{error.type}` | {error.sentence} |" for error in tree()]
    return "\n".join(
        [
            "# Errors",
            "",
            'Every error has OpenAI\'s shape, `{"error": {message, type, code, param, …facts}}`, and the header',
            "`x-request-id`. Under `/api/v1/` it has OpenRouter's, "
            '`{"error": {code, message, metadata: {error_type, …facts}}}`:',
            "the status is its `code`, and the code below its `error_type`; not under `/api/v1/generate`, which",
            "OpenRouter does not have. Under `/v1/messages` and `/api/v1/messages` it has Anthropic's,",
            '`{"type": "error", "error": {type, message, code, …facts}, "request_id"}`,',
            "with the type that Anthropic has for the status. Codes are stable; messages are for people and may",
            "change.",
            "",
            "| status | code | type | message |",
            "|---|---|---|---|",
            *rows,
            "",
            f"_{MADE_BY}_",
            "",
        ]
    )


def alerts_page() -> str:
    return "\n".join(
        [
            "# Alerts",
            "",
            "The rules that are on from the start, and what to do when one fires.",
            "[Alerts](../how-to/alerts.md) says how to be told, and how to change a rule.",
            "",
            *(line for name, rule in RULES.items() for line in _rule(name, rule)),
            "## Signals",
            "",
            "What rules may watch.",
            "",
            "| signal | |",
            "|---|---|",
            *(f"| `{name}` | {told} |" for name, told in SIGNALS.items()),
            "",
            f"_{MADE_BY}_",
            "",
        ]
    )


def _rule(name: str, rule: Rule) -> list[str]:
    word = rule.comparison.replace("_", " ")
    bounds = [f"`{rule.signal}` {word} {rule.threshold:,}"]
    bounds += [f"for {rule.for_seconds:,} s"] if rule.for_seconds else []
    over = "below" if rule.comparison == "at_least" else "at least"
    bounds += [f"clear {over} {rule.clear_threshold:,}"] if rule.clear_threshold is not None else []
    bounds += [f"resolved after {rule.clear_seconds:,} s"] if rule.clear_seconds else []
    return [
        f"## {name}",
        "",
        f"{rule.title}. {rule.severity.capitalize()}: {', '.join(bounds)}.",
        "",
        rule.means,
        "",
        f"- **Look**: {rule.look}",
        f"- **Cause**: {rule.cause}",
        f"- **Mend**: {rule.mend}",
        "",
    ]


def endpoints_page() -> str:
    dialects = get_args(Dialect)
    rows = [
        f"| {_paths(form)} | `{form.scope}` | {' | '.join(_way(form, dialect) for dialect in dialects)} |"
        for form in ENDPOINTS.values()
    ]
    return "\n".join(
        [
            "# Endpoints",
            "",
            "Each paid endpoint, the scope that a key needs for it, and what becomes of a request by the type of the",
            "upstream that serves the model. All are under `/api/v1` too.",
            "",
            "- **passed**: the body goes upstream as it came, and the answer comes back as it came, but for what",
            "  [Call it](../how-to/call-it.md) names.",
            "- **translated**: the upstream gets a chat completion, and its answer is translated back. What cannot be",
            "  translated without a change of its meaning is refused, by the name of its field: see",
            "  [Translation](translation.md).",
            "- **estimated**: Tollgate answers by itself, from the size of the request.",
            "- **–**: a request is refused with `404 endpoint_not_served`, unless another upstream serves the model.",
            "",
            "If a model has several upstreams, those that have the endpoint serve it.",
            "",
            f"| endpoint | scope | {' | '.join(dialects)} |",
            f"|---|---|{'---|' * len(dialects)}",
            *rows,
            "",
            "| endpoint | output bound | refused, because an upstream would keep it or be asked for it later |",
            "|---|---|---|",
            *(
                f"| `{form.path}` | {_codes(form.bounds)} | {_codes(form.state)} |"
                for form in ENDPOINTS.values()
                if form.generates
            ),
            "",
            "| endpoint | charged by, beside tokens and `request` |",
            "|---|---|",
            *(f"| `{form.path}` | {_codes(sorted(form.meters))} |" for form in ENDPOINTS.values() if form.units),
            "",
            "A model whose route has another of the prices `character`, `second` and `output_image` is refused at an",
            "endpoint with `400 model_unpriced`, since its calls would be free there.",
            "",
            f"_{MADE_BY}_",
            "",
        ]
    )


def audit_actions_page() -> str:
    rows = [f"| `{action}` | {meaning} |" for action, meaning in ACTIONS.items()]
    return "\n".join(
        [
            "# Actions in the audit trail",
            "",
            "The `action` of the events that `GET /admin/audit-logs` lists; `?action=` filters by one.",
            "",
            "| action | meaning |",
            "|---|---|",
            *rows,
            "",
            f"_{MADE_BY}_",
            "",
        ]
    )


def _way(form: Form, dialect: Dialect) -> str:
    if dialect in form.dialects:
        return "passed"
    if form.needs_native:
        return "–"
    return "translated" if form.is_translated else "estimated"


def _paths(form: Form) -> str:
    return ", ".join(f"`POST /v1{path}`" for path in form.paths)


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "–"


def api_page(document: dict[str, Any]) -> str:
    """Each operation, under its tag."""
    sections: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            sections.setdefault(operation["tags"][0], []).append(_operation(document, method, path, operation))
    return "\n".join(
        [
            "# API",
            "",
            "Every operation with its parameters and the fields of its body. A running server shows the same at",
            "`/docs`, with examples and all errors, and `/openapi.json` for programs.",
            "",
            *(text for tag, texts in sections.items() for text in (f"## {tag}", "", *texts)),
            f"_{MADE_BY}_",
            "",
        ]
    )


def _operation(document: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> str:
    lines = [f"### `{method.upper()} {path}`", "", f"{operation.get('summary', '').rstrip('.')}.", ""]
    rows = [*_parameters(operation), *_body_fields(document, operation)]
    if rows:
        lines += ["| field | in | type | |", "|---|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _parameters(operation: dict[str, Any]) -> Iterator[str]:
    for parameter in operation.get("parameters", []):
        schema = parameter.get("schema", {})
        yield _row(parameter["name"], parameter["in"], parameter.get("required", False), schema, parameter)


def _body_fields(document: dict[str, Any], operation: dict[str, Any]) -> Iterator[str]:
    content = operation.get("requestBody", {}).get("content", {})
    schema = _resolved(document, content.get("application/json", {}).get("schema", {}))
    for name, field in schema.get("properties", {}).items():
        yield _row(name, "body", name in schema.get("required", []), field, field)


def _row(name: str, place: str, required: bool, schema: dict[str, Any], described: dict[str, Any]) -> str:
    said = str(described.get("description", "")).replace("\n", " ").replace("|", "\\|")
    return f"| `{name}` | {place}{', required' if required else ''} | {_type(schema)} | {said} |"


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(choice) for choice in schema["anyOf"]))
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    return (
        f"list of {_type(schema.get('items', {}))}" if schema.get("type") == "array" else str(schema.get("type", "any"))
    )


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        named: dict[str, Any] = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
        return named
    return schema


def aliases_page() -> str:
    rows = [f"| `{alias}` | `{path}` |" for alias, path in ALIASES.items()]
    return "\n".join(
        [
            "# Aliases",
            "",
            "Other paths of the same resources, for clients of other gateways. Each covers the paths below it, and the",
            "longest that fits counts. The methods, parameters and bodies are those of the canonical path.",
            "",
            "| alias | canonical path |",
            "|---|---|",
            *rows,
            "",
            f"_{MADE_BY}_",
            "",
        ]
    )


TRANSLATION = """\
# Translation

Some servers have chat completions only. For them, requests to `/v1/messages` and `/v1/responses` are translated, and so
are the answers and streams. No server has `/v1/generate`, so all of its requests are. What would change its meaning is
refused with `invalid_request`, whose `param` says where it stands. So is every member that these tables do not name.
`null` counts as absent.

## Answers

| chat completions | `/v1/messages` | `/v1/responses` |
|---|---|---|
| `reasoning` or `reasoning_content` | a `thinking` block | the summary of a `reasoning` item |
| `content` | a `text` block | `output_text` in a `message` item |
| `refusal` | a `text` block and `stop_reason: refusal` | `refusal` in a `message` item |
| `tool_calls[]` | a `tool_use` block | a `function_call` item |
| arguments that are no object | as `{"INVALID_JSON": "…"}`; in a stream as they are | as they are |
| `finish_reason: stop` | `end_turn`, or `stop_sequence` where the server names it | `completed` |
| `finish_reason: length` | `max_tokens` | `incomplete`, `max_output_tokens` |
| `finish_reason: tool_calls`, or `stop` after calls | `tool_use` | `completed` |
| `finish_reason: content_filter` | `refusal` | `incomplete`, `content_filter` |
| another `finish_reason` | as `stop` | as `stop` |
| `prompt_tokens` | `input_tokens`, without the two below | `input_tokens` |
| `…cached_tokens` | `cache_read_input_tokens` | `input_tokens_details.cached_tokens` |
| `…cache_write_tokens` | `cache_creation_input_tokens` | `input_tokens_details.cache_write_tokens` |
| `completion_tokens` | `output_tokens` | `output_tokens` |
| `…reasoning_tokens` | `output_tokens_details.thinking_tokens` | `output_tokens_details.reasoning_tokens` |
| other members of the usage | the same | the same |
| an error, or no `finish_reason` | an `error` event is the last | `error`, then `response.failed` |
| `logprobs`, `annotations`, `audio` | not shown; what asks for them is refused | the same |

Send reasoning back as it came: a `thinking` block with its `signature`, a `reasoning` item with its `encrypted_content`
(ask for it with `include`). Both name the member that the server used, and the server gets its reasoning under that
name. In a stream of `/v1/messages`, `message_start` states no tokens yet; `message_delta` states all of them.
"""


def translation_page() -> str:
    return "\n".join(
        [
            TRANSLATION,
            *_treatments("/v1/messages", messages.DOCUMENTED),
            *_treatments("/v1/responses", responses.DOCUMENTED),
            *_treatments("/v1/generate", generate.DOCUMENTED),
            f"_{MADE_BY}_",
            "",
        ]
    )


def _treatments(path: str, tables: Mapping[str, Table]) -> Iterator[str]:
    yield f"## Requests to {path}\n"
    for title, table in tables.items():
        yield f"### {title}\n\n| member | | |\n|---|---|---|"
        yield from (f"| `{name}` | {treatment.way} | {_said(treatment)} |" for name, treatment in table.items())
        yield ""


def _said(treatment: Treatment) -> str:
    harmless = ", ".join(f"`{json.dumps(value)}`" for value in treatment.harmless)
    return f"{treatment.how} {harmless} may be sent." if harmless else treatment.how


def sandbox_faults_page() -> str:
    rows: list[list[str]] = []
    for line in (faults.__doc__ or "").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("| ") else []
        if cells and cells[0]:
            rows.append(cells)
        elif cells:
            rows[-1] = [f"{before} {more}".strip() for before, more in zip(rows[-1], cells, strict=True)]
    shown = [
        f"| `{name}` | {value} | {faults.MOST.get(name, ''):{'g' if name in faults.MOST else ''}} | {what} | {owed} |"
        for name, value, what, owed in rows[1:]
    ]
    failing = [f"sandbox/fault-{fault}" for fault in faults.FOLLOWED_BY_FALLBACKS]
    return "\n".join(
        [
            "# Faults of the sandbox",
            "",
            "The sandbox misbehaves on request, so that you can test how your program takes it. Send the header",
            "`x-sandbox-fault: name`, `name=value`, or several with commas (`slow=0.1,cut=5`), with a test key,",
            'or with any key on a server that `make up` started. "Half" means after half of the tokens; of',
            "speech, each character counts as one, and all of them are owed. The",
            "third column is the most that a test key may ask for; a stall lasts 5 s. Unless the last column",
            "says otherwise, the call costs what it would have cost.",
            "",
            "Useful first: `status=429`, `status=503`, `stall-before=5`, `cut`, `mid-stream-error`,",
            "`finish-error`, `slow=0.1`, `no-usage`, `moderation`. Set `max_retries=0` in your SDK, or it tries",
            "again before you see the fault.",
            "",
            "A fault of the header strikes whichever model answers. To see a fallback, name a model that fails first:",
            f'`"models": ["{failing[0]}", "sandbox/echo"]`. There are {", ".join(f"`{name}`" for name in failing)}.',
            "",
            "| fault | value (default) | most | what happens | owed |",
            "|---|---|---|---|---|",
            *shown,
            "",
            f"_{MADE_BY}_",
            "",
        ]
    )


def requirements() -> str:
    """For the hosts that read it: what serving needs, without the embedded Postgres."""
    command = ["uv", "export", "--frozen", "--no-default-groups", "--no-emit-project", "--no-header", "--quiet"]
    made = subprocess.run([str(Path(sys.executable).parent / command[0]), *command[1:]], cwd=ROOT, capture_output=True)
    if made.returncode != 0:
        sys.exit(f"requirements.txt: {made.stderr.decode().strip()}")
    return f"# {MADE_BY}\n{made.stdout.decode()}"


def pages() -> Iterator[tuple[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["node", "build.mjs", folder], cwd=ROOT / "console", check=True)
        for file in sorted(Path(folder).iterdir()):
            yield f"{BUILT}/{file.name}", file.read_text()


def _default(field: FieldInfo) -> str:
    default: Any = field.default
    if isinstance(default, SecretStr):
        return "" if default.get_secret_value() == DEVELOPMENT_PEPPER else default.get_secret_value()
    if isinstance(default, bool):
        return str(default).lower()
    return "" if default is None else str(default)


def main() -> None:
    stale = [name for name, text in exports() if not (ROOT / name).is_file() or (ROOT / name).read_text() != text]
    if "--check" in sys.argv:
        lock = subprocess.run([str(Path(sys.executable).parent / "uv"), "lock", "--check", "--quiet"], cwd=ROOT)
        if lock.returncode != 0:
            stale.append("uv.lock")
        sys.exit(f"stale, run `make exports`: {', '.join(stale)}" if stale else 0)
    for name, text in exports():
        (ROOT / name).write_text(text)


if __name__ == "__main__":
    main()
