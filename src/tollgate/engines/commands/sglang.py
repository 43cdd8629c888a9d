from tollgate.engines.commands.place import OFFLINE, Command, Place, devices, option, probe_of
from tollgate.engines.schemas import Spec

PROGRAM = ("python3", "-m", "sglang.launch_server")


def build(spec: Spec, place: Place) -> Command:
    """SGLang takes a key on its command line only, where every user of the host would read it. So it has none."""
    return Command(
        [
            *(place.program or PROGRAM), "--model-path", place.model_path,
            "--served-model-name", spec.served_name,
            *place.on_port(("--host", "--port")),
            *option("--context-length", spec.context_length),
            *option("--max-running-requests", spec.max_sequences),
            *option("--mem-fraction-static", spec.gpu_memory_utilization),
            "--tp-size", str(spec.tensor_parallel),
            *option("--dtype", spec.dtype),
            *option("--quantization", spec.quantization),
            *option("--kv-cache-dtype", spec.kv_cache_dtype),
            *option("--trust-remote-code", spec.trust_remote_code),
            "--enable-metrics",
            *spec.arguments,
        ],
        spec.environment | devices(spec) | OFFLINE,
        metrics_path="/metrics",
        probe=probe_of(spec),
    )  # fmt: skip
