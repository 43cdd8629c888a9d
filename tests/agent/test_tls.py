"""The ingress over TLS: with a certificate of the agent's own, and behind the nginx that the docs show."""

import re
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

from agent import host
from agent.control_plane import PATIENCE_SECONDS, ControlPlane, until
from agent.host import Agent
from servers.nginx import PROGRAM, listening
from servers.process import free_port

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "agent.md"


@pytest.fixture
def certificate(short_path: Path) -> tuple[Path, Path]:
    cert, key = short_path / "cert.pem", short_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    of = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*made, *of], check=True, capture_output=True)
    return cert, key


def client(plane: ControlPlane, port: int, certificate: tuple[Path, Path]) -> httpx.Client:
    trusted = ssl.create_default_context(cafile=certificate[0])
    headers = {"authorization": f"Bearer {plane.host_key}"}
    return httpx.Client(
        base_url=f"https://localhost:{port}", headers=headers, verify=trusted, timeout=PATIENCE_SECONDS, trust_env=False
    )


def test_an_agent_with_a_certificate_speaks_tls_only(
    plane: ControlPlane, models: Path, short_path: Path, certificate: tuple[Path, Path]
) -> None:
    cert, key = certificate
    with host.running(plane, short_path, models, "--tls-cert", str(cert), "--tls-key", str(key)) as agent:
        until(lambda: plane.syncs)
        with client(plane, agent.port, certificate) as http:
            assert http.get("/agent/health").json()["status"] == "ok"
        with agent.client() as plain, pytest.raises(httpx.TransportError):
            plain.get("/agent/health")


@pytest.mark.skipif(PROGRAM is None, reason="nginx is not installed (CI installs it)")
def test_the_nginx_of_the_docs_passes_streams_on_as_they_come(
    plane: ControlPlane, models: Path, agent: Agent, tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    port, (cert, key) = free_port(), certificate
    (block,) = re.findall(r"```nginx\n(.*?)```", PAGE.read_text(), re.DOTALL)
    changes = {
        "8443": f"127.0.0.1:{port}", "gpu1.example.com": "localhost", "127.0.0.1:8700": f"127.0.0.1:{agent.port}",
        "/etc/ssl/gpu1.pem": str(cert), "/etc/ssl/gpu1.key": str(key),
    }  # fmt: skip
    for ours, here in changes.items():
        assert block.count(ours) == 1, ours
        block = block.replace(ours, here)
    (tmp_path / "shipped").write_text(block)
    plane.want("dep_1", host.odd(models / "tiny.gguf", "drips"))
    plane.becomes("dep_1", "running")
    with listening(port, tmp_path), client(plane, port, certificate) as http:
        assert http.get("/agent/health", headers={"authorization": "Bearer other"}).status_code == 401
        with http.stream("POST", "/d/dep_1/v1/drips", json={}) as answer:
            assert next(answer.iter_raw()) == b"data: 1\n\n"  # the engine sends no more before the client has gone
