"""Where an engine runs on a host, and the command that runs it there."""

from dataclasses import dataclass, field
from typing import Any, Final

from tollgate.engines.schemas import Spec

LOOPBACK: Final = "127.0.0.1"
EMBEDS: Final = {"--embeddings", "--embedding", "pooling"}
"""Words by which an engine serves embeddings only."""


@dataclass(frozen=True, slots=True)
class Place:
    """What only the host knows: where the files are, where to listen, with which secret, and which program."""

    model_path: str
    socket: str | None = None
    port: int | None = None
    secret: str = ""
    program: tuple[str, ...] = ()
    """The host's own program for the engine. `custom` has no other; there `{model}` and the like are filled in."""

    def listens(self, socket_flag: str, port_flags: tuple[str, str]) -> list[str]:
        if self.socket:
            return [socket_flag, self.socket]
        return self.on_port(port_flags)

    def on_port(self, flags: tuple[str, str]) -> list[str]:
        if self.port is None:
            raise ValueError("An engine without a socket needs a port.")
        return [flags[0], LOOPBACK, flags[1], str(self.port)]


@dataclass(frozen=True, slots=True)
class Command:
    """`environment` is added to that of the host. The secret is there, and never in `argv`."""

    argv: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    health_path: str = "/health"
    metrics_path: str | None = None
    probe: dict[str, Any] = field(default_factory=dict)
    """A request whose answer shows that the model works: method, path, and `json` or `form` and `file`."""


def option(flag: str, value: object) -> list[str]:
    """Nothing for None and False, the flag alone for True."""
    if value is None or value is False:
        return []
    return [flag] if value is True else [flag, str(value)]


def probe_of(spec: Spec) -> dict[str, Any]:
    """One token, or one embedding. `/v1/completions` needs no chat template."""
    if EMBEDS & set(spec.arguments):
        return {"method": "POST", "path": "/v1/embeddings", "json": {"model": spec.served_name, "input": "1"}}
    asked = {"model": spec.served_name, "prompt": "1", "max_tokens": 1, "temperature": 0}
    return {"method": "POST", "path": "/v1/completions", "json": asked}


def devices(spec: Spec) -> dict[str, str]:
    if spec.gpus is None:
        return {}
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, spec.gpus))}


OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""The files are there. An engine never asks the hub, and never has a token of it."""
