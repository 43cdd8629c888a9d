from tollgate.engines.commands.place import OFFLINE, Command, Place, devices, option, probe_of
from tollgate.engines.schemas import Spec

PROGRAM = ("vllm",)


def build(spec: Spec, place: Place) -> Command:
    return Command(
        [
            *(place.program or PROGRAM), "serve", place.model_path,
            "--served-model-name", spec.served_name, *spec.aliases,
            *place.listens("--uds", ("--host", "--port")),
            *option("--max-model-len", spec.context_length),
            *option("--max-num-seqs", spec.max_sequences),
            *option("--gpu-memory-utilization", spec.gpu_memory_utilization),
            "--tensor-parallel-size", str(spec.tensor_parallel),
            *option("--dtype", spec.dtype),
            *option("--quantization", spec.quantization),
            *option("--kv-cache-dtype", spec.kv_cache_dtype),
            *option("--trust-remote-code", spec.trust_remote_code),
            "--enable-prompt-tokens-details",
            *spec.arguments,
        ],
        spec.environment | devices(spec) | OFFLINE | {"VLLM_API_KEY": place.secret, "VLLM_NO_USAGE_STATS": "1"},
        metrics_path="/metrics",
        probe=probe_of(spec),
    )  # fmt: skip
