"""How each kind of server differs from OpenAI's API: in the body that it gets, and in its errors."""

from collections.abc import Mapping
from typing import Final

from tollgate.core import models
from tollgate.upstreams.dialects.llamacpp import LlamaCpp
from tollgate.upstreams.dialects.openai import OpenAI, Shown
from tollgate.upstreams.dialects.openrouter import OpenRouter
from tollgate.upstreams.dialects.sglang import SGLang
from tollgate.upstreams.dialects.tgi import TGI
from tollgate.upstreams.dialects.vendors import Anthropic, AzureOpenAI, Groq, Mistral, OpenAIPlatform, Together
from tollgate.upstreams.dialects.vllm import VLLM

__all__ = ["DIALECTS", "OpenAI", "Shown"]

DIALECTS: Final[Mapping[models.Dialect, OpenAI]] = {
    "openrouter": OpenRouter(),
    "vllm": VLLM(),
    "sglang": SGLang(),
    "llamacpp": LlamaCpp(),
    "tgi": TGI(),
    "openai": OpenAI(),
    "openai-platform": OpenAIPlatform(),
    "azure-openai": AzureOpenAI(),
    "anthropic": Anthropic(),
    "groq": Groq(),
    "mistral": Mistral(),
    "together": Together(),
}
