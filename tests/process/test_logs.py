import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.process import logs
from tollgate.settings import read

SECRET = "hunter2+hunter2/hunter2="
DATABASE = "postgresql://user:hunter2hunter2@db"

FULL = {
    "DATABASE_URL": "postgresql://tollgate:hunter2hunter2@db.example/tollgate",
    "SUPABASE_SECRET_KEY": "an-old-looking-secret-without-a-shape",
    "REDIS_URL": "redis://cache.example/hunter2",
    "KEY_PEPPER": "a-pepper-of-at-least-thirty-two-characters",
    "KEY_PEPPER_PREVIOUS": "the-pepper-before-of-thirty-two-characters",
    "OPENROUTER_API_KEY": "an-openrouter-key-without-a-shape",
}

texts = st.text() | st.text(st.sampled_from('\r\n\x1b[31m\u2028\u2029\x85\x0b\x0c\x1c\x00"\\'))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@pytest.fixture(autouse=True)
def _nothing_noted() -> Iterator[None]:
    logs.begin()
    yield
    logs.begin()


def written(stream: io.StringIO) -> list[dict[str, Any]]:
    assert stream.getvalue() == "" or stream.getvalue().endswith("\n")
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def opened(level: str = "info", secrets: list[str] | None = None) -> io.StringIO:
    stream = io.StringIO()
    logs.configure(level, secrets or [], stream)
    return stream


@pytest.mark.parametrize("name", ["application", "database", "upstream", "security"])
def test_a_line_says_what_happened_where_how_bad_and_when(name: logs.Source) -> None:
    stream = opened()
    logs.source(name).warning("something_happened", org_id="org_1")
    (line,) = written(stream)
    told = datetime.fromisoformat(line.pop("timestamp"))
    assert told.utcoffset() == timedelta(0)
    assert line == {"event": "something_happened", "source": name, "level": "warning", "org_id": "org_1"}


def test_lines_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", [])
    logs.source("application").info("hello")
    logging.getLogger("uvicorn.error").warning("hello")
    out, err = capsys.readouterr()
    opened()
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["hello", "hello"]
    assert err == ""


@given(value=values, event=texts)
def test_whatever_the_values_a_line_is_one_line_of_json(value: Any, event: str) -> None:
    stream = opened()
    logs.source("application").info(event, value=value)
    (line,) = written(stream)
    assert (line["event"], line["value"]) == (event, value)


@given(message=texts)
def test_a_library_s_line_is_one_line_of_json_too(message: str) -> None:
    stream = opened()
    logging.getLogger("uvicorn.error").warning("%s", message)
    (line,) = written(stream)
    assert line["event"] == message


@pytest.mark.parametrize("value", [object(), {1, 2}, b"\xff", datetime.now(), ValueError("x"), float("inf")])
def test_a_value_that_json_does_not_know_still_makes_a_line(value: Any) -> None:
    stream = opened()
    logs.source("application").info("event", value=value)
    (text,) = stream.getvalue().splitlines()

    def refused(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    assert "value" in json.loads(text, parse_constant=refused)


LEVELS = ["debug", "info", "warning", "error"]


@pytest.mark.parametrize("least", LEVELS)
def test_lines_below_the_level_are_not_written(least: str) -> None:
    stream = opened(least)
    log = logs.source("application")
    for level in LEVELS[1:]:  # nothing of ours is for debugging only
        getattr(log, level)(level)
    assert [line["event"] for line in written(stream)] == LEVELS[max(LEVELS.index(least), 1) :]


@pytest.mark.parametrize(("least", "heard"), [("debug", ["w", "e"]), ("info", ["w", "e"]), ("error", ["e"])])
def test_libraries_are_heard_from_warnings_on(least: str, heard: list[str]) -> None:
    stream = opened(least)
    log = logging.getLogger("uvicorn.error")
    log.debug("d")
    log.info("i")
    log.warning("w")
    log.error("e")
    assert [line["event"] for line in written(stream)] == heard


def test_a_library_s_line_comes_through_the_same_renderer() -> None:
    stream = opened()
    logs.note(request_id="req_1")
    logging.getLogger("uvicorn.error").warning("Invalid %s request", "HTTP")
    (line,) = written(stream)
    assert datetime.fromisoformat(line.pop("timestamp")).utcoffset() == timedelta(0)
    assert line == {
        "event": "Invalid HTTP request",
        "source": "application",
        "library": "uvicorn.error",
        "level": "warning",
        "request_id": "req_1",
    }


def test_lines_before_the_configuration_are_json_and_have_no_secrets() -> None:
    program = (
        "from tollgate.process import logs\n"
        f"key = '{KEY}'\n"
        "try: raise ValueError(key)\n"
        "except ValueError: logs.source('database').exception('failed')"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["exception"].endswith("ValueError: [hidden: api_key]")
    assert KEY not in done.stdout + done.stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
@pytest.mark.parametrize("console", [True, False])
def test_lines_are_for_reading_only_on_a_terminal_that_wants_them(stream: type[io.StringIO], console: bool) -> None:
    out = stream()
    logs.configure("info", [], out, console=console)
    logs.source("application").info("hello", name="ada")
    assert out.getvalue().startswith("{") == (stream is io.StringIO or not console)
    assert out.getvalue().count("\n") == 1


@pytest.mark.parametrize("has_rich", [True, False])
def test_a_traceback_on_a_terminal_has_no_secrets_and_no_local_variables(
    has_rich: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_rich:
        monkeypatch.setitem(sys.modules, "tollgate.process.rich_tracebacks", None)
    out = Terminal()
    logs.configure("info", [SECRET], out, console=True)
    try:
        failing(prompt="what " * 3)
    except RuntimeError:
        logs.source("application").exception("unexpected_error", cause=SECRET)
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
    shown = re.sub(r"\x1b\[[\d;]*m", "", out.getvalue())
    assert ("╭" in shown) == has_rich
    assert shown.count("RuntimeError: postgresql://[hidden: password]@db failed for [hidden: api_key]") == 2
    assert "hunter2" not in shown
    assert "what what what" not in shown


class BrokenPipe(io.StringIO):
    def flush(self) -> None:
        raise BrokenPipeError


def test_a_reader_of_the_log_that_is_gone_breaks_nothing() -> None:
    logs.configure("info", [], BrokenPipe())
    logs.source("application").info("hello")


def test_configuring_again_replaces_and_does_not_double() -> None:
    before = opened()
    after = opened()
    logs.source("application").info("ours")
    logging.getLogger("uvicorn.error").warning("theirs")
    assert before.getvalue() == ""
    assert [line["event"] for line in written(after)] == ["ours", "theirs"]


def test_what_is_noted_stays_on_later_lines_until_forgotten() -> None:
    stream = opened()
    log = logs.source("application")
    logs.note(request_id="req_1")
    logs.note(key_id="key_1")
    log.info("within")
    assert logs.noted() == {"request_id": "req_1", "key_id": "key_1"}
    logs.begin()
    log.info("after")
    within, after = written(stream)
    assert (within["request_id"], within["key_id"]) == ("req_1", "key_1")
    assert "request_id" not in after


@pytest.mark.parametrize("name", FULL)
def test_every_secret_of_the_settings_is_hidden(name: str) -> None:
    stream = opened(secrets=read(FULL).secrets())
    logs.source("application").info(f"in the event {FULL[name]}.", alone=FULL[name], within=f"x{FULL[name]}y")
    logging.getLogger("asyncpg").error("from a library: %s", FULL[name])
    assert FULL[name] not in stream.getvalue()
    ours, theirs = written(stream)
    assert (ours["alone"], ours["within"]) == ("[hidden: known]", "x[hidden: known]y")
    assert theirs["event"] == "from a library: [hidden: known]"


KEY = "tg_live_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg012345"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (KEY, "[hidden: api_key]"),
        (f"authorization: Bearer {KEY}, next", "authorization: Bearer [hidden: api_key], next"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoiYSJ9.c2ln-_", "[hidden: token]"),
        ("postgresql://user:pass%2Fword@db/x", "postgresql://[hidden: password]@db/x"),
        ("redis://:hunter2@cache:6379", "redis://[hidden: password]@cache:6379"),
        ("two: a://b:c@d and e://f:g@h", "two: a://[hidden: password]@d and e://[hidden: password]@h"),
        ("https://openrouter.ai:443/api/v1", "https://openrouter.ai:443/api/v1"),
        ("tg_live_", "tg_live_"),
    ],
)
def test_what_looks_like_a_secret_is_hidden_and_nothing_else(text: str, shown: str) -> None:
    stream = opened()
    logs.source("application").info("event", text=text)
    assert written(stream)[0]["text"] == shown


@pytest.mark.parametrize("password", ["p@ssword-hunter2", "@hunter2", "hunter2#"])
def test_a_password_that_should_have_been_escaped_is_hidden_all_the_same(password: str) -> None:
    stream = opened()
    logs.source("application").info("event", url=f"postgresql://user:{password}@db.example/x")
    assert "hunter2" not in stream.getvalue()


def holding(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner) | st.tuples(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner)
        ),
        max_leaves=8,
    )


@given(value=holding(st.builds("{}{}{}".format, st.text(), st.just(SECRET), st.text()) | scalars))
def test_a_secret_is_hidden_however_deep_it_stands(value: Any) -> None:
    stream = opened(secrets=[SECRET])
    logs.source("application").info("event", value=value)
    assert "hunter2" not in stream.getvalue()
    assert stream.getvalue().count("[hidden: known]") == repr(value).count(SECRET)


@pytest.mark.parametrize(
    "value",
    [
        {"headers": {SECRET: "as a name"}},
        {SECRET},
        ValueError(f"could not connect with {SECRET}"),
        [RuntimeError(SECRET)],
        SECRET.encode(),
        httpx.URL("https://upstream.example/", params={"key": "hunter2hunter2"}),
    ],
    ids=["name", "set", "error", "error in a list", "bytes", "object"],
)
def test_a_secret_is_hidden_in_names_and_in_what_is_not_a_string(value: Any) -> None:
    stream = opened(secrets=[SECRET, "hunter2hunter2"])
    logs.source("application").info("event", value=value)
    assert len(written(stream)) == 1
    assert "hunter2" not in stream.getvalue()


def test_the_longer_of_two_secrets_is_hidden_whole() -> None:
    stream = opened(secrets=["hunter2h", "hunter2hunter2"])
    logs.source("application").info("event", value="hunter2hunter2")
    assert written(stream)[0]["value"] == "[hidden: known]"


def test_a_secret_is_taken_literally_not_as_a_pattern() -> None:
    stream = opened(secrets=["a.c+(d[e]f"])
    logs.source("application").info("event", exact="a.c+(d[e]f", alike="abc+(d[e]f")
    assert (written(stream)[0]["exact"], written(stream)[0]["alike"]) == ("[hidden: known]", "abc+(d[e]f")


def test_what_is_noted_is_cleaned_too() -> None:
    stream = opened(secrets=[SECRET])
    logs.note(user_agent=SECRET)
    logs.source("application").info("event")
    assert written(stream)[0]["user_agent"] == "[hidden: known]"


def failing(prompt: str) -> None:
    try:
        raise KeyError(SECRET)
    except KeyError as cause:
        raise RuntimeError(f"{DATABASE} failed for {KEY}") from cause


def test_a_traceback_is_in_the_line_without_its_secrets() -> None:
    stream = opened(secrets=[SECRET])
    try:
        failing("")
    except RuntimeError:
        logs.source("application").exception("unexpected_error")
    (line,) = written(stream)
    assert line["level"] == "error"
    assert "in failing" in line["exception"]
    assert "The above exception was the direct cause" in line["exception"]
    assert "hunter2" not in stream.getvalue()
    assert KEY not in stream.getvalue()


def test_a_library_s_traceback_is_in_its_line_without_its_secrets() -> None:
    stream = opened(secrets=[SECRET])
    try:
        failing("")
    except RuntimeError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
    (line,) = written(stream)
    assert "in failing" in line["exception"]
    assert "hunter2" not in stream.getvalue()
    assert KEY not in stream.getvalue()
