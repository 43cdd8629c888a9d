"""Orgs, users and plans in the database."""

from typing import Any

from tollgate.database import Door, Json

Fields = dict[str, Any]


async def orgs(door: Door, filters: Fields, page_size: int) -> Json:
    return await door.call("tollgate_orgs", filters=filters, page_size=page_size)


async def org(door: Door, org_id: str) -> Json:
    return await door.call("tollgate_org", org_id=org_id)


async def create_org(door: Door, fields: Fields) -> Json:
    return await door.call("tollgate_create_org", org=fields)


async def update_org(door: Door, org_id: str, changes: Fields) -> Json:
    return await door.call("tollgate_update_org", org_id=org_id, changes=changes)


async def delete_org(door: Door, org_id: str) -> Json:
    return await door.call("tollgate_delete_org", org_id=org_id)


async def users(door: Door, filters: Fields, page_size: int) -> Json:
    return await door.call("tollgate_users", filters=filters, page_size=page_size)


async def user(door: Door, user_id: str) -> Json:
    return await door.call("tollgate_user", user_id=user_id)


async def create_user(door: Door, fields: Fields) -> Json:
    return await door.call("tollgate_create_user", person=fields)


async def update_user(door: Door, user_id: str, changes: Fields) -> Json:
    return await door.call("tollgate_update_user", user_id=user_id, changes=changes)


async def delete_user(door: Door, user_id: str) -> Json:
    return await door.call("tollgate_delete_user", user_id=user_id)


async def plans(door: Door, filters: Fields, page_size: int) -> Json:
    return await door.call("tollgate_plans", filters=filters, page_size=page_size)


async def plan(door: Door, plan_id: str) -> Json:
    return await door.call("tollgate_plan", plan_id=plan_id)


async def create_plan(door: Door, fields: Fields) -> Json:
    return await door.call("tollgate_create_plan", plan=fields)


async def update_plan(door: Door, plan_id: str, changes: Fields) -> Json:
    return await door.call("tollgate_update_plan", plan_id=plan_id, changes=changes)


async def delete_plan(door: Door, plan_id: str) -> Json:
    return await door.call("tollgate_delete_plan", plan_id=plan_id)


async def assign_plan(door: Door, subject: Fields, plan: str) -> Json:
    return await door.call("tollgate_assign_plan", subject=subject, plan=plan)


async def own_profile(door: Door) -> Json:
    """Of the caller."""
    return await door.call("tollgate_own_profile")


async def change_own_profile(door: Door, changes: Fields) -> Json:
    return await door.call("tollgate_change_own_profile", changes=changes)


async def own_plan(door: Door) -> Json:
    """Of the caller's org. `markup_ppm` holds where neither the org nor the plan has a markup."""
    return await door.call("tollgate_own_plan")
