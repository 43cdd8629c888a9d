"""Which models lie in the folders of a host, by the headers of their files. Nothing outside the roots is read."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tollgate.agent.allowed_roots import OutsideRoots, child, within
from tollgate.engines import headers, model_files
from tollgate.engines.facts import Facts, join
from tollgate.engines.headers import BadHeader
from tollgate.engines.schemas import PathSource

MOST_FILES: Final = 2_000
MOST_FOLDERS: Final = 2_000
DEEPEST: Final = 3
WARNINGS: Final = {
    "incomplete": "Parts or bytes are missing: download it again.",
    "unknown": "A header cannot be read.",
}
MIB: Final = 2**20
TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "merges.txt",
                          "vocab.txt", "special_tokens_map.json", "vocabulary.txt", "vocabulary.json")  # fmt: skip


class Folders:
    """Paths are given as text, by operators; the base directory is one of the roots, or inside one."""

    def __init__(self, roots: list[Path], base_dir: Path | None = None) -> None:
        self._roots = roots
        self.base_dir = within(base_dir, roots) if base_dir else roots[0].resolve() if roots else None

    def local_folders(self, base: str | None = None) -> list[str]:
        """The names of the folders of a base directory, without hidden ones."""
        found: list[str] = []
        for name in sorted(os.listdir(self._base(base))):
            if not name.startswith(".") and len(found) < MOST_FOLDERS and self._is_folder(name, base):
                found.append(name)
        return found

    def inspect(self, base: str | None, folder: str) -> dict[str, Any]:
        """The files of a model and what they say, in the shape of Cortex."""
        where = child(folder, self._base(base), self._roots)
        if not where.is_dir():
            raise FileNotFoundError(f"There is no folder {folder} here.")
        files, warnings = self._files(where)
        return _inspected(where, files, warnings)

    def model_path(self, source: PathSource) -> Path:
        """What an engine opens: the file, or a folder, or the only GGUF model in it."""
        path = Path(source.path)
        found = within(path, self._roots) if path.is_absolute() else child(source.path, self._base(None), self._roots)
        if not found.is_dir():
            return found
        files, _ = self._files(found)
        entry = model_files.entry(files)
        return files[entry] if entry else found

    def parts(self, path: Path) -> list[Path]:
        """All files that an engine reads which opens this one: a model may be in several GGUF files."""
        files = {} if path.is_dir() else self._files(path.parent)[0]
        group = next((group for group in model_files.gguf_groups(files) if path.name in group.files), None)
        return [path.parent / name for name in group.files] if group else [path]

    def facts(self, path: Path) -> Facts | None:
        """Of a model's file or folder, for checks and the estimate. None if nothing can be read."""
        found = within(path, self._roots)
        return facts_of(found, self._files(found if found.is_dir() else found.parent)[0])

    def _base(self, base: str | None) -> Path:
        if base is None:
            if self.base_dir is None:
                raise OutsideRoots("A base directory that was not given")
            return self.base_dir
        return within(base, self._roots)

    def _is_folder(self, name: str, base: str | None) -> bool:
        try:
            return child(name, self._base(base), self._roots).is_dir()
        except OutsideRoots:
            return False

    def _files(self, folder: Path) -> tuple[dict[str, Path], list[str]]:
        """By relative name, to a small depth. Links that leave the roots are named in a warning, and not read."""
        found: dict[str, Path] = {}
        warnings: list[str] = []
        for name in _walk(folder):
            if len(found) == MOST_FILES:
                warnings.append(f"Only the first {MOST_FILES} files were read.")
                break
            try:
                path = child(name, folder, self._roots)
            except OutsideRoots:
                warnings.append(f"{name} is a link that leaves the allowed folders.")
                continue
            if path.is_file():
                found[name] = path
        return found, warnings


def facts_of(path: Path, files: dict[str, Path] | None = None) -> Facts | None:
    """Of a file, all of its parts included, or of a folder with safetensors files. `files` are those that may be read:
    by default all of the folder, as in the store of downloads."""
    folder = path if path.is_dir() else path.parent
    may_be_read = {name: folder / name for name in _walk(folder)} if files is None else files
    if path.is_file():
        group = next((group for group in model_files.gguf_groups(may_be_read) if path.name in group.files), None)
        may_be_read = {name: may_be_read[name] for name in (group.files if group else [path.name])}
    read = [facts for name, one in may_be_read.items() if (facts := _facts(name, one)) and not isinstance(facts, str)]
    return join(sorted(read, key=lambda facts: -facts.layers)) if read else None


def _walk(folder: Path) -> Iterator[str]:
    for where, folders, names in os.walk(folder):
        depth = len(Path(where).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if depth < DEEPEST else []
        yield from (str(Path(where, name).relative_to(folder)) for name in sorted(names) if not name.startswith("."))


def _facts(name: str, path: Path) -> Facts | str | None:
    """None for other files; the fault as text for one that cannot be read."""
    read = {".gguf": headers.gguf, ".safetensors": headers.safetensors}.get(Path(name).suffix.lower())
    try:
        with path.open("rb") as opened:
            if read:
                return read(opened, path.stat().st_size)
            if Path(name).name == "config.json":
                return headers.config_json(opened.read(headers.MOST_CONFIG_BYTES + 1))
    except (BadHeader, OSError) as error:
        return f"{name}: {error}" if isinstance(error, BadHeader) else f"{name} cannot be read."
    return None


def _inspected(where: Path, files: dict[str, Path], warnings: list[str]) -> dict[str, Any]:
    read = {name: facts for name, path in files.items() if (facts := _facts(name, path)) is not None}
    faults = [facts for facts in read.values() if isinstance(facts, str)]
    known = {name: one for name, one in read.items() if isinstance(one, Facts)}
    ggufs = [name for name in files if name.lower().endswith(".gguf")]
    tensors = [name for name in files if name.endswith(".safetensors")]
    config = known.get("config.json", Facts())
    whole = join([config, *(known[name] for name in tensors if name in known)])
    missing = _missing(files, tensors, ggufs)
    return {
        "path": str(where),
        "has_safetensors": bool(tensors),
        "safetensor_info": _safetensors(files, tensors, whole) if tensors else None,
        "gguf_files": ggufs,
        "gguf_groups": _groups(files, known),
        "tokenizer_files": [name for name in files if Path(name).name in TOKENIZER_FILES],
        "config_files": [name for name in files if Path(name).name in {"config.json", "generation_config.json"}],
        "missing": missing,
        "warnings": [*warnings, *faults, *(f"{name} is missing." for name in missing)],
        "params_b": (whole if tensors else join(known.values())).billions,
        "hidden_size": whole.hidden or None,
        "num_hidden_layers": whole.layers or None,
        "num_attention_heads": whole.heads or None,
        "engine_recommendation": _recommendation(bool(tensors), bool(ggufs), missing),
        "gguf_validation": _validation(ggufs, known, faults),
        "facts": whole.model_dump(mode="json") if whole.layers or tensors else None,
    }


def _missing(files: dict[str, Path], tensors: list[str], ggufs: list[str]) -> list[str]:
    """What an engine would look for in vain."""
    if not tensors:
        return [] if ggufs or any(name.endswith(".bin") for name in files) else ["a file of weights"]
    tokenizer = {"tokenizer.json", "tokenizer.model", "vocab.json", "tiktoken.model"} & files.keys()
    return [*([] if "config.json" in files else ["config.json"]), *([] if tokenizer else ["tokenizer.json"])]


def _safetensors(files: dict[str, Path], tensors: list[str], whole: Facts) -> dict[str, Any]:
    return {
        "files": tensors,
        "file_count": len(tensors),
        "total_size_gb": round(sum(files[name].stat().st_size for name in tensors) / 2**30, 3),
        "architecture": whole.architecture,
        "model_type": whole.name,
        "vocab_size": whole.vocab or None,
        "max_position_embeddings": whole.context_length or None,
        "torch_dtype": whole.dtype,
        "tie_word_embeddings": whole.tied_embeddings,
    }


def _groups(files: dict[str, Path], facts: dict[str, Facts]) -> list[dict[str, Any]]:
    groups = model_files.gguf_groups(files)
    best = model_files.preferred(groups)
    return [_group(group, files, facts) | {"is_recommended": group == best} for group in groups]


def _group(group: model_files.Group, files: dict[str, Path], facts: dict[str, Facts]) -> dict[str, Any]:
    known = [facts[name] for name in group.files if name in facts]
    whole = join(known) if known else Facts()
    readable = len(known) == len(group.files)
    status = "incomplete" if not group.complete or whole.missing_bytes else "ready" if readable else "unknown"
    quantization = whole.quantization or group.quantization
    return {
        "quant_type": quantization,
        "display_name": f"{Path(group.name).name} ({quantization or 'unknown'})",
        "files": list(group.files),
        "is_multipart": group.expected_parts > 1,
        "expected_parts": group.expected_parts,
        "actual_parts": len(group.files),
        "total_size_mb": round(sum(files[name].stat().st_size for name in group.files) / MIB, 2),
        "status": status,
        "can_use": status == "ready",
        "warning": WARNINGS.get(status),
        "metadata": {
            "architecture": whole.architecture,
            "model_name": whole.name,
            "context_length": whole.context_length or None,
            "embedding_length": whole.hidden or None,
            "block_count": whole.layers or None,
            "attention_head_count": whole.heads or None,
            "attention_head_count_kv": whole.kv_heads or None,
            "vocab_size": whole.vocab or None,
            "file_type_name": whole.quantization,
        },
        "facts": whole.model_dump(mode="json"),
    }  # fmt: skip


def _recommendation(tensors: bool, ggufs: bool, missing: list[str]) -> dict[str, Any]:
    options = [name for name, there in (("vllm", tensors), ("llamacpp", ggufs)) if there]
    if len(options) == 2:
        chosen = "llamacpp" if missing else "either"
        reason = "There are safetensors and GGUF files: vllm serves many at once on a GPU, llamacpp runs anywhere."
    elif tensors:
        chosen, reason = "vllm", "There are safetensors files, which llamacpp cannot read."
    elif ggufs:
        chosen, reason = "llamacpp", "There are GGUF files only, which are made for llama.cpp."
    else:
        chosen, reason = None, "There are no safetensors or GGUF files."
    return {"recommended": chosen, "reason": reason, "options": options}


def _validation(ggufs: list[str], facts: dict[str, Facts], faults: list[str]) -> dict[str, Any]:
    valid = [name for name in ggufs if name in facts and not facts[name].missing_bytes]
    cut = [
        f"{name}: {facts[name].missing_bytes} bytes are missing."
        for name in ggufs
        if name in facts and name not in valid
    ]
    errors = [fault for fault in faults if fault.split(":")[0].lower().endswith(".gguf")]
    return {
        "total_files": len(ggufs), "valid_files": len(valid), "invalid_files": len(ggufs) - len(valid),
        "warnings": cut, "errors": errors,
    }  # fmt: skip
