"""The program: control loop, supervisor and ingress in one event loop. `python -m tollgate agent` runs it."""

import argparse
import asyncio
import contextlib
import hashlib
import os
import shlex
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import uvicorn

from tollgate import __version__
from tollgate.agent import capabilities as host_capabilities
from tollgate.agent.containers import Containers
from tollgate.agent.control_loop import ControlLoop, ControlPlane, NotEnrolled
from tollgate.agent.data_directory import DataDirectory, DirectoryTaken
from tollgate.agent.downloads import Downloads
from tollgate.agent.folders import Folders
from tollgate.agent.host_keys import IDENTITY, HostKeys
from tollgate.agent.hub import ADDRESS
from tollgate.agent.ingress import Ingress
from tollgate.agent.samples import Sampler
from tollgate.agent.setup import Setup
from tollgate.agent.supervisor import Supervisor
from tollgate.agent.tasks import Tasks
from tollgate.process import logs, open_files, server
from tollgate.process.clock import monotonic

DATA_DIRECTORY: Final = ".tollgate-agent"
ENROL_PAUSE: Final = 2.0
ENROL_ATTEMPTS: Final = 30
DRAIN_SECONDS: Final = 5

log = logs.source("application")


def main(arguments: Sequence[str]) -> int:
    options = flags().parse_args(arguments)
    logs.configure(options.log_level, [], console=True)
    directory = DataDirectory(options.data_dir)
    try:
        directory.hold()
        asyncio.run(_run(options, directory))
    except (DirectoryTaken, NotEnrolled, server.PortTaken) as error:
        print(f"tollgate agent: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"tollgate agent: cannot use {directory.path}: {error.strerror}", file=sys.stderr)
        return 1
    finally:
        directory.release()
    return 0


def flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tollgate agent",
        description="Runs models on this machine for a Tollgate server.",
        epilog="What these flags do not allow, no admin of the server can make this machine do.",
    )
    add = parser.add_argument
    add("--server", metavar="URL", help="where Tollgate is")
    add(
        "--token",
        help="the enrolment token, needed once; TOLLGATE_AGENT_TOKEN, which `ps` does not show, does the same",
    )
    add("--local", action="store_true", help="beside a server on this machine, which enrols it by itself")
    add("--name", help="the host's name; its hostname if not said")
    add("--data-dir", type=Path, default=Path(DATA_DIRECTORY), help=f"what the agent keeps ({DATA_DIRECTORY})")
    add("--base-dir", type=Path, help="the folder of models; `models` in the data directory if not said")
    add(
        "--allow-root",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="another folder that models may be in",
    )
    add("--allow-image", action="append", default=[], metavar="IMAGE", help="a container image that may run")
    add("--allow-flag", action="append", default=[], metavar="FLAG", help="a further flag or variable of engines")
    add("--allow-command", action="append", default=[], type=_command, metavar="NAME=COMMAND",
        help="a command of the engine `custom`; {model}, {name}, {socket} and {port} are filled in")  # fmt: skip
    add(
        "--ingress",
        type=_address,
        default=("127.0.0.1", 8700),
        metavar="HOST:PORT",
        help="where to listen (127.0.0.1:8700)",
    )
    add("--ingress-url", metavar="URL", help="how Tollgate reaches the ingress; none if only tasks are to work")
    add("--tls-cert", type=Path, metavar="FILE", help="the certificate of the ingress")
    add("--tls-key", type=Path, metavar="FILE", help="its private key")
    add("--containers", type=shlex.split, default=[], metavar="COMMAND", help="docker or podman, with words of its own")
    add("--offline", action="store_true", help="download nothing")
    add("--dcgm", metavar="URL", help="metrics of NVIDIA's DCGM exporter, instead of NVML")
    add("--node-exporter", metavar="URL", help="metrics of Prometheus' node exporter, instead of the agent's own view")
    add(
        "--until-stdin-ends",
        action="store_true",
        help="end when standard input does: it is a pipe of the program that started the agent, however that ends",
    )
    add("--end-engines", action="store_true", help="end the engines with the agent; they go on otherwise")
    add("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser


def _command(given: str) -> tuple[str, tuple[str, ...]]:
    name, equals, words = given.partition("=")
    if not (name and equals and words):
        raise argparse.ArgumentTypeError("write NAME=COMMAND")
    return name, tuple(shlex.split(words))


def _address(given: str) -> tuple[str, int]:
    host, colon, port = given.rpartition(":")
    if not (colon and host and port.isdigit()):
        raise argparse.ArgumentTypeError("write HOST:PORT")
    return host.strip("[]"), int(port)


async def _run(options: argparse.Namespace, directory: DataDirectory) -> None:
    open_files.raise_limit()
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    if options.until_stdin_ends:
        loop.add_reader(sys.stdin.fileno(), _end_with_stdin, ended)
    async with httpx.AsyncClient(timeout=30, headers={"user-agent": f"tollgate-agent/{__version__}"}) as http:
        with server.bind(options.ingress[0], options.ingress[1], remedy="choose another with --ingress") as listener:
            await _serve(options, directory, http, listener, ended)


def _end_with_stdin(ended: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        ended.set()


async def _serve(
    options: argparse.Namespace, directory: DataDirectory, http: httpx.AsyncClient, listener: Any, ended: asyncio.Event
) -> None:
    base = (options.base_dir or directory.path / "models").absolute()
    base.mkdir(parents=True, exist_ok=True)
    roots = [base, *(root.absolute() for root in options.allow_root)]
    exporters = {name: url for name, url in (("dcgm", options.dcgm), ("node", options.node_exporter)) if url}
    sampler = Sampler(base, monotonic, http, exporters)
    await sampler.look()
    client = host_capabilities.container_client(options.containers)
    memory = sampler.memory_total_bytes

    def capabilities() -> dict[str, Any]:
        return host_capabilities.capabilities(
            sampler.gpus, client, roots, options.allow_image, options.allow_flag, dict(options.allow_command), memory
        )

    control_plane = ControlPlane(options.server or "", http)
    identity = await _identity(options, directory, control_plane, capabilities(), ended)
    if identity is None:
        return
    keys = HostKeys(directory, identity, lambda secrets: logs.configure(options.log_level, secrets, console=True))
    hub = os.environ.get("HF_ENDPOINT") or ADDRESS
    downloads = Downloads(base, hub=hub, offline=options.offline)
    setup = Setup(
        directory=directory,
        downloads=downloads,
        folders=Folders(roots, base),
        capabilities=capabilities,
        gpus=sampler.claimable,
        containers=Containers(client) if client and options.allow_image else None,
        commands=dict(options.allow_command),
        hub=hub,
        secrets=keys.all,
    )
    supervisor = Supervisor(setup)
    tasks = Tasks(setup, supervisor)
    control = ControlLoop(
        control_plane if options.server else ControlPlane(identity["server"], http),
        directory,
        supervisor,
        keys,
        ingress_url=options.ingress_url,
        capabilities=capabilities,
        sample=sampler.take,
        perform=tasks.perform,
        hub_tokens=setup.hub_tokens,
    )
    if not control.may_act:  # a copy: what the other directory's agent runs is not ours
        shutil.rmtree(directory.path / "engines", ignore_errors=True)
    supervisor.may_act = lambda: control.may_act
    supervisor.restore()
    ingress = Ingress(supervisor, keys, tasks.perform, control.wake)
    log.info("agent", host=identity["host_id"], ingress=server.address(listener), version=__version__)
    async with _listening(ingress, listener, options):
        work = [asyncio.create_task(one) for one in (supervisor.keep(), control.keep(), sampler.keep())]
        stop = asyncio.create_task(ended.wait())
        await asyncio.wait([*work, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        for task in work:
            task.cancel()
        results = await asyncio.gather(*work, return_exceptions=True)
        await control.leave()
    if options.end_engines and control.may_act:
        await supervisor.end_all()
    await supervisor.leave()
    for result in results:
        if isinstance(result, Exception):
            raise result


async def _identity(
    options: argparse.Namespace,
    directory: DataDirectory,
    control_plane: ControlPlane,
    capabilities: dict[str, Any],
    ended: asyncio.Event,
) -> dict[str, Any] | None:
    """The host's id and key: from disk, or by an enrolment. A token that was not used here before enrols again, after a
    rotation of the key. None if the program was told to end meanwhile."""
    known = directory.read(IDENTITY)
    token = options.token or os.environ.get("TOLLGATE_AGENT_TOKEN")
    used = hashlib.sha256(token.encode()).hexdigest() if token else None
    if known and (used is None or known["token_digest"] == used):
        return known
    if not token or not options.server:
        raise NotEnrolled("this machine is not enrolled: POST /admin/hosts gives the command with --server and --token")
    told = {
        "name": options.name or os.uname().nodename,
        "agent_version": __version__,
        "capabilities": capabilities,
        "ingress_url": options.ingress_url,
    }
    for attempt in range(ENROL_ATTEMPTS):
        try:
            enrolled = await control_plane.enrol(token, told)
        except httpx.HTTPError as error:
            if attempt == ENROL_ATTEMPTS - 1:
                raise NotEnrolled(f"{options.server} does not answer: {error or type(error).__name__}") from None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ENROL_PAUSE):
                    await ended.wait()
                    return None
        else:
            identity = {
                "server": options.server,
                "host_id": enrolled.host_id,
                "host_key": enrolled.host_key,
                "token_digest": used,
            }
            directory.write(IDENTITY, identity)
            return identity
    return None


@contextlib.asynccontextmanager
async def _listening(ingress: Ingress, listener: Any, options: argparse.Namespace) -> AsyncIterator[None]:
    config = uvicorn.Config(
        ingress,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
    )
    serving = _Uvicorn(config)
    task = asyncio.create_task(serving.serve(sockets=[listener]))
    try:
        yield
    finally:
        serving.should_exit = True
        await task


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """The program has its own."""
        yield
