"""Tollgate: a credit-billing proxy in front of OpenRouter and your own model servers."""

__version__ = "0.1.0"
