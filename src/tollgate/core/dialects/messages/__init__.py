"""Anthropic's Messages API."""

from tollgate.core.dialects.messages.answer import END, Events, answer, error
from tollgate.core.dialects.messages.request import to_chat

__all__ = ["END", "Events", "answer", "error", "to_chat"]
