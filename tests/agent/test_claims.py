"""Who gets which GPU."""

from tollgate.agent.claims import NOTHING, Claim, Gpu, Refusal, free_bytes, grant

GIB = 1024**3
TWO = [Gpu(0, 24 * GIB), Gpu(1, 24 * GIB, used_bytes=10 * GIB)]


def test_a_host_without_gpus_grants_nothing_and_refuses_nothing() -> None:
    assert grant([], {}, 1, 99 * GIB) == NOTHING


def test_the_freest_gpu_is_taken_unless_one_is_named() -> None:
    assert grant(TWO, {}, 1, 8 * GIB) == Claim((0,), 8 * GIB, starts=True)
    assert grant(TWO, {}, 1, 8 * GIB, only=[1]) == Claim((1,), 8 * GIB, starts=True)
    assert grant(TWO, {}, 2, 8 * GIB) == Claim((0, 1), 8 * GIB, starts=True)


def test_a_claim_counts_before_its_memory_is_taken_and_a_foreign_program_by_what_it_uses() -> None:
    held = [Claim((0, 1), 16 * GIB, starts=False)]
    assert free_bytes(TWO[0], held) == 8 * GIB
    assert free_bytes(TWO[1], []) == 14 * GIB


def test_one_engine_starts_on_a_gpu_at_a_time() -> None:
    loads = {"dep_1": Claim((0,), 2 * GIB, starts=True)}
    refused = grant(TWO[:1], loads, 1, 2 * GIB)
    assert isinstance(refused, Refusal)
    assert not refused.for_memory
    assert grant(TWO, loads, 1, 2 * GIB) == Claim((1,), 2 * GIB, starts=True)


def test_what_does_not_fit_says_whether_memory_would_help() -> None:
    refused = grant(TWO, {"dep_1": Claim((0,), 20 * GIB, starts=False)}, 1, 20 * GIB)
    assert isinstance(refused, Refusal)
    assert refused.for_memory
    refused = grant(TWO, {}, 3, GIB)
    assert isinstance(refused, Refusal)
    assert not refused.for_memory
