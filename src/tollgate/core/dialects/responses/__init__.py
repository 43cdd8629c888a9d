"""OpenAI's Responses API, as the Open Responses specification has it."""

from tollgate.core.dialects.responses.answer import END, Events, answer, error
from tollgate.core.dialects.responses.request import to_chat

__all__ = ["END", "Events", "answer", "error", "to_chat"]
