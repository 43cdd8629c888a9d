"""/admin/alerts: alerts, rules, silences, channels, deliveries."""

from typing import Annotated, Any

from fastapi import Body, Depends, Path, Query, status

from tollgate.alerts import store
from tollgate.alerts.channels import Channels
from tollgate.alerts.schemas import (
    Alert,
    AlertDeliveryFilters,
    AlertDetails,
    AlertFilters,
    AlertNote,
    ChangedChannel,
    Channel,
    ChannelChanges,
    ChannelFilters,
    Delivery,
    Gone,
    NewChannel,
    NewRule,
    NewSilence,
    RuleChanges,
    RuleDetails,
    RuleFilters,
    RuleWithReadings,
    Silence,
    SilenceFilters,
)
from tollgate.alerts.signals import SIGNALS
from tollgate.core.errors import BadRequest, Conflict, IdempotencyKeyReused, NotFound, TooManyTests, VaultLocked
from tollgate.database import Door, Json
from tollgate.keys.authentication import Gate
from tollgate.keys.idempotency_keys import once
from tollgate.web.routing import Routes
from tollgate.web.schemas import CountedPage, Identifier, Page, refusals

AlertId = Annotated[Identifier, Path(description="The id of the alert.")]
RuleId = Annotated[Identifier, Path(description="The id of the rule.", examples=["error_rate"])]
SilenceId = Annotated[Identifier, Path(description="The id of the silence.")]
ChannelId = Annotated[Identifier, Path(description="The id of the channel.")]
DeliveryId = Annotated[Identifier, Path(description="The id of the delivery.")]
ONE = refusals(BadRequest, NotFound)
NO_READINGS = {"count": 0, "value": None, "subject": None}
TESTED = refusals(BadRequest, NotFound, TooManyTests)


def router(gate: Gate, channels: Channels) -> Routes:
    routes = Routes(prefix="/admin/alerts")
    routes.take(_rules(gate))
    routes.take(_silences(gate))
    routes.take(_channels(gate, channels))
    routes.take(_deliveries(gate, channels))
    routes.take(_alerts(gate))  # last, because their ids would match the paths of the others
    return routes


def _alerts(gate: Gate) -> Routes:
    routes = Routes()

    @routes.get(
        "",
        summary="List alerts",
        description="A rule that is ok for a subject has no alert there. Resolved alerts are kept for 90 days.",
        responses=refusals(BadRequest),
    )
    async def alerts(
        door: Annotated[Door, Depends(gate.open)], query: Annotated[AlertFilters, Query()]
    ) -> CountedPage[Alert]:
        return CountedPage[Alert].of(await store.alerts(door, query.filters(), query.limit))

    @routes.get("/{alert_id}", summary="Get an alert with its history", responses=ONE)
    async def alert(door: Annotated[Door, Depends(gate.open)], alert_id: AlertId) -> AlertDetails:
        return AlertDetails.model_validate((await store.alert(door, alert_id))["alert"])

    @routes.post(
        "/{alert_id}/acknowledge",
        summary="Acknowledge an alert",
        description="Changes nothing else. A second acknowledgement changes nothing.",
        responses=ONE,
    )
    async def acknowledge(
        door: Annotated[Door, Depends(gate.open)],
        alert_id: AlertId,
        body: Annotated[AlertNote | None, Body()] = None,
    ) -> AlertDetails:
        note = body.note if body else None
        return AlertDetails.model_validate((await store.acknowledge(door, alert_id, note))["alert"])

    return routes


def _rules(gate: Gate) -> Routes:
    routes = Routes(prefix="/rules")

    @routes.get("", summary="List the rules of alerts", responses=refusals(BadRequest))
    async def rules(
        door: Annotated[Door, Depends(gate.open)], query: Annotated[RuleFilters, Query()]
    ) -> CountedPage[RuleWithReadings]:
        found = await store.rules(door, query.filters(), query.limit)
        rows = [_with_readings(rule, found) for rule in found["data"]]
        return CountedPage[RuleWithReadings].of({**found, "data": rows})

    @routes.post(
        "",
        summary="Create a rule of your own",
        status_code=status.HTTP_201_CREATED,
        responses=refusals(BadRequest, Conflict),
    )
    async def create(door: Annotated[Door, Depends(gate.open)], body: NewRule) -> RuleDetails:
        if body.signal not in SIGNALS:
            raise BadRequest(param="signal", fault=f"is not known. Known: {', '.join(SIGNALS)}")
        return RuleDetails.model_validate((await store.create_rule(door, body.model_dump(mode="json")))["rule"])

    @routes.get("/{rule_id}", summary="Get a rule", responses=ONE)
    async def rule(door: Annotated[Door, Depends(gate.open)], rule_id: RuleId) -> RuleWithReadings:
        found = await store.rule(door, rule_id)
        return RuleWithReadings.model_validate(_with_readings(found["rule"], found))

    @routes.patch("/{rule_id}", summary="Change a rule", responses=ONE)
    async def change(door: Annotated[Door, Depends(gate.open)], rule_id: RuleId, body: RuleChanges) -> RuleDetails:
        return RuleDetails.model_validate((await store.change_rule(door, rule_id, body.changes()))["rule"])

    @routes.post("/{rule_id}/reset", summary="Reset a rule to its default", responses=ONE)
    async def reset(door: Annotated[Door, Depends(gate.open)], rule_id: RuleId) -> RuleDetails:
        """Also one that was deleted."""
        return RuleDetails.model_validate((await store.reset_rule(door, rule_id))["rule"])

    @routes.delete("/{rule_id}", summary="Delete a rule with its alerts", responses=ONE)
    async def delete(door: Annotated[Door, Depends(gate.open)], rule_id: RuleId) -> Gone:
        return Gone.model_validate(await store.delete_rule(door, rule_id))

    return routes


def _with_readings(rule: Json, found: Json) -> dict[str, Any]:
    return {**rule, "readings": found["readings"].get(rule["id"], NO_READINGS)}


def _silences(gate: Gate) -> Routes:
    routes = Routes(prefix="/silences")

    @routes.get("", summary="List silences", responses=refusals(BadRequest))
    async def silences(
        door: Annotated[Door, Depends(gate.open)], query: Annotated[SilenceFilters, Query()]
    ) -> CountedPage[Silence]:
        return CountedPage[Silence].of(await store.silences(door, query.filters(), query.limit))

    @routes.post(
        "",
        summary="Create a silence, or plan a maintenance window",
        status_code=status.HTTP_201_CREATED,
        responses=refusals(BadRequest, IdempotencyKeyReused),
    )
    async def create(door: Annotated[Door, Depends(once(gate))], body: NewSilence) -> Silence:
        """What still fires when it ends is told then."""
        fields = body.model_dump(mode="json", exclude_none=True)
        return Silence.model_validate((await store.create_silence(door, fields))["silence"])

    @routes.delete("/{silence_id}", summary="End a silence", responses=ONE)
    async def delete(door: Annotated[Door, Depends(gate.open)], silence_id: SilenceId) -> Gone:
        return Gone.model_validate(await store.delete_silence(door, silence_id))

    return routes


def _channels(gate: Gate, channels: Channels) -> Routes:
    routes = Routes(prefix="/channels")

    @routes.get("", summary="List the channels of operators", responses=refusals(BadRequest))
    async def listed(
        door: Annotated[Door, Depends(gate.open)], query: Annotated[ChannelFilters, Query()]
    ) -> CountedPage[Channel]:
        return CountedPage[Channel].of(await channels.listed(door, query.filters(), query.limit))

    @routes.post(
        "",
        summary="Create a channel",
        status_code=status.HTTP_201_CREATED,
        responses=refusals(BadRequest, Conflict, IdempotencyKeyReused, VaultLocked),
    )
    async def create(door: Annotated[Door, Depends(once(gate))], body: NewChannel) -> ChangedChannel:
        return ChangedChannel.model_validate(await channels.create(door, body.model_dump(mode="json")))

    @routes.get("/{channel_id}", summary="Get a channel", responses=ONE)
    async def one(door: Annotated[Door, Depends(gate.open)], channel_id: ChannelId) -> Channel:
        return Channel.model_validate(await channels.one(door, channel_id))

    @routes.patch("/{channel_id}", summary="Change a channel", responses=refusals(BadRequest, NotFound, VaultLocked))
    async def change(
        door: Annotated[Door, Depends(gate.open)], channel_id: ChannelId, body: ChannelChanges
    ) -> ChangedChannel:
        changes = body.changes() | ({"mail": body.mail.model_dump()} if body.mail else {})
        return ChangedChannel.model_validate(await channels.change(door, channel_id, changes))

    @routes.delete("/{channel_id}", summary="Delete a channel with its deliveries", responses=ONE)
    async def delete(door: Annotated[Door, Depends(gate.open)], channel_id: ChannelId) -> Gone:
        return Gone.model_validate(await channels.delete(door, channel_id))

    @routes.post("/{channel_id}/test", summary="Send a test over a channel", responses=TESTED)
    async def test(door: Annotated[Door, Depends(gate.open)], channel_id: ChannelId) -> Delivery:
        """Answers how that went, after five seconds at most. All channels together are tested ten times a minute. A
        test of PagerDuty opens nothing."""
        return Delivery.model_validate(await channels.test(door, channel_id))

    return routes


def _deliveries(gate: Gate, channels: Channels) -> Routes:
    routes = Routes(prefix="/deliveries")

    @routes.get("", summary="List deliveries, kept for 30 days", responses=refusals(BadRequest))
    async def listed(
        door: Annotated[Door, Depends(gate.open)], query: Annotated[AlertDeliveryFilters, Query()]
    ) -> Page[Delivery]:
        return Page[Delivery].of(await channels.deliveries(door, query.filters(), query.limit))

    @routes.get("/{delivery_id}", summary="Get a delivery", responses=ONE)
    async def one(door: Annotated[Door, Depends(gate.open)], delivery_id: DeliveryId) -> Delivery:
        return Delivery.model_validate(await channels.delivery(door, delivery_id))

    @routes.post("/{delivery_id}/resend", summary="Send a delivery again", responses=ONE)
    async def resend(door: Annotated[Door, Depends(gate.open)], delivery_id: DeliveryId) -> Delivery:
        """With the next sweep, with the id that it had."""
        return Delivery.model_validate(await channels.resend(door, delivery_id))

    return routes
