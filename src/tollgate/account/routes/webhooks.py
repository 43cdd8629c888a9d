"""/user/webhooks: where an org is told of its own events."""

from typing import Annotated

from fastapi import Depends, Path, Query, status

from tollgate.alerts.channels import Channels
from tollgate.alerts.schemas import (
    ChangedWebhook,
    Delivery,
    DeliveryFilters,
    Gone,
    NewWebhook,
    Webhook,
    WebhookChanges,
    WebhookFilters,
)
from tollgate.core.errors import BadRequest, Conflict, IdempotencyKeyReused, NotFound, TooManyTests, VaultLocked
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.keys.idempotency_keys import once
from tollgate.web.routing import Routes
from tollgate.web.schemas import CountedPage, Identifier, Page, refusals

WebhookId = Annotated[Identifier, Path(description="The id of the webhook.")]
DeliveryId = Annotated[Identifier, Path(description="The id of the delivery.")]


def router(gate: Gate, channels: Channels) -> Routes:
    """All need the scope `keys`."""
    routes = Routes(prefix="/user/webhooks")
    OpenDoor = Annotated[Door, Depends(gate.open)]  # noqa: N806  # it is a type
    one = refusals(BadRequest, NotFound)

    @routes.get("", summary="List your org's webhooks", responses=refusals(BadRequest))
    async def listed(door: OpenDoor, query: Annotated[WebhookFilters, Query()]) -> CountedPage[Webhook]:
        """Needs the scope `keys`."""
        return CountedPage[Webhook].of(await channels.listed(door, query.filters(), query.limit))

    @routes.post(
        "",
        summary="Create a webhook for your org's events",
        status_code=status.HTTP_201_CREATED,
        responses=refusals(BadRequest, Conflict, IdempotencyKeyReused, VaultLocked),
    )
    async def create(door: Annotated[Door, Depends(once(gate))], body: NewWebhook) -> ChangedWebhook:
        """It must have a public address. Needs the scope `keys`."""
        return ChangedWebhook.model_validate(
            await channels.create(door, {"kind": "webhook", **body.model_dump(mode="json")})
        )

    @routes.get("/deliveries", summary="List the deliveries of your org's webhooks", responses=refusals(BadRequest))
    async def deliveries(door: OpenDoor, query: Annotated[DeliveryFilters, Query()]) -> Page[Delivery]:
        """Kept for 30 days. Needs the scope `keys`."""
        return Page[Delivery].of(await channels.deliveries(door, query.filters(), query.limit))

    @routes.get("/deliveries/{delivery_id}", summary="Get a delivery", responses=one)
    async def delivery(door: OpenDoor, delivery_id: DeliveryId) -> Delivery:
        """Needs the scope `keys`."""
        return Delivery.model_validate(await channels.delivery(door, delivery_id))

    @routes.post("/deliveries/{delivery_id}/resend", summary="Send a delivery again", responses=one)
    async def resend(door: OpenDoor, delivery_id: DeliveryId) -> Delivery:
        """Soon, with the `webhook-id` that it had. Needs the scope `keys`."""
        return Delivery.model_validate(await channels.resend(door, delivery_id))

    @routes.get("/{channel_id}", summary="Get a webhook", responses=one)
    async def webhook(door: OpenDoor, channel_id: WebhookId) -> Webhook:
        """Needs the scope `keys`."""
        return Webhook.model_validate(await channels.one(door, channel_id))

    @routes.patch("/{channel_id}", summary="Change a webhook", responses=refusals(BadRequest, NotFound, VaultLocked))
    async def change(door: OpenDoor, channel_id: WebhookId, body: WebhookChanges) -> ChangedWebhook:
        """Needs the scope `keys`."""
        return ChangedWebhook.model_validate(await channels.change(door, channel_id, body.changes()))

    @routes.delete("/{channel_id}", summary="Delete a webhook with its deliveries", responses=one)
    async def delete(door: OpenDoor, channel_id: WebhookId) -> Gone:
        """Needs the scope `keys`."""
        return Gone.model_validate(await channels.delete(door, channel_id))

    @routes.post(
        "/{channel_id}/test",
        summary="Send a test to a webhook",
        responses=refusals(BadRequest, NotFound, TooManyTests),
    )
    async def test(door: OpenDoor, channel_id: WebhookId) -> Delivery:
        """Answers how that went, after five seconds at most. All webhooks of an org together are tested ten times a
        minute. Needs the scope `keys`."""
        return Delivery.model_validate(await channels.test(door, channel_id))

    return routes
