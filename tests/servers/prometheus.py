"""Prometheus with the configuration that we ship, its node exporter, and promtool."""

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from servers.process import free_port, listens, running

DEPLOY = Path(__file__).parents[2] / "deploy"
PROGRAM = shutil.which("prometheus")
PROMTOOL = shutil.which("promtool")
NODE_EXPORTER = shutil.which("prometheus-node-exporter")


def promtool(*words: str | Path, given: str = "") -> str:
    """What it printed. It fails for what it finds."""
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *map(str, words)], input=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@contextlib.contextmanager
def node_exporter(folder: Path) -> Iterator[str]:
    """Its host and port."""
    assert NODE_EXPORTER is not None
    port = free_port()
    command = [NODE_EXPORTER, f"--web.listen-address=127.0.0.1:{port}"]
    with running(command, lambda: listens(port), folder / "node-exporter.log"):
        yield f"127.0.0.1:{port}"


def configuration(folder: Path, tollgate: str, node: str, token: str) -> Path:
    """As we ship it, for these addresses, and in a hurry: a rule need not hold for minutes."""
    changes = {
        '"api:8000"': f'"{tollgate}"',
        '"node-exporter:9100"': f'"{node}"',
        "/run/secrets/metrics_token": str(folder / "token"),
        "scrape_interval: 30s": "scrape_interval: 1s",
        "scrape_timeout: 10s": "scrape_timeout: 1s",
        "evaluation_interval: 30s": "evaluation_interval: 200ms",
    }
    shipped = (DEPLOY / "prometheus.yml").read_text()
    for ours, here in changes.items():
        assert shipped.count(ours) == 1, ours
        shipped = shipped.replace(ours, here)
    (folder / "token").write_text(token)
    (folder / "prometheus.yml").write_text(shipped)
    (folder / "alerts.yml").write_text(re.sub(r"\n +for: .+", "", (DEPLOY / "alerts.yml").read_text()))
    return folder / "prometheus.yml"


@contextlib.contextmanager
def prometheus(file: Path, port: int) -> Iterator[None]:
    assert PROGRAM is not None
    command = [
        PROGRAM,
        f"--config.file={file}",
        f"--storage.tsdb.path={file.parent / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with running(command, lambda: listens(port), file.parent / "prometheus.log"):
        yield
