"""SGLang: counts as it goes, under the same name as vLLM."""

from tollgate.upstreams.dialects.openai import OpenAI


class SGLang(OpenAI):
    continuous = True
