"""Hugging Face's text-generation-inference: knows one name for the bound, and ignores what it does not know."""

from tollgate.upstreams.dialects.openai import OpenAI


class TGI(OpenAI):
    knows_only_max_tokens = True
