"""SGLang: reports the usage in every chunk when asked, under the same name as vLLM."""

from tollgate.upstreams.dialects.openai import OpenAI


class SGLang(OpenAI):
    continuous = True
