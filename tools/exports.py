"""Writes the files that are made from others, or with --check says which are stale.

.env.example, docs/reference/settings.md    from settings.py
docs/reference/errors.md                    from core/errors.py
docs/reference/openapi.json                 from the app
docs/reference/aliases.md                   from web/aliases.py
requirements.txt                            from uv.lock
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from tollgate.app import create_app
from tollgate.core.errors import tree
from tollgate.settings import DEVELOPMENT_PEPPER, Settings
from tollgate.web.aliases import ALIASES

ROOT = Path(__file__).parents[1]
MADE_BY = "Written by `make exports`; change the code it comes from instead."


def exports() -> Iterator[tuple[str, str]]:
    yield ".env.example", env_example()
    yield "docs/reference/settings.md", settings_page()
    yield "docs/reference/errors.md", errors_page()
    yield "docs/reference/openapi.json", openapi()
    yield "docs/reference/aliases.md", aliases_page()
    yield "requirements.txt", requirements()


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
            "the status is its `code`, and the code below its `error_type`. Codes are stable; messages are for people",
            "and may change.",
            "",
            "| status | code | type | message |",
            "|---|---|---|---|",
            *rows,
            "",
            f"_{MADE_BY}_",
            "",
        ]
    )


def openapi() -> str:
    return json.dumps(create_app(Settings()).openapi(), indent=2, ensure_ascii=False) + "\n"


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


def requirements() -> str:
    """For the hosts that read it: what serving needs, without the embedded Postgres."""
    command = ["uv", "export", "--frozen", "--no-default-groups", "--no-emit-project", "--no-header", "--quiet"]
    made = subprocess.run([str(Path(sys.executable).parent / command[0]), *command[1:]], cwd=ROOT, capture_output=True)
    if made.returncode != 0:
        sys.exit(f"requirements.txt: {made.stderr.decode().strip()}")
    return f"# {MADE_BY}\n{made.stdout.decode()}"


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
