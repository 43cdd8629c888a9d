"""Which files make up a model: groups of GGUF files, their parts, and what an engine needs of a repository."""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Final, NamedTuple

_PART = re.compile(r"^(.*)-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
_QUANTIZATION = re.compile(
    r"(?<![A-Za-z0-9])((?:UD-)?(?:I?Q\d(?:_[A-Z0-9]+)*|TQ\d_\d|MXFP4(?:_MOE)?|BF16|F16|FP16|F32))(?![A-Za-z0-9])",
    re.IGNORECASE,
)
PREFERRED: Final = ("Q4_K_M", "Q4_K_XL", "Q5_K_M", "Q4_K_S", "Q6_K", "Q8_0")
"""Of several quantisations: small enough, and good enough. Else the first by name."""
WEIGHTS: Final = (".safetensors", ".bin", ".onnx")
BESIDES: Final = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".py", ".yaml")
LEFT_OUT: Final = ("original", "onnx", "openvino", "coreml", "flax_model", "tf_model", "training_args")


class Group(NamedTuple):
    """One model in GGUF files: all parts, in order."""

    name: str
    quantization: str | None
    files: tuple[str, ...]
    expected_parts: int

    @property
    def complete(self) -> bool:
        return len(self.files) == self.expected_parts


def quantization_of(name: str) -> str | None:
    """From a file's name, where its header does not say."""
    found = _QUANTIZATION.findall(PurePosixPath(name).name)
    return found[-1].upper() if found else None


def gguf_groups(names: Iterable[str]) -> list[Group]:
    """Projectors of images (mmproj) are no models of their own."""
    groups: dict[str, list[tuple[int, int, str]]] = {}
    for name in names:
        if name.lower().endswith(".gguf") and "mmproj" not in name.lower():
            stem, part, parts = _part(name)
            groups.setdefault(stem, []).append((part, parts, name))
    return [
        Group(stem, quantization_of(stem + ".gguf"), tuple(name for _, _, name in sorted(found)), found[0][1])
        for stem, found in sorted(groups.items())
    ]


def _part(name: str) -> tuple[str, int, int]:
    if found := _PART.match(name):
        return found[1], int(found[2]), int(found[3])
    return name[: -len(".gguf")], 1, 1


def preferred(groups: list[Group]) -> Group | None:
    rank: Mapping[str, int] = {name: number for number, name in enumerate(PREFERRED)}
    whole = [group for group in groups if group.complete] or groups
    return min(whole, key=lambda group: rank.get((group.quantization or "").removeprefix("UD-"), 99), default=None)


def needed(names: Iterable[str]) -> list[str]:
    """What an engine needs of a repository: weights in one format and one quantisation, and what is read beside."""
    given = sorted(names)
    groups = gguf_groups(given)
    kept = [name for name in given if not name.lower().startswith(LEFT_OUT)]
    weights = next((found for end in WEIGHTS if (found := [name for name in kept if name.endswith(end)])), [])
    chosen = preferred(groups)
    if chosen and not any(name.endswith(".safetensors") for name in weights):
        return sorted(chosen.files)
    return sorted({*weights, *(name for name in kept if name.endswith(BESIDES))})


def entry(names: Iterable[str]) -> str | None:
    """The file that an engine opens: the first part of a lone GGUF model. None where it opens the folder."""
    given = list(names)
    groups = gguf_groups(given)
    if len(groups) == 1 and not any(name.endswith(".safetensors") for name in given):
        return groups[0].files[0]
    return None
