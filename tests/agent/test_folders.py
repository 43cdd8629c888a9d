"""Folders of a host are read as far as its own command line allows, and no file outside."""

from pathlib import Path

import pytest

from engines.gguf_files import gguf, tiny
from engines.headers_of import safetensors_header
from tollgate.agent.allowed_roots import OutsideRoots, within
from tollgate.agent.folders import Folders
from tollgate.engines.schemas import PathSource


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A root with models, beside a secret that is not of it."""
    root = tmp_path / "models"
    (root / "tiny").mkdir(parents=True)
    (root / "tiny" / "tiny-F32.gguf").write_bytes(tiny())
    (tmp_path / "models-of-others").mkdir()
    (tmp_path / "secret.gguf").write_bytes(tiny())
    return root


ATTACKS = [
    "..",
    "../secret.gguf",
    "tiny/../../secret.gguf",
    "/etc",
    "/etc/passwd",
    "",
    "out",
    "out/x",
    "tiny\0x",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_outside_the_roots_is_read(models: Path, attack: str) -> None:
    (models / "out").symlink_to(models.parent)
    folders = Folders([models])
    with pytest.raises(OutsideRoots):
        folders.inspect(None, attack)
    with pytest.raises(OutsideRoots):
        folders.model_path(PathSource.model_construct(path=attack))


@pytest.mark.parametrize("base", ["{0}/..", "{0}-of-others", "/", "relative", "{0}/out"])
def test_no_base_directory_outside_the_roots(models: Path, base: str) -> None:
    (models / "out").symlink_to(models.parent)
    folders = Folders([models])
    with pytest.raises(OutsideRoots):
        folders.local_folders(base.format(models))
    with pytest.raises(OutsideRoots):
        within(base.format(models), [models])


def test_a_link_inside_a_folder_is_not_followed_out(models: Path) -> None:
    (models / "tiny" / "secret.gguf").symlink_to(models.parent / "secret.gguf")
    (models / "tiny" / "config.json").symlink_to("/etc/passwd")
    found = Folders([models]).inspect(None, "tiny")
    assert found["gguf_files"] == ["tiny-F32.gguf"]
    assert found["config_files"] == []
    assert len([warning for warning in found["warnings"] if "leaves the allowed folders" in warning]) == 2


def test_a_container_gets_all_parts_of_a_model_and_no_link_that_leaves(models: Path) -> None:
    parts = [models / f"big-0000{part}-of-00003.gguf" for part in (1, 2, 3)]
    for part in parts[:2]:
        part.write_bytes(tiny())
    parts[2].symlink_to(models.parent / "secret.gguf")
    folders = Folders([models])
    assert folders.parts(parts[0]) == parts[:2]
    assert folders.parts(models / "tiny") == [models / "tiny"]
    assert folders.parts(models / "tiny" / "tiny-F32.gguf") == [models / "tiny" / "tiny-F32.gguf"]


def test_a_host_without_roots_reads_nothing(models: Path) -> None:
    with pytest.raises(OutsideRoots):
        Folders([]).local_folders(None)
    with pytest.raises(OutsideRoots):
        Folders([models], models.parent)


def test_the_folders_of_a_base_directory(models: Path) -> None:
    (models / ".cache").mkdir()
    (models / "out").symlink_to(models.parent)
    (models / "file").write_text("")
    assert Folders([models]).local_folders() == ["tiny"]
    assert Folders([models.parent], models).local_folders(str(models)) == ["out", "tiny"]


def test_a_folder_of_gguf_files(models: Path) -> None:
    folder = models / "big"
    folder.mkdir()
    (folder / "big-Q4_K_M.gguf").write_bytes(gguf({"general.architecture": "llama", "general.file_type": 15}, []))
    for part in (1, 3):
        (folder / f"big-Q8_0-0000{part}-of-00003.gguf").write_bytes(gguf({"general.architecture": "llama"}, []))
    (folder / "broken-Q5_K_M.gguf").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    (folder / "cut-F32.gguf").write_bytes(tiny()[:-1000])
    (folder / "mmproj-F16.gguf").write_bytes(gguf({"general.architecture": "clip"}, []))
    found = Folders([models]).inspect(str(models), "big")
    groups = {group["quant_type"]: group for group in found["gguf_groups"]}
    assert {name: (group["status"], group["is_recommended"]) for name, group in groups.items()} == {
        "Q4_K_M": ("ready", True),
        "Q8_0": ("incomplete", False),
        "Q5_K_M": ("unknown", False),
        "F32": ("incomplete", False),
    }
    assert (groups["Q8_0"]["expected_parts"], groups["Q8_0"]["actual_parts"], groups["Q8_0"]["is_multipart"]) == (
        3,
        2,
        True,
    )
    assert found["gguf_validation"]["total_files"] == 6
    assert (found["gguf_validation"]["valid_files"], found["gguf_validation"]["invalid_files"]) == (4, 2)
    assert "b'vers'" in found["gguf_validation"]["errors"][0]
    assert found["engine_recommendation"]["recommended"] == "llamacpp"


def test_a_folder_of_safetensors_says_what_is_missing(models: Path) -> None:
    folder = models / "hf"
    folder.mkdir()
    (folder / "config.json").write_text(
        '{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2, '
        '"num_attention_heads": 2, "vocab_size": 100, "max_position_embeddings": 512}'
    )
    header = safetensors_header({"a": ("F16", [10, 64])}).getvalue()
    (folder / "model.safetensors").write_bytes(header + bytes(1280))
    found = Folders([models]).inspect(None, "hf")
    assert found["has_safetensors"]
    assert found["missing"] == ["tokenizer.json"]
    assert (found["hidden_size"], found["num_hidden_layers"], found["num_attention_heads"]) == (64, 2, 2)
    assert found["safetensor_info"]["architecture"] == "LlamaForCausalLM"
    assert found["safetensor_info"]["torch_dtype"] == "F16"
    assert (found["facts"]["weight_bytes"], found["facts"]["missing_bytes"]) == (1280, 0)
    assert found["engine_recommendation"]["recommended"] == "vllm"


def test_an_engine_opens_the_only_gguf_file_or_the_folder(models: Path) -> None:
    folders = Folders([models])
    file = models.resolve() / "tiny" / "tiny-F32.gguf"
    for path in ("tiny", "tiny/tiny-F32.gguf", str(file)):
        assert folders.model_path(PathSource(path=path)) == file
    (models / "tiny" / "other.gguf").write_bytes(tiny())
    assert folders.model_path(PathSource(path="tiny")) == file.parent
    facts = folders.facts(file)
    assert facts is not None
    assert (facts.layers, facts.weight_bytes) == (2, 1_461_760)
