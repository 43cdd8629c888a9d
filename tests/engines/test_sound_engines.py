"""Speech by a real voice, heard by a real recogniser, both on a host. They are installed for `make test-engines`."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import openai

from agent import host
from agent.control_plane import ControlPlane
from completions.stage import Stage
from engines.conftest import charged
from people import Person
from sandbox.serving import until
from servers.engines import program, recogniser

TEXT = "The weather is nice today."
FREE = {"prompt": "0", "completion": "0"}
VOICE = {"engine": "tts", "kind": "speech", "served_name": "hosts/voice"}
EAR = {"engine": "whisper", "kind": "transcription", "served_name": "hosts/ear"}


async def test_what_is_spoken_on_a_host_is_heard_there_and_both_are_charged(stage: Stage, someone: Person) -> None:
    operator, listener = await stage.customer(role="admin"), await stage.customer()
    made = await stage.post(operator, {"name": "sound"}, "/admin/hosts")
    with agent_of(stage, made.json()["enrolment"]["token"]) as models:
        host_id = made.json()["id"]
        await offered(stage, operator, host_id, {**VOICE, "source": path(models)}, {"character": "0.00001"})
        await offered(stage, operator, host_id, {**EAR, "source": path(recogniser())}, {"second": "0.0001"})
        with openai.OpenAI(base_url=f"{stage.gateway.address}/v1", api_key=someone.secret, max_retries=0) as client:
            spoken = client.audio.speech.create(model="hosts/voice", voice="any", input=TEXT, response_format="wav")
            sound = spoken.read()
        with openai.OpenAI(base_url=f"{stage.gateway.address}/v1", api_key=listener.secret, max_retries=0) as client:
            heard = client.audio.transcriptions.create(model="hosts/ear", file=("a.wav", sound))
    seconds = -(-(len(sound) - 44) // 48_000)
    assert heard.text.strip().lower().rstrip(".") == TEXT.lower().rstrip(".")
    assert (await charged(stage, someone))["charge_nanos"] == len(TEXT) * 10_000
    assert (await charged(stage, listener))["charge_nanos"] == seconds * 100_000


@contextlib.contextmanager
def agent_of(stage: Stage, token: str) -> Iterator[Path]:
    """With the Python that has a voice, and the recogniser on its PATH. The folder of its models."""
    with tempfile.TemporaryDirectory(prefix="tg-") as folder:
        models = Path(folder, "models")
        models.mkdir()
        plane = cast(ControlPlane, SimpleNamespace(address=stage.gateway.address))
        agent = host.Agent(plane, Path(folder, "a"), models, python=str(program("speech", "python")))
        agent.environment["PATH"] = f"{program('whisper', 'faster-whisper-server').parent}:{agent.environment['PATH']}"
        agent.start("--allow-root", str(recogniser()), token=token)
        try:
            yield models
        finally:
            host.end(agent)


async def offered(stage: Stage, operator: Person, host_id: str, spec: dict[str, Any], price: dict[str, str]) -> None:
    """A model of the host, as soon as customers can call it."""
    body = {"host_id": host_id, "spec": spec, "pricing": {**FREE, **price}, "wanted": "running"}
    made = await stage.post(operator, body, "/admin/models")
    assert made.status_code == 201, made.text
    headers = {"authorization": f"Bearer {operator.secret}"}

    async def is_offered() -> bool:
        found = await stage.http.get(f"{stage.gateway.address}/v1/models/{spec['served_name']}", headers=headers)
        return found.status_code == 200

    await until(is_offered)


def path(place: Path) -> dict[str, str]:
    return {"type": "path", "path": str(place)}
