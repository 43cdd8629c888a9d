"""llama.cpp's llama-server: calls its own fault what is the client's, and knows max_completion_tokens only lately."""

from tollgate.upstreams.dialects.openai import OpenAI
from tollgate.upstreams.rules import Refusal


class LlamaCpp(OpenAI):
    knows_only_max_tokens = True

    def refusal(self, status: int, content_type: str, body: bytes) -> Refusal:
        """A body that its JSON library cannot read, or reads as another type than it wants, is answered with 500."""
        return super().refusal(400 if status == 500 and b"json.exception." in body else status, content_type, body)
