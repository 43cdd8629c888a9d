"""What collides, in words: a sentence for each reason of a conflict, made with the facts that come with it."""

from collections.abc import Mapping
from string import Template
from typing import Any

from tollgate.core.money import with_credits

SENTENCES = {
    "alias_of_alias": "$alias is an alias too. An alias stands for models only: name the models themselves.",
    "another_pepper": "No key in the database was made with this KEY_PEPPER, so its server would refuse the new one. "
    "Set the KEY_PEPPER of the server, or repeat with --new-pepper if that is lost.",
    "archived": "The model $id is archived. Send archived: false with PATCH first.",
    "balance_too_low": "Available are $available_credits credits. The balance cannot change by $amount_credits.",
    "beyond_charge": "The request was charged $charge_credits credits, and $refundable_credits can still be refunded.",
    "built_in": "The plan $plan is built in and cannot be deleted.",
    "digest_taken": "Another key has the same secret. Use a new one.",
    "email_taken": "A user with the email $email exists.",
    "exists": "There is a $kind with the id $id. Change it with PATCH, or choose another id.",
    "expired": "The key $key_id expired at $expired_at. Create a new key.",
    "has_routes": "The upstream $id still has routes: $routes. Delete them first, or send routes=true to delete them "
    "as well.",
    "host_retired": "The host $id is retired for good. Create another one.",
    "host_still_wanted": "Models of the host $id should run: $deployment_ids. Stop them first.",
    "host_unseen": "The agent of the host $id has not called for 45 seconds. Start it, or look at its log.",
    "id_taken": "A plan with the id $id exists.",
    "in_use": "Orgs are still on the plan $plan: $orgs. Give them another plan first.",
    "last_admin": "This would leave no operator with a working key. Make another operator first.",
    "no_host": "There is no host. Create one with POST /admin/hosts, or name one by host_id.",
    "not_empty": "The org $org_id still has something: users $users, open holds $open_holds, balance $balance_credits "
    "credits. All must be 0 before it can be deleted.",
    "nothing_charged": "The request $request_id was not charged, so nothing can be refunded.",
    "of_host": "The upstream $id belongs to the host $host_id. Change the model there: /admin/models.",
    "rotated": "The key $key_id was replaced by $rotated_to. Change that one.",
    "several_hosts": "There are several hosts: $host_ids. Name one by host_id.",
    "several_routes": "The model $model has several routes: $route_ids. Delete one by its id.",
    "several_admins": "Several admins are active. Name one by email.",
    "still_wanted": "The model $id should run. Stop it first.",
    "too_many_channels": "There are $limit channels, which is the most. Delete one first.",
    "too_many_secrets": "The key $key_id has $secrets secrets that are still valid. Wait until one expires.",
}
"""By `reason`."""


def sentence(facts: Mapping[str, Any]) -> str | None:
    told = SENTENCES.get(str(facts.get("reason")))
    return Template(told).safe_substitute(with_credits(facts)) if told else None
