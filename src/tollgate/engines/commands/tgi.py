from tollgate.engines.commands.place import OFFLINE, Command, Place, devices, option, probe_of
from tollgate.engines.schemas import Spec

PROGRAM = ("text-generation-launcher",)


def build(spec: Spec, place: Place) -> Command:
    return Command(
        [
            *(place.program or PROGRAM), "--model-id", place.model_path,
            "--served-model-name", spec.served_name,
            *place.on_port(("--hostname", "--port")),
            *option("--max-total-tokens", spec.context_length),
            *option("--max-concurrent-requests", spec.max_sequences),
            *option("--cuda-memory-fraction", spec.gpu_memory_utilization),
            "--num-shard", str(spec.tensor_parallel),
            *option("--dtype", spec.dtype),
            *option("--quantize", spec.quantization),
            *option("--kv-cache-dtype", spec.kv_cache_dtype),
            *option("--trust-remote-code", spec.trust_remote_code),
            *spec.arguments,
        ],
        spec.environment | devices(spec) | OFFLINE | {"API_KEY": place.secret},
        metrics_path="/metrics",
        probe=probe_of(spec),
    )  # fmt: skip
