from datetime import UTC, datetime
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.audit import rules
from tollgate.core.errors import Unauthenticated, tree


@given(st.ip_addresses().map(str))
def test_an_address_lies_in_its_network_and_in_who_it_stands_for(ip: str) -> None:
    assert ip_address(ip) in ip_network(rules.network_of(ip))
    assert ip_address(ip) in ip_network(rules.address_of(ip))


@pytest.mark.parametrize(
    ("ip", "network", "address"),
    [
        ("192.0.2.77", "192.0.2.0/24", "192.0.2.77"),
        ("2001:db8:1:2:3::4", "2001:db8:1::/48", "2001:db8:1:2::/64"),
    ],
)
def test_machines_of_one_site_are_one_place(ip: str, network: str, address: str) -> None:
    assert (rules.network_of(ip), rules.address_of(ip)) == (network, address)


def test_every_code_that_counts_is_one_of_ours_and_so_is_every_failure_of_a_key() -> None:
    codes = {error.code for error in tree()}
    assert set(rules.KINDS) | {rules.OPERATORS_ONLY} <= codes
    of_keys = {error.code for error in Unauthenticated.__subclasses__()} - {"missing_api_key", "session_ended"}
    failures = of_keys | {
        "sign_in_failed",
        "invalid_link",
        "too_many_sign_ins",
        "enrolment_invalid",
        "host_key_invalid",
    }
    assert {code for code, kind in rules.KINDS.items() if kind == "authentication_failed"} == failures


@pytest.mark.parametrize(
    ("code", "path", "is_one"),
    [
        ("permission_denied", "/admin/orgs/{org_id}", True),
        ("permission_denied", "/user/usage", False),
        ("permission_denied", None, False),
        ("not_found", "/admin/orgs/{org_id}", False),
    ],
)
def test_a_forbidden_call_lacks_the_right_on_a_path_for_operators(code: str, path: str | None, is_one: bool) -> None:
    assert rules.is_forbidden_call(code, path) is is_one


@pytest.mark.parametrize(
    ("missing", "is_ours"),
    [
        ("req_019a00000000" + "0" * 16, True),  # of 2025
        ("req_019b00000000" + "0" * 16, False),  # of tomorrow
        ("req_" + "0" * 28, False),
        ("req_" + "f" * 28, False),
        ("req_019a00000000", False),
        ("7", False),
    ],
)
def test_an_id_from_us_has_our_form_and_a_time_of_the_past(missing: str, is_ours: bool) -> None:
    assert rules.is_from_us(missing, datetime.fromtimestamp(0x19A80000000 / 1000, UTC)) is is_ours
