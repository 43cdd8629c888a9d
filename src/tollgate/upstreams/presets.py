"""Vendors as declared data: what an operator need not look up to add one as an upstream.

What a vendor's API does differently is its dialect. To add a vendor, add a dialect where its API differs, and an entry.
"""

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from tollgate.core.models import VendorDialect

PresetName = Literal["openai", "azure-openai", "anthropic", "groq", "mistral", "together"]


class Preset(NamedTuple):
    title: str
    dialect: VendorDialect
    base_url: str | None
    """None where each customer has an address of its own."""
    secret_name: str
    """The environment variable that holds the key, unless the operator names another."""
    documentation: str
    example_url: str | None = None
    """The form of the address, where there is no common one."""


PRESETS: Final[Mapping[PresetName, Preset]] = {
    "openai": Preset(
        "OpenAI",
        "openai-platform",
        "https://api.openai.com/v1",
        "UPSTREAM_OPENAI_KEY",
        "https://platform.openai.com/docs/api-reference",
    ),
    "azure-openai": Preset(
        "Azure OpenAI",
        "azure-openai",
        None,
        "UPSTREAM_AZURE_OPENAI_KEY",
        "https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle",
        "https://YOUR-RESOURCE.openai.azure.com/openai/v1",
    ),
    "anthropic": Preset(
        "Anthropic",
        "anthropic",
        "https://api.anthropic.com/v1",
        "UPSTREAM_ANTHROPIC_KEY",
        "https://docs.claude.com/en/api/overview",
    ),
    "groq": Preset(
        "Groq",
        "groq",
        "https://api.groq.com/openai/v1",
        "UPSTREAM_GROQ_KEY",
        "https://console.groq.com/docs/api-reference",
    ),
    "mistral": Preset(
        "Mistral", "mistral", "https://api.mistral.ai/v1", "UPSTREAM_MISTRAL_KEY", "https://docs.mistral.ai/api/"
    ),
    "together": Preset(
        "Together",
        "together",
        "https://api.together.xyz/v1",
        "UPSTREAM_TOGETHER_KEY",
        "https://docs.together.ai/reference",
    ),
}
