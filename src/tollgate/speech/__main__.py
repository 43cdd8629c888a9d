"""`python -m tollgate.speech --model PATH --name NAME --uds SOCKET`: serves speech until it is ended."""

import argparse
import os
from pathlib import Path

import uvicorn

from tollgate.speech.app import SpeechServer
from tollgate.speech.voice import SAMPLE_RATE, Voice


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tollgate.speech", description="Serves /v1/audio/speech.")
    parser.add_argument("--model", required=True, type=Path, help="an .onnx file, or a folder with one")
    parser.add_argument("--name", required=True, help="the name of the model in requests")
    parser.add_argument("--voice", default="heart")
    parser.add_argument("--threads", default=1, type=int)
    parser.add_argument("--uds", help="the UNIX socket to listen on")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default=0, type=int)
    given = parser.parse_args()
    voice = Voice(given.model, given.voice, given.threads)
    server = SpeechServer(given.name, voice.speak, SAMPLE_RATE, os.environ.get("TTS_API_KEY", ""))
    where = {"uds": given.uds} if given.uds else {"host": given.host, "port": given.port}
    uvicorn.run(server.app(), lifespan="off", log_level="warning", **where)


if __name__ == "__main__":
    main()
