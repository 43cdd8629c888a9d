"""Headers of safetensors files, without their tensors."""

import io
import json
from collections.abc import Mapping

BITS = {"BF16": 16, "F16": 16, "F32": 32, "F8_E4M3": 8, "I32": 32}


def safetensors_header(tensors: Mapping[str, tuple[str, list[int]]], metadata: bool = True) -> io.BytesIO:
    described, offset = {}, 0
    for name, (kind, shape) in tensors.items():
        size = BITS[kind] // 8
        for dimension in shape:
            size *= dimension
        described[name] = {"dtype": kind, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    head = json.dumps(described | ({"__metadata__": {"format": "pt"}} if metadata else {})).encode()
    return io.BytesIO(len(head).to_bytes(8, "little") + head)
