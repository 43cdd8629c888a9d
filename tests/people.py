"""People of the tests: each with an org, a user and a key of their own."""

import secrets
from typing import Any

import pytest

from tollgate.core.errors import TollgateError
from tollgate.database import Door
from tollgate.keys import rules, store
from tollgate.keys.authentication import CallerDoor, console

PEPPER = "a-pepper-of-the-tests-with-32-chars!"
OLD_PEPPER = "the-pepper-before-with-32-characters"


class Person:
    def __init__(self, door: Door, role: str = "member", **key: Any) -> None:
        self.number = secrets.token_hex(8)
        self.door = door
        self.role = role
        self.secret = rules.mint(key.pop("environment", "live"), secrets.token_bytes(32))
        pepper = key.pop("pepper", PEPPER)
        scopes = key.pop("scopes", rules.ADMIN_SCOPES if role == "admin" else rules.MEMBER_SCOPES)
        self.key = rules.stored(self.secret, pepper, name="Of the tests", scopes=scopes, **key)
        self.org_id = f"org_{self.number}"
        self.user_id = f"usr_{self.number}"
        self.email = f"{self.number}@example.com"
        self.key_id = ""

    async def seed(self) -> Any:
        org = {"id": self.org_id, "name": "Org", "plan_id": "free"}
        owner = {"id": self.user_id, "email": self.email, "name": "", "role": self.role}
        seeded = await store.seed(console(self.door, "tests"), org, owner, self.key)
        self.key_id = seeded["id"]
        return seeded

    def at_the_door(self, ip: str | None = "192.0.2.1", peppers: tuple[str, ...] = (PEPPER,)) -> Door:
        """The door as a request with this person's key opens it."""
        caller = {
            "digests": [rules.digest(self.secret, pepper) for pepper in peppers],
            "pepper": rules.fingerprint(peppers[0]),
            "ip": ip,
            "user_agent": "tests/1.0",
            "request_id": f"req_{self.number}",
        }
        return CallerDoor(self.door, caller)


async def refused(work: Any) -> TollgateError:
    """The refusal that the work ends with."""
    with pytest.raises(TollgateError) as caught:
        await work
    return caught.value
