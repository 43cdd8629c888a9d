"""A command in a container. docker and podman take the same words, but for GPUs."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from tollgate.engines.commands.place import Command

CHOICE_OF_GPUS: Final = {"CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES"}


@dataclass(frozen=True, slots=True)
class Container:
    """What the host adds. Mounts have the same path inside, so that the command stays the same."""

    image: str
    name: str
    client: tuple[str, ...] = ("docker",)
    """The program, and words of its own: `podman --runtime runc`."""
    read_only: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    """The folder of the socket."""
    gpus: tuple[int, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    """The host's own words after `run`."""


def contain(command: Command, container: Container) -> Command:
    """Values of the environment are passed by name, so that no secret is on the command line of the container's client.

    Inside, the GPUs are counted from 0 again, so what chooses them outside is left out.
    """
    environment = {name: value for name, value in command.environment.items() if name not in CHOICE_OF_GPUS}
    argv = [
        *container.client, "run", "--detach", "--name", container.name,
        "--network", "host", "--ipc", "host", "--security-opt", "no-new-privileges",
        *container.options,
        *(word for name, value in container.labels.items() for word in ("--label", f"{name}={value}")),
        *(word for path in container.read_only for word in ("--volume", f"{path}:{path}:ro")),
        *(word for path in container.writable for word in ("--volume", f"{path}:{path}")),
        *(word for name in sorted(environment) for word in ("--env", name)),
        *gpu_words(container),
        "--entrypoint", command.argv[0], container.image, *command.argv[1:],
    ]  # fmt: skip
    return replace(command, argv=argv, environment=environment)


def gpu_words(container: Container) -> list[str]:
    if not container.gpus:
        return []
    if container.client[0].endswith("podman"):
        return [word for gpu in container.gpus for word in ("--device", f"nvidia.com/gpu={gpu}")]
    return ["--gpus", f'"device={",".join(map(str, container.gpus))}"']
