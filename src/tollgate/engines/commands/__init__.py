"""The command that runs a model: program, options, environment, and how to see that it works."""

import shlex
from collections.abc import Callable, Mapping
from typing import Final

from tollgate.engines.commands import custom, llamacpp, sglang, sound, tgi, vllm
from tollgate.engines.commands.containers import Container, contain
from tollgate.engines.commands.place import Command, Place
from tollgate.engines.schemas import Engine, Spec

__all__ = ["SOCKET_ENGINES", "Command", "Container", "Place", "as_string", "build", "contain"]

SOCKET_ENGINES: Final[frozenset[Engine]] = frozenset({"vllm", "llamacpp", "tts", "custom"})
"""Engines that can listen on a UNIX socket. The others need a port. A custom command may use either."""

BUILDERS: Final[Mapping[Engine, Callable[[Spec, Place], Command]]] = {
    "vllm": vllm.build,
    "sglang": sglang.build,
    "llamacpp": llamacpp.build,
    "tgi": tgi.build,
    "whisper": sound.whisper,
    "tts": sound.tts,
    "custom": custom.build,
}


def build(spec: Spec, place: Place) -> Command:
    return BUILDERS[spec.engine](spec, place)


def as_string(argv: list[str]) -> str:
    """As one would type it into a shell."""
    return shlex.join(argv)
