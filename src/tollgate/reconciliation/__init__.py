"""Compares what a day cost us by our books with what OpenRouter says it cost."""
