"""The database is lost, and a backup restored: docs/how-to/recover.md tells the truth of what the books say then."""

from pathlib import Path

from admin.api_client import ApiClient
from completions.paid import audited
from gateway import CHAT
from people import Person
from reconciliation.installation import Installation
from sandbox.serving import a_chat
from tollgate.audit import chain_heads
from tollgate.backups import dumps


async def test_what_the_books_say_after_a_restore(
    installation: Installation, bare_database: str, tmp_path: Path
) -> None:
    leaked = Person(installation.door)
    await leaked.seed()
    await installation.call("sandbox/echo", times=2)
    await installation.settle()
    dumps.create(installation.url, tmp_path / "nightly.dump")
    after = Person(installation.door)
    await after.seed()
    await installation.call("sandbox/words", times=3)
    async with installation.client() as http:
        await ApiClient(http, installation.admin).ask("DELETE", f"/admin/keys/{leaked.key_id}")
    head = await chain_heads.take(installation.door)

    assert dumps.restore(bare_database, tmp_path / "nightly.dump") == []
    async with installation.at(bare_database).running() as restored:
        await audited(restored.door)
        assert await chain_heads.differences(restored.door, head), "a head that is newer than the backup"
        async with restored.client() as http:
            api = ApiClient(http, leaked)
            assert (await api.ask("GET", "/user/balance"))["status"] == "active", "it is revoked no more"
            assert (await api.of(after).refused("POST", CHAT, 401, json=a_chat()))["code"] == "invalid_api_key"
        day = await restored.reconciled()
    found = {one["model"]: [cause["cause"] for cause in one["causes"]] for one in day["models"]}
    assert found == {"sandbox/echo": [], "sandbox/words": ["unknown_requests"]}
    assert day["difference_nanos"] == installation.upstream.owed_nanos - day["our_cost_nanos"] > 0
