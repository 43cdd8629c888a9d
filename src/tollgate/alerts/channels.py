"""Channels: create, change, test. For operators, and for orgs, whose channels are webhooks."""

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from pydantic import SecretStr

from tollgate.alerts import rules, store
from tollgate.alerts.deliveries import Deliveries
from tollgate.alerts.mail_servers import USUAL_PORTS
from tollgate.alerts.store import Fields, Scope
from tollgate.core.errors import BadRequest
from tollgate.database import Door, Json
from tollgate.upstreams.address_guard import Forbidden, Guard
from tollgate.vault.rules import NONCE_BYTES, Place, Vault

ID_BYTES: Final = 14
LOOK_UP_SECONDS: Final = 3.0


class Channels:
    def __init__(self, vault: Vault, guard: Guard, deliveries: Deliveries, scope: Scope) -> None:
        self._vault = vault
        self._guard = guard
        self._deliveries = deliveries
        self._scope: Scope = scope

    async def listed(self, door: Door, filters: Fields, page_size: int) -> Json:
        found = await store.channels(door, filters, page_size, self._scope)
        return {**found, "data": [_shown(row) for row in found["data"]]}

    async def one(self, door: Door, channel_id: str) -> Json:
        return _shown((await store.channel(door, channel_id, self._scope))["channel"])

    async def create(self, door: Door, body: Fields) -> Json:
        await store.channels(door, {}, 1, self._scope)  # recognises the caller: strangers look no address up
        kind = body["kind"]
        check_fields(kind, body)
        address, secret = _addressed(kind, body)
        await self._check_address(address, kind)
        made = rules.mint_secret(secrets.token_bytes(rules.SECRET_BYTES)) if kind == "webhook" and not secret else None
        channel_id = f"chn_{secrets.token_hex(ID_BYTES)}"
        fields = _stored(body) | {"id": channel_id, "kind": kind, "address": address}
        sealed = self._sealed(channel_id, address, secret or made)
        done = await store.create_channel(door, fields, sealed, self._scope)
        return _shown(done["channel"]) | {"secret": None if done.get("replayed") else made}

    async def change(self, door: Door, channel_id: str, changes: Fields) -> Json:
        was = (await store.channel(door, channel_id, self._scope))["channel"]
        kind, made = was["kind"], None
        check_fields(kind, {"name": was["name"], **changes}, new=False)
        fields, secret = _stored(changes), changes.get("secret")
        if {"url", "mail"} & changes.keys():
            fields["address"], secret = _addressed(kind, changes)
            await self._check_address(fields["address"], kind)
            if fields["address"] != was["address"] and not secret:
                made = _made_for(kind, was)
        address = fields.get("address", was["address"])
        sealed = self._sealed(channel_id, address, secret or made)
        done = await store.change_channel(door, channel_id, fields, sealed, self._scope)
        return _shown(done["channel"]) | {"secret": made}

    async def delete(self, door: Door, channel_id: str) -> Json:
        return await store.delete_channel(door, channel_id, self._scope)

    async def test(self, door: Door, channel_id: str) -> Json:
        """Sends a message that says it is a test, at once, and answers how that went."""
        asked = await store.test_channel(door, channel_id, self._scope)
        await self._deliveries.send_due()
        return await self.delivery(door, asked["delivery"]["id"])

    async def deliveries(self, door: Door, filters: Fields, page_size: int) -> Json:
        return await store.deliveries(door, filters, page_size, self._scope)

    async def delivery(self, door: Door, delivery_id: str) -> Json:
        return (await store.delivery(door, delivery_id, self._scope))["delivery"]

    async def resend(self, door: Door, delivery_id: str) -> Json:
        return (await store.resend(door, delivery_id, self._scope))["delivery"]

    def _sealed(self, channel_id: str, address: str, secret: str | None) -> Fields | None:
        if secret is None:
            return None
        place = Place("channel", None, channel_id, address)
        return self._vault.seal(SecretStr(secret), place, secrets.token_bytes(NONCE_BYTES))

    async def _check_address(self, url: str, kind: str) -> None:
        """Refuses an address to which nothing would ever be sent. It is checked again whenever something is."""
        field = "mail" if kind == "email" else "url"
        parts = _parts(url, field)
        try:
            if kind != "email":
                self._guard.check(url)
            async with asyncio.timeout(LOOK_UP_SECONDS):
                await self._guard.addresses(parts.hostname or "", parts.port or 443)
        except Forbidden as error:
            raise BadRequest(f"{field}: {error}.", param=field) from None
        except (OSError, UnicodeError):
            return


def check_fields(kind: rules.ChannelKind, body: Mapping[str, Any], *, new: bool = True) -> None:
    """Which fields go with which kind."""
    wrong: list[tuple[str, str]] = []
    needed = rules.NEEDED[kind]
    if new and not body.get(needed):
        wrong.append((needed, f"is needed for {kind}"))
    wrong += [(name, fault) for name, fault in rules.NOT_TAKEN[kind].items() if body.get(name)]
    if kind == "webhook" and body.get("secret") and not rules.is_secret(body["secret"]):
        wrong.append(("secret", "must be whsec_ and at least 24 bytes in base64"))
    mail = body.get("mail") or {}
    if mail.get("username") and mail.get("tls") == "none":
        wrong.append(("mail", "a password is not sent without TLS; set tls"))
    if new and mail.get("username") and not body.get("secret"):
        wrong.append(("secret", "is needed with a username"))
    if not body.get("name"):
        wrong.append(("name", "must not be empty"))
    if wrong:
        field, fault = wrong[0]
        raise BadRequest(param=field, fault=fault)


def _addressed(kind: str, body: Mapping[str, Any]) -> tuple[str, str | None]:
    """The address of a channel, and the secret that was sent for it."""
    if kind == "email":
        mail = body["mail"]
        return f"smtp://{mail['host']}:{mail['port'] or USUAL_PORTS[mail['tls']]}", body.get("secret")
    url = body.get("url") or rules.PAGERDUTY_URL
    if kind == "slack":
        parts = _parts(url, "url")
        return f"{parts.scheme}://{parts.netloc}", url
    return url, body.get("secret")


def _parts(url: str, field: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # is read only now
    except ValueError:
        raise BadRequest(param=field, fault="has an address that cannot be read") from None
    return parts


def _made_for(kind: str, was: Mapping[str, Any]) -> str | None:
    """The secret of a channel with a new address, for which none was sent: it must not reach another receiver."""
    if kind == "webhook":
        return rules.mint_secret(secrets.token_bytes(rules.SECRET_BYTES))
    if was["last_four"] is not None:
        raise BadRequest(param="secret", fault="must be sent again with a new address")
    return None


def _stored(body: Mapping[str, Any]) -> Fields:
    fields = {name: value for name, value in body.items() if name in _KEPT}
    if body.get("mail"):
        mail = body["mail"]
        fields["settings"] = {**mail, "port": mail["port"] or USUAL_PORTS[mail["tls"]]}
    return fields


def _shown(row: Mapping[str, Any]) -> Fields:
    return {**row, "url": row["address"], "mail": row["settings"] or None}


_KEPT: Final = {"name", "severity", "rules", "org_ids", "events", "state"}
