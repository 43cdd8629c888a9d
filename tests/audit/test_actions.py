import re
from pathlib import Path
from typing import get_args

from tollgate.alerts.rules import TEST_EVENT, Event
from tollgate.audit.actions import ACTIONS

SCHEMAS = Path(__file__).parents[2] / "supabase" / "schemas"
NOUNS = "|".join(sorted({action.partition(".")[0] for action in ACTIONS}))


def test_each_action_that_sql_records_has_a_meaning_and_no_other() -> None:
    sql = "".join(file.read_text() for file in SCHEMAS.rglob("*.sql"))
    recorded = set(re.findall(rf"'((?:{NOUNS})\.[a-z_]+)'", sql))
    recorded |= set(re.findall(r"tollgate\.record\([^;]*?'([a-z_]+\.[a-z_]+)'", sql))
    told = {*get_args(Event), TEST_EVENT} - ACTIONS.keys()  # events of channels have names of the same form
    assert recorded - told == set(ACTIONS)
