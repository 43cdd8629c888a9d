"""The org's own keys that a call goes upstream with, and what is left of its routes. Pure.

A model that has a route to an upstream with such a key is served by such routes only: a call never falls back to our
key, which would cost the org more than it was told.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from pydantic import SecretStr

from tollgate.core.errors import UpstreamKeyOutdated
from tollgate.core.models import Model
from tollgate.vault.rules import Vault


class OrgKeys(NamedTuple):
    secrets: Mapping[str, SecretStr] = {}
    """By the id of the upstream."""
    fee_nanos: int = 0
    """What the call is charged if an upstream serves it with one of them."""


NO_KEYS: Final = OrgKeys()


def opened(byok: Mapping[str, Any] | None, models: Sequence[Model], vault: Vault) -> tuple[OrgKeys, Sequence[Model]]:
    """Of an admission's grant. Raises VaultLocked and UpstreamKeyOutdated."""
    if byok is None:
        return NO_KEYS, models
    upstreams = {route.upstream.id: route.upstream for model in models for route in model.routes}
    secrets = {}
    for upstream_id, found in byok["keys"].items():
        upstream = upstreams[upstream_id]
        if not upstream.takes_org_keys or found["address"] != upstream.base_url:
            raise UpstreamKeyOutdated(upstream=upstream_id)
        secrets[upstream_id] = vault.open(found)
    kept = [_restricted(model, secrets) for model in models]
    if byok["only"] and any(route.upstream.id not in secrets for model in kept for route in model.routes):
        raise UpstreamKeyOutdated  # a key was deleted while the admission was repeated
    return OrgKeys(secrets, byok["fee_nanos"]), kept


def _restricted(model: Model, secrets: Mapping[str, SecretStr]) -> Model:
    with_key = tuple(route for route in model.routes if route.upstream.id in secrets)
    return model._replace(routes=with_key) if with_key else model
