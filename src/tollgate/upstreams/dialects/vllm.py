"""vLLM: counts as it goes."""

from tollgate.upstreams.dialects.openai import OpenAI


class VLLM(OpenAI):
    continuous = True
