"""A sticky choice by weight."""

from collections import Counter

from tollgate.core import rendezvous

WEIGHTS = {"a": 6, "b": 3, "c": 1}
CHOOSERS = [f"key-{number}" for number in range(4000)]


def chosen(weights: dict[str, int], chooser: str) -> str:
    return rendezvous.ordered(weights, chooser, name=str, weight=weights.__getitem__)[0]


def test_shares_follow_the_weights() -> None:
    counts = Counter(chosen(WEIGHTS, chooser) for chooser in CHOOSERS)
    for name, weight in WEIGHTS.items():
        assert abs(counts[name] / len(CHOOSERS) - weight / 10) < 0.03


def test_a_change_of_one_arm_moves_only_choosers_to_or_from_it() -> None:
    for changed in (WEIGHTS | {"c": 2}, WEIGHTS | {"d": 2}, {"a": 6, "b": 3}):
        moved = {(was, now) for one in CHOOSERS if (was := chosen(WEIGHTS, one)) != (now := chosen(changed, one))}
        assert moved
        assert all({"c", "d"} & pair for pair in map(set, moved))


def test_every_arm_has_its_place_and_a_weight_below_one_is_one() -> None:
    order = rendezvous.ordered(["a", "b", "c"], "key", name=str, weight=lambda _: 0)
    assert sorted(order) == ["a", "b", "c"]
    assert order == rendezvous.ordered(["c", "b", "a"], "key", name=str, weight=lambda _: 1)
