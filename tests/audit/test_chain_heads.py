"""Chain heads: only heads that we signed are accepted."""

import json

import pytest

from tollgate.audit.chain_heads import UnusableHead, signed, verified

PEPPER, OTHER = "p" * 32, "q" * 32
HEAD = {"position": 7, "transfers": 7, "transfers_digest": "ab", "starts": {"transfers": {"position": 0}}}


def test_a_signed_head_is_verified_under_the_pepper_of_then() -> None:
    text = json.dumps(signed(HEAD, PEPPER))
    assert HEAD.items() <= verified(text, [PEPPER]).items()
    assert HEAD.items() <= verified(text, [OTHER, PEPPER]).items()


def test_the_order_and_the_form_of_the_file_do_not_matter() -> None:
    head = signed(HEAD, PEPPER)
    text = json.dumps(dict(reversed(head.items())), indent=4)
    assert HEAD.items() <= verified(text, [PEPPER]).items()


@pytest.mark.parametrize("name", [*HEAD, "pepper", "signature"])
def test_a_head_that_was_changed_is_refused(name: str) -> None:
    head = signed(HEAD, PEPPER)
    with pytest.raises(UnusableHead):
        verified(json.dumps({**head, name: "0"}), [PEPPER])
    with pytest.raises(UnusableHead):
        verified(json.dumps({key: value for key, value in head.items() if key != name}), [PEPPER])


def test_a_head_of_somebody_else_is_refused() -> None:
    with pytest.raises(UnusableHead, match="neither KEY_PEPPER nor KEY_PEPPER_PREVIOUS"):
        verified(json.dumps(signed(HEAD, OTHER)), [PEPPER])
    forged = {**signed(HEAD, OTHER), "pepper": signed(HEAD, PEPPER)["pepper"]}
    with pytest.raises(UnusableHead, match="does not match"):
        verified(json.dumps(forged), [PEPPER])


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "{}", "null", "7", '"head"', '{"signature": "x"}', "[" * 10**5])
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(UnusableHead, match="not a chain head"):
        verified(text, [PEPPER])


def test_the_signature_does_not_tell_the_pepper() -> None:
    assert PEPPER not in json.dumps(signed(HEAD, PEPPER))
