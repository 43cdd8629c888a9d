"""llama.cpp's llama-server: answers some client mistakes with 500, and old versions ignore max_completion_tokens."""

from tollgate.upstreams.dialects.openai import OpenAI
from tollgate.upstreams.rules import Refusal


class LlamaCpp(OpenAI):
    knows_only_max_tokens = True

    def refusal(self, status: int, content_type: str, body: bytes) -> Refusal:
        """Its JSON library answers a body that it cannot read, or a member of the wrong type, with 500."""
        return super().refusal(400 if status == 500 and b"json.exception." in body else status, content_type, body)
