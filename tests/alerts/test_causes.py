"""Each rule that is on from the start fires by its real cause, is resolved when that is gone, and both are told once,
though three instances sweep at the same time."""

from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from alerts.causes import CAUSES
from alerts.scene import Scene
from alerts.watch import Watch
from tollgate.alerts.signals import RULES
from turns import not_at_the_end_of

pytestmark = pytest.mark.anyio


DETECTORS = Path(__file__).with_name("test_detectors.py")
"""Fires the rules of detectors, beside traffic that only looks alike."""


def test_each_rule_has_one_cause() -> None:
    here = Counter(rule for cause in CAUSES for rule in cause.rules)
    assert set(here.values()) == {1}
    assert [rule for rule in RULES.keys() - here.keys() if f'"{rule}"' not in DETECTORS.read_text("utf-8")] == []


async def test_rules_fire_by_their_causes_and_are_told_once(
    own_database: str, watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await not_at_the_end_of("hour")
    async with Scene(own_database, watch.door, watch.sql, tmp_path, monkeypatch).running() as scene:
        await scene.sql("update tollgate.alert_rules set for_seconds = 0, clear_seconds = 0")  # see test_rounds.py
        subjects: dict[str, str] = {}
        async with AsyncExitStack() as happening:
            for cause in CAUSES:
                subjects |= await happening.enter_async_context(cause.happening(scene))
            for _ in range(2):  # a sample of a process is read by the round after
                await scene.sweep()
            assert {*subjects.items()} <= {(rule, subject) for rule, subject, _ in scene.told()}
        for _ in range(2):
            await scene.sweep()
        told = Counter(scene.told())
        expected = [(*one, state) for one in subjects.items() for state in ("firing", "resolved")]
        assert {one: told[one] for one in expected} == dict.fromkeys(expected, 1)
        assert set(told.values()) == {1}
