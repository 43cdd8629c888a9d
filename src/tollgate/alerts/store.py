"""Rules, alerts, silences, channels and deliveries in the database.

`scope` is admin for what operators have, keys for what the caller's own org has.
"""

from collections.abc import Sequence
from typing import Any, Literal

from tollgate.database import Door, Json

Fields = dict[str, Any]
Scope = Literal["admin", "keys"]


async def evaluate(door: Door, observed: Sequence[Fields], process: str) -> Json:
    return await door.call("tollgate_alert_round", observed=list(observed), process=process)


async def rules(door: Door, filters: Fields, page_size: int) -> Json:
    return await door.call("tollgate_alert_rules", filters=filters, page_size=page_size)


async def rule(door: Door, rule_id: str) -> Json:
    return await door.call("tollgate_alert_rule", rule_id=rule_id)


async def create_rule(door: Door, fields: Fields) -> Json:
    return await door.call("tollgate_create_alert_rule", rule=fields)


async def change_rule(door: Door, rule_id: str, changes: Fields) -> Json:
    return await door.call("tollgate_change_alert_rule", rule_id=rule_id, changes=changes)


async def reset_rule(door: Door, rule_id: str) -> Json:
    return await door.call("tollgate_reset_alert_rule", rule_id=rule_id)


async def delete_rule(door: Door, rule_id: str) -> Json:
    return await door.call("tollgate_delete_alert_rule", rule_id=rule_id)


async def alerts(door: Door, filters: Fields, page_size: int) -> Json:
    return await door.call("tollgate_alerts", filters=filters, page_size=page_size)


async def alert(door: Door, alert_id: str) -> Json:
    return await door.call("tollgate_alert", alert_id=alert_id)


async def acknowledge(door: Door, alert_id: str, note: str | None) -> Json:
    return await door.call("tollgate_acknowledge_alert", alert_id=alert_id, note=note)


async def silences(door: Door, filters: Fields, page_size: int) -> Json:
    return await door.call("tollgate_silences", filters=filters, page_size=page_size)


async def create_silence(door: Door, fields: Fields) -> Json:
    return await door.call("tollgate_create_silence", silence=fields)


async def delete_silence(door: Door, silence_id: str) -> Json:
    return await door.call("tollgate_delete_silence", silence_id=silence_id)


async def channels(door: Door, filters: Fields, page_size: int, scope: Scope) -> Json:
    return await door.call("tollgate_channels", filters=filters, page_size=page_size, scope=scope)


async def channel(door: Door, channel_id: str, scope: Scope) -> Json:
    return await door.call("tollgate_channel", channel_id=channel_id, scope=scope)


async def create_channel(door: Door, fields: Fields, secret: Fields | None, scope: Scope) -> Json:
    return await door.call("tollgate_create_channel", channel=fields, secret=secret, scope=scope)


async def change_channel(door: Door, channel_id: str, changes: Fields, secret: Fields | None, scope: Scope) -> Json:
    return await door.call(
        "tollgate_change_channel", channel_id=channel_id, changes=changes, secret=secret, scope=scope
    )


async def delete_channel(door: Door, channel_id: str, scope: Scope) -> Json:
    return await door.call("tollgate_delete_channel", channel_id=channel_id, scope=scope)


async def test_channel(door: Door, channel_id: str, scope: Scope) -> Json:
    return await door.call("tollgate_test_channel", channel_id=channel_id, scope=scope)


async def deliveries(door: Door, filters: Fields, page_size: int, scope: Scope) -> Json:
    return await door.call("tollgate_deliveries", filters=filters, page_size=page_size, scope=scope)


async def delivery(door: Door, delivery_id: str, scope: Scope) -> Json:
    return await door.call("tollgate_delivery", delivery_id=delivery_id, scope=scope)


async def resend(door: Door, delivery_id: str, scope: Scope) -> Json:
    return await door.call("tollgate_resend_delivery", delivery_id=delivery_id, scope=scope)


async def lease_deliveries(door: Door, page_size: int, lease_seconds: int) -> Json:
    return await door.call("tollgate_lease_deliveries", page_size=page_size, lease_seconds=lease_seconds)


async def end_deliveries(door: Door, items: Sequence[Fields]) -> Json:
    return await door.call("tollgate_end_deliveries", items=list(items))
