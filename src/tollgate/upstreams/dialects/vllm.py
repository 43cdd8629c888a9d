"""vLLM: reports the usage in every chunk when asked."""

from tollgate.upstreams.dialects.openai import OpenAI


class VLLM(OpenAI):
    continuous = True
