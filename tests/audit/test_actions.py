import re
from pathlib import Path

from tollgate.audit.actions import ACTIONS

SCHEMAS = Path(__file__).parents[2] / "supabase" / "schemas"
NOUNS = "|".join(sorted({action.partition(".")[0] for action in ACTIONS}))


def test_each_action_that_sql_records_has_a_meaning_and_no_other() -> None:
    sql = "".join(file.read_text() for file in SCHEMAS.rglob("*.sql"))
    recorded = set(re.findall(rf"'((?:{NOUNS})\.[a-z_]+)'", sql))
    recorded |= set(re.findall(r"tollgate\.record\([^;]*?'([a-z_]+\.[a-z_]+)'", sql))
    assert recorded == set(ACTIONS)
