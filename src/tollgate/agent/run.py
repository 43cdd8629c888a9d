"""A run: one start of an engine, until it has ended. Its record is on disk before the engine is there, so that an agent
that starts later finds it."""

import asyncio
import contextlib
import secrets
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx

from tollgate.agent import engine_metrics
from tollgate.agent.claims import Claim
from tollgate.agent.containers import DEPLOYMENT_LABEL, DIRECTORY_LABEL, Containers, EngineContainer
from tollgate.agent.engine_client import EngineClient
from tollgate.agent.engine_metrics import EngineMetrics
from tollgate.agent.engine_process import EngineProcess, Leader, Waiting
from tollgate.agent.setup import Setup
from tollgate.engines import checks
from tollgate.engines.commands import SOCKET_ENGINES, Command, Container, Place, build, contain
from tollgate.engines.facts import Facts
from tollgate.engines.schemas import Spec

OUR_SPEECH_SERVER: Final = (sys.executable, "-m", "tollgate.speech")
"""With the Python that the agent has: a `python3` on the PATH need not know it."""
PAUSES: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Between two probes of an engine that loads."""
ON_RECORD: Final = ("generation", "secret", "socket", "port", "health_path", "metrics_path", "probe")
"""Of a run, beside its claim and its engine."""


class NotStartable(Exception):
    """The spec is not allowed or not possible here: trying again does not help."""


class NotRecorded(Exception):
    """There is no room for the record, so nothing was started."""


@dataclass
class Run:
    generation: int
    claim: Claim
    secret: str
    socket: str | None
    port: int | None
    health_path: str
    metrics_path: str | None
    probe: dict[str, Any]
    engine: EngineProcess | EngineContainer
    is_adopted: bool = False
    answered: bool = False
    last_refusal: str | None = None
    """Why the last probe did not succeed."""
    metrics: EngineMetrics = field(default_factory=EngineMetrics)
    making: "asyncio.Task[None] | None" = None
    """Of a container."""

    def __post_init__(self) -> None:
        self.client = EngineClient(self.socket, self.port, self.secret)

    @property
    def record(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in ON_RECORD},
            "claim": {"gpus": self.claim.gpus, "bytes_of_each": self.claim.bytes_of_each},
            "engine": self.engine.record,
        }

    async def become_ready(self) -> None:
        """Until the model has answered a request for one token."""
        for number in range(1_000_000):
            try:
                if await self.client.is_healthy(self.health_path):
                    answer = await self.client.probe(self.probe)
                    if answer.is_success:
                        self.answered = True
                        return
                    self.last_refusal = f"The probe was answered with {answer.status_code}: {answer.text[:300]}"
            except httpx.HTTPError as error:
                self.last_refusal = f"The engine does not answer yet: {error or type(error).__name__}"
            await asyncio.sleep(PAUSES[min(number, len(PAUSES) - 1)])

    async def scrape(self) -> None:
        if self.metrics_path:
            with contextlib.suppress(httpx.HTTPError):
                self.metrics = engine_metrics.read(await self.client.metrics(self.metrics_path))

    async def close(self) -> None:
        """After the end of the engine."""
        if self.making:
            await asyncio.wait([self.making])
        await self.engine.remove()
        await self.client.close()
        if self.socket:
            await asyncio.to_thread(Path(self.socket).unlink, missing_ok=True)


def adopted(record: dict[str, Any], containers: Containers | None) -> Run | None:
    """The run of a record. None if it is a container's and the host's owner took containers away."""
    engine = record["engine"]
    found: EngineProcess | EngineContainer
    if engine["kind"] == "process":
        found = EngineProcess(Leader(engine["pid"], engine["started"], engine["folder"]))
    elif containers:
        found = EngineContainer(containers, engine["name"], Path(engine["log"]))
    else:
        return None
    claim = Claim(tuple(record["claim"]["gpus"]), record["claim"]["bytes_of_each"], starts=False)
    return Run(**{name: record[name] for name in ON_RECORD}, claim=claim, engine=found, is_adopted=True)


class Launch:
    """What is needed to start an engine."""

    def __init__(self, setup: Setup, deployment: str, folder: Path) -> None:
        self._setup = setup
        self._deployment = deployment
        self._folder = folder

    def begin(
        self,
        spec: Spec,
        generation: int,
        claim: Claim,
        model: Path,
        facts: Facts | None,
        log: Path,
        keep: Callable[[Run], None],
    ) -> Run:
        """Starts the engine once `keep` has put the run on record."""
        self._refuse(spec, facts)
        if claim.gpus:
            spec = spec.model_copy(update={"gpus": list(claim.gpus)})
        place = self._place(spec, model)
        try:
            command = build(spec, place)
        except ValueError as error:
            raise NotStartable(str(error)) from None
        if spec.container_image:
            return self._contained(spec.container_image, _Start(generation, claim, place, command, log, keep))
        return self._process(_Start(generation, claim, place, command, log, keep))

    def _refuse(self, spec: Spec, facts: Facts | None) -> None:
        """Memory is not looked at: the claim was granted, and the rest is the engine's."""
        found = checks.check(spec, facts, self._setup.capabilities())
        errors = [one for one in found if one.severity == "error" and one.category != "memory"]
        if errors:
            raise NotStartable(f"{errors[0].message} {errors[0].fix}")

    def _place(self, spec: Spec, model: Path) -> Place:
        named = self._setup.directory.socket(f"{self._deployment[-12:]}-{secrets.token_hex(3)}.sock")
        path = named if spec.engine in SOCKET_ENGINES and _takes_socket(spec, self._setup) else None
        program = tuple(self._setup.commands.get(spec.custom_command or "", ()))
        if spec.engine == "tts" and not spec.container_image:
            program = OUR_SPEECH_SERVER
        if path is None and any("{socket}" in word for word in program):
            raise NotStartable("The path of the data directory is too long for sockets: give the agent a shorter one.")
        return Place(
            model_path=str(model),
            socket=str(path) if path else None,
            port=None if path else free_port(),
            secret=secrets.token_urlsafe(32),
            program=program,
        )

    def _process(self, start: "_Start") -> Run:
        waiting = Waiting(start.command.argv, start.command.environment, self._folder / "run", start.log)
        run = start.run(waiting.engine)
        try:
            start.record(run)
        except NotRecorded:
            waiting.give_up()
            raise
        waiting.go()
        return run

    def _contained(self, image: str, start: "_Start") -> Run:
        containers, place = self._setup.containers, start.place
        if containers is None:
            raise NotStartable("The host has neither docker nor podman.")
        name = f"tollgate-{self._deployment}-{secrets.token_hex(4)}"
        inside = Container(
            image=image,
            name=name,
            client=containers.client,
            read_only=tuple(map(str, self._setup.folders.parts(Path(place.model_path)))),
            writable=(str(Path(place.socket).parent),) if place.socket else (),
            gpus=start.claim.gpus,
            labels={DIRECTORY_LABEL: str(self._setup.directory.path), DEPLOYMENT_LABEL: self._deployment},
        )
        engine = EngineContainer(containers, name, start.log)
        run = start.run(engine)
        start.record(run)
        run.making = asyncio.create_task(engine.make(contain(start.command, inside)))
        return run


class _Start(NamedTuple):
    """What a process and a container are started with."""

    generation: int
    claim: Claim
    place: Place
    command: Command
    log: Path
    keep: Callable[[Run], None]

    def run(self, engine: EngineProcess | EngineContainer) -> Run:
        return Run(
            generation=self.generation,
            claim=self.claim,
            secret=self.place.secret,
            socket=self.place.socket,
            port=self.place.port,
            health_path=self.command.health_path,
            metrics_path=self.command.metrics_path,
            probe=self.command.probe,
            engine=engine,
        )

    def record(self, run: Run) -> None:
        try:
            self.keep(run)
        except OSError as error:
            raise NotRecorded(f"The agent cannot write to its data directory: {error.strerror}.") from None


def _takes_socket(spec: Spec, setup: Setup) -> bool:
    """A custom command does if it has a place for one."""
    words: Sequence[str] = setup.commands.get(spec.custom_command or "", ())
    return spec.engine != "custom" or any("{socket}" in word for word in words)


def free_port() -> int:
    """One that is free now. If another program takes it first, the engine says so, and the next start has another."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
