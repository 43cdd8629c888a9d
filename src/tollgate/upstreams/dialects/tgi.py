"""Hugging Face's text-generation-inference: knows only max_tokens, and ignores unknown parameters."""

from tollgate.upstreams.dialects.openai import OpenAI


class TGI(OpenAI):
    knows_only_max_tokens = True
