"""Orgs, users and plans in the database."""

from typing import Any

from tollgate.database import Door, Json

Said = dict[str, Any]


async def orgs(door: Door, filters: Said, page_size: int) -> Json:
    return await door.call("tollgate_orgs", filters=filters, page_size=page_size)


async def org(door: Door, org_id: str) -> Json:
    return await door.call("tollgate_org", org_id=org_id)


async def create_org(door: Door, said: Said) -> Json:
    return await door.call("tollgate_create_org", org=said)


async def update_org(door: Door, org_id: str, changes: Said) -> Json:
    return await door.call("tollgate_update_org", org_id=org_id, changes=changes)


async def delete_org(door: Door, org_id: str) -> Json:
    return await door.call("tollgate_delete_org", org_id=org_id)


async def users(door: Door, filters: Said, page_size: int) -> Json:
    return await door.call("tollgate_users", filters=filters, page_size=page_size)


async def user(door: Door, user_id: str) -> Json:
    return await door.call("tollgate_user", user_id=user_id)


async def create_user(door: Door, said: Said) -> Json:
    return await door.call("tollgate_create_user", person=said)


async def update_user(door: Door, user_id: str, changes: Said) -> Json:
    return await door.call("tollgate_update_user", user_id=user_id, changes=changes)


async def delete_user(door: Door, user_id: str) -> Json:
    return await door.call("tollgate_delete_user", user_id=user_id)


async def plans(door: Door, filters: Said, page_size: int) -> Json:
    return await door.call("tollgate_plans", filters=filters, page_size=page_size)


async def plan(door: Door, plan_id: str) -> Json:
    return await door.call("tollgate_plan", plan_id=plan_id)


async def create_plan(door: Door, said: Said) -> Json:
    return await door.call("tollgate_create_plan", plan=said)


async def update_plan(door: Door, plan_id: str, changes: Said) -> Json:
    return await door.call("tollgate_update_plan", plan_id=plan_id, changes=changes)


async def delete_plan(door: Door, plan_id: str) -> Json:
    return await door.call("tollgate_delete_plan", plan_id=plan_id)


async def assign_plan(door: Door, subject: Said, plan: str) -> Json:
    return await door.call("tollgate_assign_plan", subject=subject, plan=plan)
