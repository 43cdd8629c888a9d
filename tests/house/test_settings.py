import base64
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from tollgate.__main__ import _limits
from tollgate.database import open_door
from tollgate.database.postgres import PostgresDoor
from tollgate.database.supabase import SupabaseDoor
from tollgate.process.connection_limits import Limits
from tollgate.process.http_client import Http
from tollgate.settings import DEVELOPMENT_PEPPER, Settings, SettingsError, read

FIELDS = Settings.model_fields
PEPPER = "p" * 32
DATABASE = "postgresql://tollgate:hunter2hunter2@db.example/tollgate"
SUPABASE = {"SUPABASE_URL": "https://ref.supabase.co", "SUPABASE_SECRET_KEY": "sb_secret_hunter2hunter2"}
PRODUCTION = {"TOLLGATE_ENV": "production", "KEY_PEPPER": PEPPER, "DATABASE_URL": DATABASE}


def token(**claims: str) -> str:
    middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJIUzI1NiJ9.{middle}.c2lnbmF0dXJl"


BAD = [
    ("TOLLGATE_ENV", "staging", "'development' or 'production'"),
    ("TOLLGATE_ENV", "Production", "'development' or 'production'"),
    ("DEFAULT_MODEL", "two words", "match"),
    ("DEFAULT_MODEL", "m" * 257, "256"),
    ("PORT", "eighty", "integer"),
    ("PORT", "80.5", "integer"),
    ("PORT", "-1", "greater than or equal to 0"),
    ("PORT", "65536", "less than or equal to 65535"),
    ("WEB_CONCURRENCY", "0", "greater than or equal to 1"),
    ("WEB_CONCURRENCY", "65", "less than or equal to 64"),
    ("LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
    ("LOG_CONTENT", "full", "'none' or 'redacted'"),
    ("ABANDONED_PREFILL", "half", "'charge' or 'free'"),
    ("LOG_CONTENT_DAYS", "0", "greater than or equal to 1"),
    ("LOG_CONTENT_DAYS", "36501", "less than or equal to 36500"),
    ("TRUSTED_PROXY", "cloudflare", "'vercel', 'railway', 'heroku', 'digitalocean', 'lambda', 'alb' or 'proxy'"),
    ("MAX_BODY_BYTES", "20MB", "integer"),
    ("MAX_BODY_BYTES", "1023", "greater than or equal to 1024"),
    ("MAX_BODY_BYTES", str(1024**3 + 1), "less than or equal to 1073741824"),
    ("MAX_UPLOAD_BYTES", "1023", "greater than or equal to 1024"),
    ("MAX_ADMIN_BODY_BYTES", "1023", "greater than or equal to 1024"),
    ("MAX_HEAD_BYTES", "4095", "greater than or equal to 4096"),
    ("HEAD_TIMEOUT_SECONDS", "0", "greater than or equal to 1"),
    ("BODY_IDLE_SECONDS", "0", "greater than or equal to 1"),
    ("MAX_UNFINISHED_BYTES", "1", "greater than or equal to 1048576"),
    ("MAX_UNFINISHED_BYTES_PER_ADDRESS", "1", "greater than or equal to 1048576"),
    ("KEEP_ALIVE_SECONDS", "0", "greater than or equal to 1"),
    ("CORS_ORIGINS", "*", "must be origins"),
    ("CORS_ORIGINS", "https://app.example.com/", "must be origins"),
    ("CORS_ORIGINS", "https://app.example.com, app.example.com", "must be origins"),
    ("METRICS_TOKEN", "short", "at least 16 characters"),
    ("METRICS_NETWORKS", "10.0.0.1/8", "must be networks"),
    ("METRICS_NETWORKS", "inside", "must be networks"),
    ("DATABASE_URL", "mysql://root@db.example/tollgate", "must begin with postgresql://"),
    ("DATABASE_URL", "db.example", "must begin with postgresql://"),
    ("DATABASE_URL", "postgresql://user@db.example:port/tollgate", ""),
    ("DATABASE_POOL_SIZE", "0", "greater than or equal to 1"),
    ("DATABASE_POOL_SIZE", "1001", "less than or equal to 1000"),
    ("DATABASE_POOL_SIZE", "many", "integer"),
    ("DATABASE_TIMEOUT_SECONDS", "0.4", "greater than or equal to 0.5"),
    ("DATABASE_TIMEOUT_SECONDS", "5.1", "less than or equal to 5"),
    ("DATABASE_TIMEOUT_SECONDS", "nan", ""),
    ("DATABASE_TIMEOUT_SECONDS", "inf", "less than or equal to 5"),
    ("DATABASE_TIMEOUT_SECONDS", "soon", "number"),
    ("SUPABASE_URL", "ref.supabase.co", "must be a web address"),
    ("SUPABASE_URL", "https://", "must be a web address"),
    ("SUPABASE_URL", "ftp://ref.supabase.co", "must be a web address"),
    ("SUPABASE_URL", "https://[ref", ""),
    ("SUPABASE_URL", "https://ref.supabase.co:99999", ""),
    ("SUPABASE_SECRET_KEY", "sb_publishable_0123456789", "public key"),
    ("SUPABASE_SECRET_KEY", token(role="anon"), "public key"),
    ("SUPABASE_PUBLISHABLE_KEY", "sb_secret_hunter2hunter2", "not a publishable key"),
    ("SUPABASE_PUBLISHABLE_KEY", token(role="service_role"), "not a publishable key"),
    ("REDIS_URL", "http://cache.example", "must begin with redis:// or rediss://"),
    ("REDIS_URL", "cache.example:6379", "must begin with redis:// or rediss://"),
    ("REDIS_URL", "redis://cache.example:port", ""),
    ("CACHE_TTL_SECONDS", "0", "greater than or equal to 1"),
    ("CACHE_MAX_TTL_SECONDS", "31536001", "less than or equal to 31536000"),
    ("CACHE_MAX_ANSWER_BYTES", "524289", "less than or equal to 524288"),
    ("CACHE_MAX_ORG_BYTES", "-1", "greater than or equal to 0"),
    ("CACHE_HIT_SHARE", "1.1", "less than or equal to 1"),
    ("CACHE_WAIT_SECONDS", "301", "less than or equal to 300"),
    ("KEY_PEPPER", "p" * 31, "at least 32 characters"),
    ("KEY_PEPPER_PREVIOUS", "q" * 31, "at least 32 characters"),
    ("KEY_PEPPER_PREVIOUS", DEVELOPMENT_PEPPER, "same as KEY_PEPPER"),
    ("AGENT_KEY", "a" * 31, "at least 32 characters"),
    ("AGENT_KEY_PREVIOUS", "a" * 31, "at least 32 characters"),
    ("VAULT_KEY", "5e" * 31, "64 hexadecimal digits"),
    ("VAULT_KEY", "g" * 64, "openssl rand -hex 32"),
    ("VAULT_KEY_PREVIOUS", "5e" * 33, "64 hexadecimal digits"),
    ("BYOK_FEE", "-0.001", "greater than or equal to 0"),
    ("BYOK_FEE", "0.0000000001", "no more than 9 decimal places"),
    ("OPENROUTER_API_KEY", "sk-or-v1-0123…", ""),
    ("RECONCILIATION_TOLERANCE", "1.1", "less than or equal to 1"),
    ("RECONCILIATION_SCOPE", "all", "'key' or 'account'"),
    ("OPENROUTER_BASE_URL", "openrouter.ai/api/v1", "must be a web address"),
    ("OPENROUTER_BASE_URL", "https:///api/v1", "must be a web address"),
    ("OPENROUTER_BASE_URL", "https://openrouter.ai:port/api/v1", ""),
    ("SANDBOX_BASE_URL", "localhost:9", "must be a web address"),
    ("PRIVATE_UPSTREAMS", "perhaps", "boolean"),
    ("UPSTREAM_TIMEOUT_SECONDS", "0.5", "greater than or equal to 1"),
    ("UPSTREAM_TIMEOUT_SECONDS", "nan", ""),
    ("SHOW_COST", "upstream", "'charge' or 'both'"),
    ("MARKUP", "-0.05", "greater than or equal to 0"),
    ("MARKUP", "5%", ""),
    ("MARKUP", "NaN", "finite"),
    ("MARKUP", "0.0000001", "six places"),
    ("EXTRA_PRICES", "search:exa=0.01", "JSON object"),
    ("EXTRA_PRICES", '{"search:exa": "free"}', "search:exa: price must be US dollars"),
    ("HOLD_TTL_SECONDS", "59", "greater than or equal to 60"),
    ("HOLD_TTL_SECONDS", "600", "longer than UPSTREAM_TIMEOUT_SECONDS"),
    ("GRANT_CAP", "-1", "greater than or equal to 0"),
    ("GRANT_CAP", "0.0000000001", "no more than 9 decimal places"),
    ("GRANT_CAP_PER_DAY", "a lot", "valid decimal"),
    ("REQUEST_RETENTION_DAYS", "0", "greater than or equal to 1"),
    ("OPENROUTER_MANAGEMENT_KEY", "sk-or-v1-…", "characters that no key has"),
    ("CRON_SECRET", "short", "at least 16 characters"),
    ("CRON_SECRET", "0123456789abcdef…", "characters that no key has"),
    ("HEALTH_USER_COUNT", "perhaps", "boolean"),
    ("PROMETHEUS_URL", "localhost:9", "must be a web address"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:9", "must be a web address"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "authorization: Bearer x", "must be name=value pairs"),
    ("OTEL_SERVICE_NAME", "two words", "should match pattern"),
    ("OTEL_TRACES_EXPORTER", "zipkin", "'otlp' or 'none'"),
    ("OTEL_METRICS_EXPORTER", "prometheus", "'otlp' or 'none'"),
    ("TRACE_VENDORS", "perhaps", "boolean"),
]
TAKEN_AS_THEY_ARE = {"HOST", "TOLLGATE_DATA_DIR"}
"""Names of this machine: whether they can be used shows when they are."""

LEAKY = [
    ("DATABASE_URL", "mysql://root:hunter2hunter2@db.example/tollgate"),
    ("DATABASE_URL", "postgresql://root:hunter2hunter2@[db.example/tollgate"),
    # Python itself names the whole address when a character of it would become another.
    ("DATABASE_URL", "postgresql://root:hunter2hunter2\uff0f@db.example/tollgate"),
    ("REDIS_URL", "http://:hunter2hunter2@cache.example"),
    ("REDIS_URL", "redis://:hunter2hunter2\uff03@cache.example"),
    ("SUPABASE_SECRET_KEY", "sb_publishable_hunter2hunter2"),
    ("KEY_PEPPER", "hunter2hunter2"),
    ("KEY_PEPPER_PREVIOUS", "hunter2hunter2"),
    ("AGENT_KEY", "hunter2hunter2"),
    ("AGENT_KEY_PREVIOUS", "hunter2hunter2"),
    ("VAULT_KEY", "hunter2hunter2"),
    ("VAULT_KEY_PREVIOUS", "hunter2hunter2"),
    ("OPENROUTER_MANAGEMENT_KEY", "hunter2hunter2…"),
    ("CRON_SECRET", "hunter2hunter2"),
    ("METRICS_TOKEN", "hunter2hunter2…"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2hunter2"),
    ("OPENROUTER_API_KEY", "hunter2hunter2…"),
]


def names(value: type = object) -> list[str]:
    return [str(field.alias) for field in FIELDS.values() if value is object or value in _kinds(field.annotation)]


def _kinds(annotation: Any) -> tuple[Any, ...]:
    return (annotation, *getattr(annotation, "__args__", ()))


def why(environ: dict[str, str], env_file: Path | None = None) -> list[str]:
    with pytest.raises(SettingsError) as refusal:
        read(environ, env_file)
    assert str(refusal.value) == "\n".join(refusal.value.lines)
    return refusal.value.lines


@pytest.mark.parametrize(("name", "value", "words"), BAD)
def test_a_bad_value_is_refused_in_one_line_that_names_the_variable(name: str, value: str, words: str) -> None:
    (line,) = why({"SUPABASE_SECRET_KEY": "sb_secret_0123456789", name: value})
    assert line.startswith(f"{name}: ")
    assert words in line
    assert "\n" not in line


def test_every_setting_has_a_bad_value_above() -> None:
    assert {name for name, _, _ in BAD} == set(names()) - TAKEN_AS_THEY_ARE


def test_all_bad_values_are_told_at_once() -> None:
    lines = why({"PORT": "eighty", "LOG_LEVEL": "loud", "REDIS_URL": "http://cache.example"})
    assert [line.split(":")[0] for line in lines] == ["PORT", "LOG_LEVEL", "REDIS_URL"]


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
def test_every_setting_has_a_variable_and_a_sentence(field: Any) -> None:
    assert field.alias == field.alias.upper()
    assert field.description.endswith(".")


def test_no_two_settings_share_a_variable() -> None:
    assert len(set(names())) == len(FIELDS)


def test_nothing_set_is_a_working_development_machine() -> None:
    chosen = read({})
    assert not chosen.production
    assert chosen.embedded
    assert (chosen.bind_host, chosen.port) == ("127.0.0.1", 8000)
    assert chosen.data_folder == Path(".tollgate").absolute()


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("empty", ["", " ", "\t\n"])
def test_an_empty_value_counts_as_not_set(name: str, empty: str) -> None:
    assert read({name: empty}) == read({})


def test_variables_of_others_are_left_alone() -> None:
    assert read({"PATH": "/bin", "port": "1", "environment": "production"}) == read({})


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("PORT=9000\nLOG_LEVEL=debug\n")
    chosen = read({"PORT": "9001"}, file)
    assert (chosen.port, chosen.log_level) == (9001, "debug")


def test_an_empty_value_of_the_environment_lets_the_file_speak(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("PORT=9000\n")
    assert read({"PORT": ""}, file).port == 9000


def test_a_name_without_a_value_in_the_file_counts_as_not_set(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("PORT\nLOG_LEVEL=\n# comment\n\nHOST=::1\n")
    chosen = read({}, file)
    assert (chosen.port, chosen.log_level, chosen.host) == (8000, "info", "::1")


def test_a_bad_value_in_the_file_is_refused_like_one_of_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("PORT=eighty\n")
    (line,) = why({}, file)
    assert line.startswith("PORT: ")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_bytes(b"KEY_PEPPER=hunter2\xff\xfe\n")
    (line,) = why({}, file)
    assert line.startswith("ENV_FILE: ")
    assert "env cannot be read" in line
    assert "hunter2" not in line


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may read everything, so the refusal must come from elsewhere.
    def forbidden(path: Path) -> dict[str, str]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("dotenv.dotenv_values", forbidden)
    (line,) = why({}, tmp_path / "env")
    assert line.startswith("ENV_FILE: ")
    assert "Permission denied" in line


@pytest.mark.parametrize("named", ["missing", "."])
def test_a_command_refuses_a_file_that_is_not_there(named: str, tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "tollgate", "serve"],
        env=os.environ | {"ENV_FILE": named},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr == f"tollgate: ENV_FILE: there is no file {named}\n"


def test_the_settings_are_frozen() -> None:
    chosen = read({})
    with pytest.raises(ValidationError, match="frozen"):
        chosen.port = 1


@pytest.mark.parametrize(("name", "value"), LEAKY)
def test_no_secret_is_told_when_it_is_refused(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        read({"SUPABASE_SECRET_KEY": "sb_secret_0123456789", name: value})
    shown = "".join(traceback.format_exception(refusal.value)) + repr(refusal.value)
    assert name in shown
    assert "hunter2" not in shown


def test_every_secret_has_a_leaky_value_above() -> None:
    assert {name for name, _ in LEAKY} == set(names(SecretStr))


def test_no_secret_is_told_when_something_else_is_refused() -> None:
    lines = why({"TOLLGATE_ENV": "production", **SUPABASE, "KEY_PEPPER_PREVIOUS": "hunter2" * 5})
    assert "hunter2" not in "".join(lines)


SECRETS = {
    "DATABASE_URL": DATABASE,
    "SUPABASE_SECRET_KEY": "sb_secret_hunter2hunter2",
    "REDIS_URL": "redis://:hunter2hunter2@cache.example",
    "KEY_PEPPER": "hunter2" * 5,
    "KEY_PEPPER_PREVIOUS": "hunter2" * 6,
    "AGENT_KEY": "hunter2" * 7,
    "AGENT_KEY_PREVIOUS": "hunter2" * 8,
    "VAULT_KEY": "5eed" * 16,
    "VAULT_KEY_PREVIOUS": "0ff5e7" * 10 + "beef",
    "OPENROUTER_API_KEY": "sk-or-v1-hunter2hunter2",
    "OPENROUTER_MANAGEMENT_KEY": "sk-or-v1-hunter2hunter2hunter2",
    "CRON_SECRET": "hunter2" * 4,
    "METRICS_TOKEN": "hunter2" * 5,
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=hunter2hunter2",
}


def test_no_secret_shows_in_the_settings_own_text() -> None:
    chosen = read(SECRETS)
    text = f"{chosen!r} {chosen} {chosen.model_dump()} {chosen.model_dump_json()}"
    assert not [name for name, value in SECRETS.items() if value in text]
    assert "hunter2" not in text


def test_the_logs_are_given_every_secret_to_hide() -> None:
    assert set(SECRETS) == set(names(SecretStr))
    assert set(read(SECRETS).secrets()) == set(SECRETS.values())


def test_production_names_all_that_it_misses_at_once() -> None:
    lines = why({"TOLLGATE_ENV": "production", "SUPABASE_URL": "https://ref.supabase.co"})
    assert [line.split(":")[0] for line in lines] == ["SUPABASE_SECRET_KEY", "KEY_PEPPER"]
    lines = why({"TOLLGATE_ENV": "production"})
    assert [line.split(":")[0] for line in lines] == ["KEY_PEPPER", "DATABASE_URL"]
    assert all("production" in line for line in lines)


@pytest.mark.parametrize("name", ["KEY_PEPPER", "DATABASE_URL"])
def test_production_refuses_to_start_without_each_of_its_secrets(name: str) -> None:
    (line,) = why({given: value for given, value in PRODUCTION.items() if given != name})
    assert line.startswith(f"{name}: is missing")


def test_production_refuses_the_development_pepper_even_when_it_is_spelled_out() -> None:
    (line,) = why(PRODUCTION | {"KEY_PEPPER": DEVELOPMENT_PEPPER})
    assert line.startswith("KEY_PEPPER: ")
    assert DEVELOPMENT_PEPPER not in line


def test_production_with_all_its_secrets_listens_to_the_world() -> None:
    chosen = read(PRODUCTION)
    assert chosen.production
    assert chosen.bind_host == "0.0.0.0"
    assert read(PRODUCTION | {"HOST": "10.0.0.1"}).bind_host == "10.0.0.1"


def test_production_uses_the_embedded_postgres_only_on_purpose(tmp_path: Path) -> None:
    chosen = read({"TOLLGATE_ENV": "production", "KEY_PEPPER": PEPPER, "TOLLGATE_DATA_DIR": str(tmp_path)})
    assert chosen.embedded
    assert chosen.data_folder == tmp_path


@pytest.mark.parametrize(
    "key", ["sb_secret_0123456789", token(role="service_role"), "not.a.token", "a.!!!.b", "a.bnVsbA.b", "plain"]
)
def test_a_key_that_is_not_public_is_taken(key: str) -> None:
    chosen = read(SUPABASE | {"SUPABASE_SECRET_KEY": key})
    assert chosen.supabase_secret_key is not None
    assert chosen.supabase_secret_key.get_secret_value() == key


@given(key=st.text(st.characters(codec="ascii", exclude_categories=["C", "Z"]), min_size=1))
def test_a_key_of_any_text_is_taken(key: str) -> None:
    assert read(SUPABASE | {"SUPABASE_SECRET_KEY": f"x{key}"}).supabase_secret_key == SecretStr(f"x{key}")


def test_the_service_role_name_is_read_when_the_new_one_is_not_set() -> None:
    old = token(role="service_role")
    without = {"SUPABASE_URL": SUPABASE["SUPABASE_URL"], "SUPABASE_SERVICE_ROLE_KEY": old}
    for given_, expected in [
        (without, old),
        (without | {"SUPABASE_SECRET_KEY": " "}, old),
        (SUPABASE | {"SUPABASE_SERVICE_ROLE_KEY": old}, "sb_secret_hunter2hunter2"),
    ]:
        chosen = read(given_).supabase_secret_key
        assert chosen is not None
        assert chosen.get_secret_value() == expected


def test_a_public_key_under_the_old_name_is_refused_too() -> None:
    (line,) = why({"SUPABASE_URL": SUPABASE["SUPABASE_URL"], "SUPABASE_SERVICE_ROLE_KEY": token(role="anon")})
    assert line.startswith("SUPABASE_SECRET_KEY: ")


def test_a_supabase_url_without_its_key_is_refused() -> None:
    (line,) = why({"SUPABASE_URL": SUPABASE["SUPABASE_URL"]})
    assert line.startswith("SUPABASE_SECRET_KEY: is missing")


@pytest.mark.parametrize("mark", [{"VERCEL": "1"}, {"AWS_LAMBDA_FUNCTION_NAME": "tollgate"}])
def test_a_serverless_host_without_a_database_is_refused(mark: dict[str, str]) -> None:
    (line,) = why(mark | {"TOLLGATE_DATA_DIR": "/tmp/tollgate"})
    assert line.startswith("SUPABASE_URL: is missing")
    assert not read(mark | SUPABASE).embedded
    assert not read(mark | {"DATABASE_URL": DATABASE}).embedded


def test_the_vault_has_its_newest_key_first_and_needs_one_to_have_a_former_one() -> None:
    new, old = "5e" * 32, "0F" * 32
    assert read({"VAULT_KEY": new, "VAULT_KEY_PREVIOUS": old}).vault_keys == (bytes.fromhex(new), bytes.fromhex(old))
    assert read({}).vault_keys == ()
    assert why({"VAULT_KEY_PREVIOUS": old}) == ["VAULT_KEY: is missing; VAULT_KEY_PREVIOUS needs it"]
    assert why({"VAULT_KEY": old, "VAULT_KEY_PREVIOUS": old.lower()}) == [
        "VAULT_KEY_PREVIOUS: is the same as VAULT_KEY"
    ]


def test_a_database_url_wins_over_supabase() -> None:
    assert isinstance(open_door(read(SUPABASE | {"DATABASE_URL": DATABASE}), Http()), PostgresDoor)
    assert isinstance(open_door(read(SUPABASE), Http()), SupabaseDoor)
    assert isinstance(open_door(read({}), Http()), PostgresDoor)


def test_the_peppers_are_told_newest_first() -> None:
    assert read({"KEY_PEPPER": PEPPER, "KEY_PEPPER_PREVIOUS": "q" * 32}).peppers == (PEPPER, "q" * 32)
    assert read({"KEY_PEPPER": PEPPER}).peppers == (PEPPER,)


def test_the_agent_keys_are_told_newest_first_and_a_former_one_is_not_alone() -> None:
    assert read({"AGENT_KEY": "a" * 32, "AGENT_KEY_PREVIOUS": "b" * 32}).agent_keys == ("a" * 32, "b" * 32)
    assert why({"AGENT_KEY_PREVIOUS": "b" * 32}) == ["AGENT_KEY: is missing; AGENT_KEY_PREVIOUS needs it"]
    same = {"AGENT_KEY": "a" * 32, "AGENT_KEY_PREVIOUS": "a" * 32}
    assert why(same) == ["AGENT_KEY_PREVIOUS: is the same as AGENT_KEY"]


def test_a_trailing_slash_of_an_address_does_not_double() -> None:
    chosen = read(
        SUPABASE | {"SUPABASE_URL": "https://ref.supabase.co/", "OPENROUTER_BASE_URL": "http://localhost:9/v1/"}
    )
    assert (chosen.supabase_url, chosen.openrouter_base_url) == ("https://ref.supabase.co", "http://localhost:9/v1")


@pytest.mark.parametrize(
    ("host", "proxy", "bypassed"),
    [("0.0.0.0", "proxy", True), ("::", "proxy", True), ("127.0.0.1", "proxy", False), ("0.0.0.0", "none", False)],
)
def test_a_server_that_all_may_reach_past_its_proxy_is_warned_of(host: str, proxy: str, bypassed: bool) -> None:
    assert read({"HOST": host, "TRUSTED_PROXY": proxy}).proxy_may_be_bypassed == bypassed


def test_the_server_limits_what_clients_send_as_it_was_set() -> None:
    chosen = {
        "MAX_HEAD_BYTES": "40000",
        "HEAD_TIMEOUT_SECONDS": "11",
        "BODY_IDLE_SECONDS": "21",
        "MAX_UNFINISHED_BYTES": "3000000",
        "MAX_UNFINISHED_BYTES_PER_ADDRESS": "2000000",
        "KEEP_ALIVE_SECONDS": "6",
    }
    limits = Limits(40_000, 11.0, 21.0, 3_000_000, 2_000_000, 6)
    assert _limits(read(chosen)) == limits
    behind_a_proxy = read(chosen | {"TRUSTED_PROXY": "alb"})
    assert _limits(behind_a_proxy) == limits._replace(unfinished_bytes_of_one=None)
