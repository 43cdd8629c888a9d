import re
import zlib
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from tollgate.core.errors import InvalidApiKey, MissingApiKey
from tollgate.keys.rules import (
    ADMIN_SCOPES,
    ALPHABET,
    LONGEST,
    MEMBER_SCOPES,
    PREFIXES,
    RANDOM_BYTES,
    SHORTEST_CHOSEN,
    Environment,
    UnusableSecret,
    check_chosen,
    digest,
    environment_of,
    fingerprint,
    is_whole,
    masked,
    mint,
    presented,
    stored,
)

FORM = re.compile(r"tg_(live|test)_[0-9A-Za-z]{49}")
KEY = mint("live", bytes(range(32)))

environments = st.sampled_from(list(PREFIXES))
randomness = st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES)
minted = st.builds(mint, environments, randomness)
printable = st.characters(min_codepoint=33, max_codepoint=126)
chosen_secrets = st.text(printable, min_size=SHORTEST_CHOSEN, max_size=64).filter(
    lambda secret: not secret.startswith(tuple(PREFIXES.values()))
)


@given(environment=environments, random=randomness)
def test_a_minted_key_has_the_form_of_its_environment_and_is_whole(environment: Environment, random: bytes) -> None:
    secret = mint(environment, random)
    assert FORM.fullmatch(secret)
    assert environment_of(secret) == environment
    assert is_whole(secret)
    check_chosen(secret)


@given(one=randomness, other=randomness)
def test_different_chance_makes_different_keys(one: bytes, other: bytes) -> None:
    assert (mint("live", one) == mint("live", other)) == (one == other)


def test_all_of_the_chance_is_in_the_key() -> None:
    assert mint("live", b"\xff" * 32)[8:51] != mint("live", b"\x7f" + b"\xff" * 31)[8:51]
    assert mint("live", bytes(32))[8:51] == "0" * 43


@given(secret=minted, place=st.integers(8, 56), other=st.sampled_from(ALPHABET) | st.characters(codec="utf-8"))
def test_a_key_with_any_one_character_changed_is_not_whole(secret: str, place: int, other: str) -> None:
    assume(secret[place] != other)
    assert not is_whole(secret[:place] + other + secret[place + 1 :])


def test_every_single_change_to_one_key_is_noticed() -> None:
    changed = [
        KEY[:place] + other + KEY[place + 1 :] for place in range(8, 57) for other in ALPHABET if other != KEY[place]
    ]
    assert len(changed) == 49 * 61
    assert [secret for secret in changed if is_whole(secret)] == []


@given(secret=minted, place=st.integers(8, 55))
def test_a_key_with_two_neighbours_swapped_is_not_whole(secret: str, place: int) -> None:
    assume(secret[place] != secret[place + 1])
    assert not is_whole(secret[:place] + secret[place + 1] + secret[place] + secret[place + 2 :])


@given(secret=minted, length=st.integers(8, 56))
def test_a_key_that_was_cut_off_is_not_whole(secret: str, length: int) -> None:
    assert not is_whole(secret[:length])


@given(secret=minted, more=st.text(min_size=1, max_size=5))
def test_a_key_with_something_behind_it_is_not_whole(secret: str, more: str) -> None:
    assert not is_whole(secret + more)


@pytest.mark.parametrize("length", [0, 1, 42, 43, 44, 100])
def test_a_right_checksum_does_not_save_a_key_of_another_length(length: int) -> None:
    body = "tg_live_" + "A" * length
    number, checksum = zlib.crc32(body.encode()), ""
    for _ in range(6):
        number, place = divmod(number, 62)
        checksum = ALPHABET[place] + checksum
    assert is_whole(body + checksum) == (length == 43)


@given(secret=minted)
def test_a_test_key_does_not_become_a_live_one(secret: str) -> None:
    other = "tg_live_" if environment_of(secret) == "test" else "tg_test_"
    assert not is_whole(other + secret[8:])


@given(secret=chosen_secrets)
def test_a_chosen_secret_has_no_form_to_be_broken(secret: str) -> None:
    assert is_whole(secret)
    assert environment_of(secret) == "live"
    check_chosen(secret)


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("", "0 characters"),
        ("x" * 19, "at least 20"),
        ("x" * 513, "at most 512"),
        ("hunter2 hunter2 hunter2", "printable ASCII without spaces"),
        ("hunter2-hunter2-hunter2é", "printable ASCII"),
        ("hunter2-hunter2-hunter2\n", "printable ASCII"),
        ("hunter2-hunter2-hunter2\x7f", "printable ASCII"),
        ("tg_live_hunter2hunter2", "wrong checksum"),
        (KEY[:-1], "wrong checksum"),
    ],
)
def test_a_chosen_secret_that_would_make_a_bad_key_is_refused_without_telling_it(secret: str, words: str) -> None:
    with pytest.raises(UnusableSecret, match=words) as refusal:
        check_chosen(secret)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize("secret", ["x" * SHORTEST_CHOSEN, "x" * LONGEST, "!\"#$%&'()*+,-./:;<=>?@"])
def test_a_chosen_secret_within_the_bounds_is_taken(secret: str) -> None:
    check_chosen(secret)


def headers(**given_: str) -> Headers:
    return Headers({name.replace("_", "-"): value for name, value in given_.items()})


@pytest.mark.parametrize(
    "sent",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer {KEY}"},
        {"authorization": f"BEARER   {KEY}  "},
        {"x_api_key": KEY},
        {"x_api_key": f"  {KEY} "},
        {"authorization": f"Bearer {KEY}", "x_api_key": "another-key-of-somebody"},
        {"authorization": "Basic dXNlcjpwYXNz", "x_api_key": KEY},
        {"authorization": "Bearer", "x_api_key": KEY},
        {"authorization": "", "x_api_key": KEY},
    ],
)
def test_a_key_is_found_however_it_is_sent(sent: dict[str, str]) -> None:
    assert presented(headers(**sent)) == KEY


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer   "},
        {"authorization": KEY},
        {"authorization": f"Basic {KEY}"},
        {"authorization": f"Bearer{KEY}"},
        {"x_api_key": "  "},
        {"cookie": f"key={KEY}"},
    ],
)
def test_without_a_key_one_is_asked_for(sent: dict[str, str]) -> None:
    with pytest.raises(MissingApiKey):
        presented(headers(**sent))


@pytest.mark.parametrize("secret", [KEY[:-1], KEY[:-1] + "!", "x" * 513, "tg_live_", "tg_test_" + KEY[8:]])
def test_what_cannot_be_a_key_is_refused(secret: str) -> None:
    with pytest.raises(InvalidApiKey):
        presented(headers(authorization=f"Bearer {secret}"))
    with pytest.raises(InvalidApiKey):
        presented(headers(x_api_key=secret))


def test_a_broken_bearer_is_not_saved_by_another_header() -> None:
    with pytest.raises(InvalidApiKey):
        presented(headers(authorization=f"Bearer {KEY[:-1]}", x_api_key=KEY))


latin = st.text(st.characters(codec="latin-1"), max_size=600)


@given(authorization=latin | st.builds("Bearer {}".format, latin), x_api_key=latin)
def test_no_header_text_at_all_is_more_than_a_key_or_a_refusal(authorization: str, x_api_key: str) -> None:
    try:
        secret = presented(headers(authorization=authorization, x_api_key=x_api_key))
    except (MissingApiKey, InvalidApiKey):
        return
    assert secret in authorization or secret in x_api_key
    assert 0 < len(secret) <= LONGEST


@given(secret=chosen_secrets, pepper=st.text(min_size=32), other=st.text(min_size=32))
def test_a_digest_tells_neither_key_nor_pepper_and_changes_with_both(secret: str, pepper: str, other: str) -> None:
    assume(pepper != other)
    assert re.fullmatch(r"[0-9a-f]{64}", digest(secret, pepper))
    assert digest(secret, pepper) == digest(secret, pepper)
    assert digest(secret, pepper) != digest(secret, other)
    assert digest(secret, pepper) != digest(secret + "x", pepper)


def test_a_digest_is_hmac_sha256_for_ever_or_every_stored_key_is_lost() -> None:
    # The test vector of RFC 4231, case 2.
    assert digest("what do ya want for nothing?", "Jefe") == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


def test_a_fingerprint_tells_peppers_apart_in_eight_characters() -> None:
    told = {fingerprint(f"{number:032}") for number in range(100)}
    assert len(told) == 100
    assert all(re.fullmatch(r"[0-9a-f]{8}", one) for one in told)


def kept(secret: str, **more: Any) -> dict[str, Any]:
    return stored(secret, "p" * 32, name="A key", scopes=MEMBER_SCOPES, **more)


def test_of_a_minted_key_the_database_keeps_its_digest_and_what_is_shown() -> None:
    assert kept(KEY) == {
        "name": "A key",
        "digest": digest(KEY, "p" * 32),
        "pepper": fingerprint("p" * 32),
        "prefix": KEY[:12],
        "last_four": KEY[-4:],
        "environment": "live",
        "scopes": list(MEMBER_SCOPES),
        "ip_allowlist": None,
        "expires_at": None,
    }
    assert kept(mint("test", bytes(32)))["environment"] == "test"


@given(secret=chosen_secrets)
def test_of_a_chosen_secret_no_more_than_eight_characters_are_kept(secret: str) -> None:
    assert len(kept(secret)["prefix"] + kept(secret)["last_four"]) <= 8


def test_a_chosen_secret_that_begins_like_ours_is_not_kept_in_the_open_either() -> None:
    secret = "tg_the-secret-of-20c"
    assert len(kept(secret)["prefix"] + kept(secret)["last_four"]) <= 8


def test_an_empty_allowlist_is_not_the_same_as_none() -> None:
    assert kept(KEY, ip_allowlist=())["ip_allowlist"] == []
    assert kept(KEY, ip_allowlist=("192.0.2.0/24",))["ip_allowlist"] == ["192.0.2.0/24"]
    assert kept(KEY, expires_at="2030-01-01T00:00:00Z")["expires_at"] == "2030-01-01T00:00:00Z"


@given(secret=minted)
def test_a_masked_key_shows_sixteen_characters_and_never_the_key(secret: str) -> None:
    shown = masked(kept(secret)["prefix"], kept(secret)["last_four"])
    assert shown == f"{secret[:12]}…{secret[-4:]}"


def test_an_admin_may_what_a_member_may_and_administer() -> None:
    assert set(ADMIN_SCOPES) - set(MEMBER_SCOPES) == {"admin"}
    assert set(MEMBER_SCOPES) < set(ADMIN_SCOPES)
