"""The machines that a Prometheus watches with its node exporter, where PROMETHEUS_URL names one."""

import json
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from tollgate.core import strict_json
from tollgate.core.strict_json import NotJson
from tollgate.process.http_client import Http, NoAnswer

TIMEOUT_SECONDS: Final = 3.0
INSTANCES: Final = "count by (instance) (node_uname_info)"
FIGURES: Final[Mapping[str, str]] = {
    "cpu_percent": '100 * (1 - avg(rate(node_cpu_seconds_total{mode="idle",instance=$}[2m])))',
    "load_1m": "node_load1{instance=$}",
    "memory_total_bytes": "node_memory_MemTotal_bytes{instance=$}",
    "memory_used_bytes": "node_memory_MemTotal_bytes{instance=$} - node_memory_MemAvailable_bytes{instance=$}",
    "disk_total_bytes": 'node_filesystem_size_bytes{mountpoint="/",instance=$}',
    "disk_used_bytes": 'node_filesystem_size_bytes{mountpoint="/",instance=$}'
    ' - node_filesystem_avail_bytes{mountpoint="/",instance=$}',
    "network_received_bps": '8 * sum(rate(node_network_receive_bytes_total{device!="lo",instance=$}[2m]))',
    "network_sent_bps": '8 * sum(rate(node_network_transmit_bytes_total{device!="lo",instance=$}[2m]))',
}
"""As a process sample names them. $ is the instance."""


class Unanswered(Exception):
    """The message says why."""


class Series(NamedTuple):
    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]
    """Seconds since 1970, and the value."""


def query_of(instance: str) -> str:
    """All figures of a machine in one query."""
    quoted = json.dumps(instance)
    return " or ".join(
        f'label_replace(max({expression.replace("$", quoted)}), "figure", "{name}", "", "")'
        for name, expression in FIGURES.items()
    )


class NodeExporter:
    def __init__(self, http: Http, base_url: str) -> None:
        self._http = http
        self._url = f"{base_url}/api/v1"

    async def instances(self) -> list[str]:
        """Raises Unanswered."""
        found = await self._asked("query", {"query": INSTANCES})
        return sorted(one.labels["instance"] for one in found if "instance" in one.labels)

    async def sample(self, instance: str) -> dict[str, float]:
        """The figures now. Raises Unanswered."""
        found = await self._asked("query", {"query": query_of(instance)})
        return {one.labels["figure"]: one.points[-1][1] for one in found}

    async def samples(self, instance: str, start: int, end: int, step_seconds: int) -> list[dict[str, float]]:
        """The figures over time, in the form of the database's samples. Raises Unanswered."""
        span = {"start": str(start), "end": str(end), "step": str(step_seconds)}
        found = await self._asked("query_range", {"query": query_of(instance), **span})
        moments: dict[int, dict[str, float]] = {}
        for one in found:
            for at, value in one.points:
                moments.setdefault(int(at), {"ts": int(at)})[one.labels["figure"]] = value
        return [moments[at] for at in sorted(moments)]

    async def _asked(self, path: str, query: Mapping[str, str]) -> list[Series]:
        try:
            answer = await self._http.ask("POST", f"{self._url}/{path}", TIMEOUT_SECONDS, data=query)
        except NoAnswer:
            raise Unanswered("Prometheus did not answer.") from None
        if answer.status_code != HTTPStatus.OK:
            raise Unanswered(f"Prometheus answered {answer.status_code}.")
        return read_series(answer.content)


def read_series(body: bytes) -> list[Series]:
    """Raises Unanswered for what is not an answer of Prometheus."""
    try:
        document: Any = strict_json.from_upstream(body)
        return [_series(one) for one in document["data"]["result"]]
    except (NotJson, KeyError, TypeError, ValueError):
        raise Unanswered("The server at PROMETHEUS_URL does not answer as Prometheus does.") from None


def _series(found: Mapping[str, Any]) -> Series:
    points = found["values"] if "values" in found else [found["value"]]
    numbers = [(float(at), float(value)) for at, value in points]
    return Series(found["metric"], [(at, value) for at, value in numbers if math.isfinite(value)])
