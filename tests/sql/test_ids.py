from itertools import pairwise
from typing import Any


async def test_an_id_made_of_a_number_leads_back_to_it_and_does_not_tell_it(own_database: str, sql: Any) -> None:
    numbers = [*range(300), 2**31, 2**32, 2**62 + 5, 2**63 - 1, -1]
    of_all = "select array(select tollgate.mixed(n) from unnest($1::bigint[]) n)"
    mixed = await sql(own_database, of_all, numbers)
    assert (
        await sql(own_database, "select array(select tollgate.unmixed(m) from unnest($1::text[]) m)", mixed) == numbers
    )
    assert len(set(mixed)) == len(numbers)
    assert sum(one < other for one, other in pairwise(mixed[:300])) not in (0, 299)
    for other in ("", "1", "x" * 16, "0" * 17, "'"):
        assert await sql(own_database, "select tollgate.unmixed($1)", other) is None


async def test_another_database_makes_other_ids(own_database: str, sql: Any) -> None:
    first = await sql(own_database, "select tollgate.mixed(1)")
    await sql(own_database, "update tollgate.id_key set secret = sha256(secret)")
    assert await sql(own_database, "select tollgate.mixed(1)") != first
