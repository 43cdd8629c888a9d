"""OpenAI's /v1/audio/speech by hibari. It runs in the environment that `tools/install_engines.py speech` makes."""

import argparse
import io
import json
import wave
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import hibari
import numpy

SPEAKER = hibari.Hibari()


class Speech(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer("text/plain", b"I am well.")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        samples = numpy.clip(SPEAKER(asked["input"], seed=0) * 32_767, -32_768, 32_767).astype("<i2")
        made = io.BytesIO()
        with wave.open(made, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(hibari.SAMPLE_RATE)
            file.writeframes(samples.tobytes())
        self._answer("audio/wav", made.getvalue())

    def _answer(self, kind: str, content: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    ThreadingHTTPServer((options.host, options.port), Speech).serve_forever()
