"""The command of each engine, as a process and in a container."""

import pytest
from pydantic import ValidationError

from engines.specs import spec
from tollgate.engines.commands import SOCKET_ENGINES, Container, Place, as_string, build, contain
from tollgate.engines.schemas import ENGINES, Spec

SECRET = "not-on-a-command-line"
COMMANDS = {
    "vllm": "vllm serve /m --served-model-name tiny other --uds /s --max-model-len 2048 --max-num-seqs 4 "
    "--gpu-memory-utilization 0.9 --tensor-parallel-size 2 --dtype float16 --quantization awq --kv-cache-dtype fp8 "
    "--trust-remote-code --enable-prompt-tokens-details --enforce-eager",
    "sglang": "python3 -m sglang.launch_server --model-path /m --served-model-name tiny --host 127.0.0.1 --port 7 "
    "--context-length 2048 --max-running-requests 4 --mem-fraction-static 0.9 --tp-size 2 --dtype float16 "
    "--quantization awq --kv-cache-dtype fp8 --trust-remote-code --enable-metrics --enforce-eager",
    "llamacpp": "llama-server -m /m --alias tiny,other --host /s -c 8192 -np 4 -ngl 20 -fa on -ctk fp8 -ctv fp8 "
    "--metrics --jinja --no-webui --offline -lv 4 --enforce-eager",
    "tgi": "text-generation-launcher --model-id /m --served-model-name tiny --hostname 127.0.0.1 --port 7 "
    "--max-total-tokens 2048 --max-concurrent-requests 4 --cuda-memory-fraction 0.9 --num-shard 2 --dtype float16 "
    "--quantize awq --kv-cache-dtype fp8 --trust-remote-code --enforce-eager",
    "whisper": "faster-whisper-server /m --host 127.0.0.1 --port 7 --enforce-eager",
    "tts": "python3 -m tollgate.speech --model /m --name tiny --uds /s --enforce-eager",
    "custom": "/opt/engine /m tiny 7 --enforce-eager",
}


def full(engine: str) -> Spec:
    kind = {"whisper": "transcription", "tts": "speech"}.get(engine, "text")
    return spec(
        engine, kind=kind, aliases=["other"], context_length=2048, max_sequences=4, gpu_memory_utilization=0.9,
        tensor_parallel=2, gpus=[2, 3], gpu_layers=20, dtype="float16", quantization="awq", kv_cache_dtype="fp8",
        flash_attention=True, arguments=["--enforce-eager"], environment={"OMP_NUM_THREADS": "2"},
        custom_command="mine", trust_remote_code=True,
    )  # fmt: skip


def place(engine: str) -> Place:
    program = ("/opt/engine", "{model}", "{name}", "{port}") if engine == "custom" else ()
    return Place("/m", "/s" if engine in SOCKET_ENGINES else None, 7, SECRET, program)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_command_of_an_engine(engine: str) -> None:
    command = build(full(engine), place(engine))
    assert as_string(command.argv) == COMMANDS[engine]
    assert command.environment["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert command.environment["OMP_NUM_THREADS"] == "2"
    assert SECRET not in as_string(command.argv)
    assert (SECRET in command.environment.values()) == (engine not in {"sglang", "whisper"})
    assert {"method", "path"} < command.probe.keys()


def test_llamacpp_is_told_what_it_would_choose_itself() -> None:
    argv = build(spec("llamacpp"), Place("/m", port=7)).argv
    assert {"-c", "-np", "-ngl"} <= set(argv)
    assert argv[argv.index("-c") + 1] == "4096"


def test_an_engine_of_embeddings_is_asked_for_one() -> None:
    assert build(spec(arguments=["--embeddings"]), Place("/m", port=7)).probe["path"] == "/v1/embeddings"


def test_an_engine_without_an_address_is_not_built() -> None:
    with pytest.raises(ValueError, match="needs a port"):
        build(spec("sglang"), Place("/m", socket="/s"))
    with pytest.raises(ValueError, match="no command named 'mine'"):
        build(spec("custom", custom_command="mine"), Place("/m", port=7))


@pytest.mark.parametrize(
    ("client", "gpu_words"),
    [
        (("docker",), ["--gpus", '"device=2,3"']),
        (("podman", "--runtime", "runc"), ["--device", "nvidia.com/gpu=2", "--device", "nvidia.com/gpu=3"]),
    ],
)
def test_a_container_has_the_same_command_inside(client: tuple[str, ...], gpu_words: list[str]) -> None:
    command = build(full("vllm"), place("vllm"))
    inside = contain(
        command,
        Container("vllm/vllm-openai:v0.32", "dep", client, ("/models",), ("/sockets",), (2, 3), {"host": "h"}),
    )
    words = " ".join(inside.argv)
    assert inside.argv[: len(client) + 1] == [*client, "run"]
    assert words.endswith(" ".join(["--entrypoint vllm vllm/vllm-openai:v0.32", *command.argv[1:]]))
    assert "--volume /models:/models:ro --volume /sockets:/sockets --env" in words
    assert "--label host=h" in words
    assert " ".join(gpu_words) in words
    assert "--ipc host" in words
    assert SECRET not in words
    assert inside.environment["VLLM_API_KEY"] == SECRET
    assert "CUDA_VISIBLE_DEVICES" not in inside.environment


@pytest.mark.parametrize(
    "change",
    [
        {"served_name": "--host"},
        {"dtype": "x --host 0.0.0.0"},
        {"quantization": "-q"},
        {"arguments": ["a\nb"]},
        {"environment": {"a=b": ""}},
        {"container_image": "--privileged"},
        {"source": {"type": "hub", "repo_id": "../../etc"}},
        {"source": {"type": "hub", "repo_id": "a/b", "files": ["/etc/passwd"]}},
        {"unknown": 1},
    ],
)
def test_a_spec_cannot_add_words_of_its_own(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        spec(**change)
