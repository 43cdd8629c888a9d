"""What hosts read of this repository says what they demand, and agrees with the code and with itself.

The schemas are the hosts' own, as their documentation has them; what they would only find out by deploying is asked
for here.
"""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

import dashboards
from tollgate.__main__ import main
from tollgate.process.server import GRACEFUL_SECONDS
from tollgate.settings import Settings, read

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SETTINGS = {str(field.alias): field for field in Settings.model_fields.values()}
PORT = SETTINGS["PORT"].default
HOSTS_OWN = {"RAILWAY_DEPLOYMENT_DRAINING_SECONDS"}
SECRETS = (
    "POSTGRES_PASSWORD",
    "REDIS_PASSWORD",
    "KEY_PEPPER",
    "AGENT_KEY",
    "CRON_SECRET",
    "METRICS_TOKEN",
    "GRAFANA_PASSWORD",
    "PGADMIN_PASSWORD",
)
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?:(?P<how>:[-?])(?P<otherwise>[^}]*))?}")
COMMAND = re.compile(r"python -m tollgate (?:[a-z-]+)")
WITH_A_PATCH = re.compile(r"v?\d+\.\d+(\.\d+)?(-[a-z0-9.-]+)?")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def parsed(name: str) -> Any:
    return yaml.safe_load(text(name))


PROCFILE = parsed("Procfile")
APP = parsed(".do/app.yaml")
COMPOSE = parsed("deploy/docker-compose.yml")
RAILWAY = tomllib.loads(text("railway.toml"))
DOCKERFILE = [
    tuple(line.split(maxsplit=1)) for line in text("Dockerfile").replace("\\\n", " ").splitlines() if line[:1].isupper()
]


def of_docker(instruction: str) -> list[str]:
    return [said for name, said in DOCKERFILE if name == instruction]


@pytest.mark.parametrize(
    "file",
    [
        "Procfile", "railway.toml", ".railway/railway.ts", ".do/app.yaml", "Dockerfile", "deploy/docker-compose.yml",
        "deploy/tollgate.service",
    ],
)  # fmt: skip
def test_every_command_is_one_that_there_is(file: str) -> None:
    said = text(file).replace('", "', " ")
    commands = COMMAND.findall(said)
    assert commands
    for command in commands:
        with pytest.raises(SystemExit) as help_told:
            main([*shlex.split(command)[3:], "--help"])
        assert help_told.value.code == 0, command


def test_the_procfile_finds_the_program_where_only_its_dependencies_were_installed() -> None:
    """Heroku and Railpack install requirements.txt, in which Tollgate itself is not."""
    assert list(PROCFILE) == ["release", "web"]
    for line in PROCFILE.values():
        bare = COMMAND.sub("python -S -c 'import tollgate'", line)
        assert bare != line
        path = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
        assert subprocess.run(["sh", "-c", bare], cwd=ROOT, env=path).returncode == 0
    assert "\ntollgate" not in text("requirements.txt")


def test_one_python_for_all_hosts() -> None:
    version = text(".python-version").strip()
    assert re.fullmatch(r"3\.1[2-4]", version), "Vercel takes 3.12 to 3.14, Heroku only a major form"
    bases = of_docker("FROM")
    assert len({base.split(" ")[0] for base in bases}) == 1
    assert bases[0].startswith(f"python:{version}.")


def test_every_variable_a_file_sets_is_one_that_we_read() -> None:
    for name in variables():
        assert name in SETTINGS or name in HOSTS_OWN, name


def variables() -> Iterator[str]:
    yield from (env["key"] for env in APP["envs"])
    yield from COMPOSE["x-tollgate"]["environment"]
    yield from re.findall(r"^ {6}([A-Z_]+):", text(".railway/railway.ts"), re.MULTILINE)
    for line in re.findall(r"^Environment=(.*)$", text("deploy/tollgate.service"), re.MULTILINE):
        yield from (pair.split("=")[0] for pair in line.split())


def test_railway_is_told_the_same_by_both_its_files() -> None:
    deploy, later = RAILWAY["deploy"], text(".railway/railway.ts")
    assert set(RAILWAY) == {"build", "deploy"}
    assert RAILWAY["build"]["builder"] == "DOCKERFILE"
    assert (ROOT / RAILWAY["build"]["dockerfilePath"]).is_file()
    assert f'start: "{deploy["startCommand"]}"' in later
    assert f'healthcheck: "{deploy["healthcheckPath"]}"' in later
    assert f"healthcheckTimeout: {deploy['healthcheckTimeout']}," in later
    assert deploy["preDeployCommand"][0] in later
    draining = re.search(r'RAILWAY_DEPLOYMENT_DRAINING_SECONDS: "(\d+)"', later)
    assert draining
    assert int(draining[1]) > GRACEFUL_SECONDS


def test_digitalocean_s_spec_is_whole_and_agrees_with_the_image() -> None:
    (api,), (migrate,) = APP["services"], APP["jobs"]
    assert migrate["kind"] == "PRE_DEPLOY"
    assert api["http_port"] == PORT
    assert api["health_check"]["http_path"] == "/healthz"
    assert api["termination"]["grace_period_seconds"] > GRACEFUL_SECONDS
    for component in (api, migrate):
        assert (ROOT / component["dockerfile_path"]).is_file()
        assert component["github"]["repo"]
        assert component["instance_size_slug"]
    assert APP["ingress"]["rules"][0]["component"]["name"] == api["name"]
    given = {env["key"]: env.get("value") for env in APP["envs"]}
    secret = {env["key"] for env in APP["envs"] if env.get("type") == "SECRET"}
    assert secret == {name for name, value in given.items() if value is None}
    assert secret >= {"DATABASE_URL", "KEY_PEPPER", "OPENROUTER_API_KEY"}
    assert read(chosen(given)).trusted_proxy == "digitalocean"


def chosen(given: Mapping[str, str | None]) -> dict[str, str]:
    """As the host would hand them over, once somebody has put in what is secret."""
    put_in = {"DATABASE_URL": "postgresql://localhost/tollgate"}
    return {name: value or put_in.get(name, "x" * 32) for name, value in given.items()}


def test_the_image_is_pinned_small_and_nobody_s() -> None:
    for base in of_docker("FROM"):
        assert WITH_A_PATCH.fullmatch(base.split(" ")[0].split(":")[1]), base
        assert "slim" in base
    assert len(of_docker("FROM")) == 2, "what builds does not travel"
    names = [name for name, _ in DOCKERFILE]
    last = len(names) - 1 - names[::-1].index("FROM")
    after = names[last:]
    assert after.index("USER") < after.index("CMD")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", of_docker("USER")[0]), "a number, which Kubernetes can see is not root"
    assert json.loads(of_docker("CMD")[0])[0] == "python", "a list, so that no shell keeps SIGTERM to itself"
    check = of_docker("HEALTHCHECK")[0].split("CMD ", 1)[1]
    assert "/healthz" in json.loads(check)[2]
    assert of_docker("EXPOSE") == [str(PORT)]


def test_the_image_is_made_of_what_docker_is_given() -> None:
    ignored = text(".dockerignore").splitlines()
    assert "*" in ignored
    given = {line[1:] for line in ignored if line.startswith("!")}
    copied = [word for said in of_docker("COPY") if "--from" not in said for word in said.split()[:-1]]
    assert set(copied) == given
    for source in copied:
        assert (ROOT / source).exists(), source
    assert not given & {"tests", "bench", ".tollgate", "deploy", "docs"}
    assert "pixeltable" not in text("requirements.txt"), "the embedded Postgres stays at home"
    assert "--require-hashes" in text("Dockerfile")


def test_every_image_of_the_stack_is_pinned() -> None:
    for name, service in COMPOSE["services"].items():
        image = service["image"]
        if image != "tollgate:local":
            assert WITH_A_PATCH.fullmatch(image.split(":")[1]), f"{name}: {image}"


def test_the_stack_is_reached_from_this_machine_alone() -> None:
    services = COMPOSE["services"]
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"nginx", "grafana", "prometheus", "pgadmin"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    assert services["api"]["read_only"] is True
    assert services["api"]["expose"] == [str(PORT)]


def test_nothing_secret_of_the_stack_has_a_default() -> None:
    found = {match["name"]: match for match in VARIABLE.finditer(text("deploy/docker-compose.yml"))}
    assert {name for name, match in found.items() if match["how"] == ":?"} == set(SECRETS)
    for name in found.keys() - set(SECRETS):
        assert not re.search("PASSWORD|SECRET|PEPPER", name), name


def test_whatever_the_stack_mounts_is_there() -> None:
    mounts = [mount for service in COMPOSE["services"].values() for mount in service.get("volumes", [])]
    for mount in mounts:
        source = mount.split(":")[0]
        if source.startswith("."):
            assert (DEPLOY / source).exists(), source
        else:
            assert source in COMPOSE["volumes"], source


def test_the_stack_s_settings_start_a_server(tmp_path: Path) -> None:
    environ = of_compose(COMPOSE["x-tollgate"]["environment"], made_in(tmp_path))
    settings = read(environ)
    assert settings.production
    assert settings.trusted_proxy == "proxy"
    assert len(settings.key_pepper.get_secret_value()) == 64


def of_compose(written: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    def value(match: re.Match[str]) -> str:
        if match["how"] == ":?":
            return values[match["name"]]
        return values.get(match["name"]) or match["otherwise"]

    return {name: VARIABLE.sub(value, text) for name, text in written.items()}


def made_in(folder: Path) -> dict[str, str]:
    subprocess.run(["sh", DEPLOY / "secrets.sh", folder], check=True)
    return dict(line.split("=", 1) for line in (folder / ".env").read_text().splitlines())


def test_secrets_are_made_once_for_each_stack_and_for_nobody_else(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (here / ".env").write_text("OPENROUTER_API_KEY=sk-or-of-the-operator\nKEY_PEPPER=chosen-by-the-operator\n")
    made, others = made_in(here), made_in(there)
    assert set(others) == set(SECRETS)
    assert len(set(others.values())) == len(SECRETS)
    assert all(re.fullmatch("[0-9a-f]{64}", secret) for secret in others.values())
    assert made["OPENROUTER_API_KEY"] == "sk-or-of-the-operator"
    assert made["KEY_PEPPER"] == "chosen-by-the-operator"
    assert not set(made.values()) & set(others.values())
    key = (here / ".env.admin-key").read_text()
    assert made_in(here) == made, "what is there stays"
    assert (here / ".env.admin-key").read_text() == key != (there / ".env.admin-key").read_text()
    assert (here / ".env.metrics-token").read_text() == f"{made['METRICS_TOKEN']}\n"
    assert (there / ".env").stat().st_mode & 0o077 == 0


def test_git_takes_no_secret_of_the_stack() -> None:
    for name in (".env", *(secret["file"] for secret in COMPOSE["secrets"].values())):
        ignored = subprocess.run(["git", "check-ignore", "--quiet", "--no-index", DEPLOY / name], cwd=ROOT)
        assert ignored.returncode == 0, name


def test_prometheus_reads_what_the_api_tells() -> None:
    job, node = parsed("deploy/prometheus.yml")["scrape_configs"]
    assert node["static_configs"] == [
        {"targets": [f"node-exporter:{COMPOSE['services']['node-exporter']['expose'][0]}"]}
    ]
    assert job["static_configs"] == [{"targets": [f"api:{PORT}"]}]
    assert job["metrics_path"] == "/metrics"
    assert job["authorization"]["credentials_file"] == "/run/secrets/metrics_token"
    assert "metrics_token" in COMPOSE["services"]["prometheus"]["secrets"]


def test_the_dashboards_ask_the_prometheus_of_the_stack() -> None:
    (source,) = parsed("deploy/grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert source["uid"] == dashboards.SOURCE["uid"]
    home = COMPOSE["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).name.removesuffix(".json") in dashboards.DASHBOARDS
    (provider,) = parsed("deploy/grafana/provisioning/dashboards/tollgate.yml")["providers"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in COMPOSE["services"]["grafana"]["volumes"]


def test_the_proxies_wait_as_long_as_a_completion_may_take() -> None:
    longest = SETTINGS["UPSTREAM_TIMEOUT_SECONDS"].default
    for file, patience in (
        ("deploy/nginx.conf", "proxy_read_timeout"),
        ("deploy/Caddyfile", "response_header_timeout"),
    ):
        waits = re.search(rf"{patience} (\d+)s", text(file))
        assert waits, file
        assert int(waits[1]) > longest


def test_the_proxies_give_a_request_as_much_time_and_room_as_the_server_does() -> None:
    head, body = SETTINGS["HEAD_TIMEOUT_SECONDS"].default, SETTINGS["BODY_IDLE_SECONDS"].default
    nginx, caddy = text("deploy/nginx.conf"), text("deploy/Caddyfile")
    assert f"client_header_timeout {head:.0f}s;" in nginx
    assert f"client_body_timeout {body:.0f}s;" in nginx
    buffers = re.search(r"large_client_header_buffers (\d+) (\d+)k;", nginx)
    assert buffers
    assert int(buffers[1]) * int(buffers[2]) * 1024 == SETTINGS["MAX_HEAD_BYTES"].default
    assert f"read_header {head:.0f}s" in caddy
    assert f"max_header_size {SETTINGS['MAX_HEAD_BYTES'].default // 1024}KB" in caddy


def test_systemd_waits_for_the_last_streams() -> None:
    unit = text("deploy/tollgate.service")
    assert "TRUSTED_PROXY=proxy" in unit
    assert "HOST=127.0.0.1" in unit, "nobody comes past the proxy, so its word can be taken"
    stop = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert stop
    assert int(stop[1]) > GRACEFUL_SECONDS
