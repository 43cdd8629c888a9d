"""How each kind of server wants to be asked, and how it says no. All speak OpenAI's language, each with an accent."""

from collections.abc import Mapping
from typing import Final

from tollgate.core import models
from tollgate.upstreams.dialects.llamacpp import LlamaCpp
from tollgate.upstreams.dialects.openai import OpenAI, Shown
from tollgate.upstreams.dialects.openrouter import OpenRouter
from tollgate.upstreams.dialects.sglang import SGLang
from tollgate.upstreams.dialects.tgi import TGI
from tollgate.upstreams.dialects.vllm import VLLM

__all__ = ["DIALECTS", "OpenAI", "Shown"]

DIALECTS: Final[Mapping[models.Dialect, OpenAI]] = {
    "openrouter": OpenRouter(),
    "vllm": VLLM(),
    "sglang": SGLang(),
    "llamacpp": LlamaCpp(),
    "tgi": TGI(),
    "openai": OpenAI(),
}
