"""The models of hibari: 24 kHz English speech on one core."""

from collections.abc import Iterator
from pathlib import Path

from hibari import SAMPLE_RATE, Hibari

__all__ = ["SAMPLE_RATE", "Voice"]


class Voice:
    def __init__(self, model: Path, voice: str, threads: int) -> None:
        """With the .onnx file that `model` is or holds; else with the one that the package brings."""
        files = [model] if model.suffix == ".onnx" else sorted(model.glob("*.onnx"))
        self._hibari = Hibari(voice=voice, model=str(files[0]) if files else None, threads=threads)

    def speak(self, text: str, speed: float) -> Iterator[bytes]:
        for audio in self._hibari.stream(text, speed=speed):
            yield (audio.clip(-1, 1) * 32767).astype("<i2").tobytes()
