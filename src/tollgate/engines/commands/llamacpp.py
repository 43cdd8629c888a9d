from tollgate.engines.commands.place import Command, Place, devices, option, probe_of
from tollgate.engines.schemas import Spec

PROGRAM = ("llama-server",)
CONTEXT = 4096
"""Tokens of one sequence where the spec names none."""
ALL_LAYERS = 999


def build(spec: Spec, place: Place) -> Command:
    """`-c`, `-np` and `-ngl` are always there: what is left open, llama.cpp changes to what
    fits, and the estimate would be wrong. Its `-c` is shared by all sequences, ours is of each.
    At `-lv 4` it logs its buffers, and no text of requests.
    """
    sequences = spec.max_sequences or 1
    return Command(
        [
            *(place.program or PROGRAM), "-m", place.model_path,
            "--alias", ",".join([spec.served_name, *spec.aliases]),
            *place.listens("--host", ("--host", "--port")),
            "-c", str((spec.context_length or CONTEXT) * sequences),
            "-np", str(sequences),
            "-ngl", str(ALL_LAYERS if spec.gpu_layers is None else spec.gpu_layers),
            *option("-fa", None if spec.flash_attention is None else ("off", "on")[spec.flash_attention]),
            *option("-ctk", spec.kv_cache_dtype),
            *option("-ctv", spec.kv_cache_dtype),
            "--metrics", "--jinja", "--no-webui", "--offline", "-lv", "4",
            *spec.arguments,
        ],
        spec.environment | devices(spec) | {"LLAMA_API_KEY": place.secret},
        metrics_path="/metrics",
        probe=probe_of(spec),
    )  # fmt: skip
