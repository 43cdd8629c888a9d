"""What is wrong with a field, in a sentence that says what to send instead. Pure."""

from collections.abc import Mapping
from typing import Any

DATE = "must be a date such as 2026-11-01"
TIME = "must be a time such as 2026-11-01T09:30:00Z"
TIME_OR_DATE = f"{TIME}, or a date such as 2026-11-01"
NO_NUL = r"^[^\x00]*$"
"""Postgres stores any character but NUL."""
ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f]*$"
"""No control characters."""
PRINTABLE = r"^[!-~]+$"
"""Printable ASCII without spaces."""
IDEMPOTENCY_KEY = "must be 1 to {longest} characters of printable ASCII"
PATTERNS = {
    "^[ -~]{1,180}$": IDEMPOTENCY_KEY.format(longest=180),
    NO_NUL: "must not have the character NUL",
    ONE_LINE: "must not have control characters, such as line breaks",
    PRINTABLE: "must be printable ASCII without spaces",
    "^[!-~]{1,200}$": "must be 1 to 200 characters of printable ASCII without spaces",
    r"^[a-z][a-z0-9_-]{0,62}$": "must be at most 63 lower-case letters, digits, - and _, and begin with a letter",
    r"^https?://[!-~]+$": "must be an address that begins with https:// or http://",
    r"^/[^\s?#\x00-\x1f\x7f]*$": "must be a path that begins with /, without spaces, ? and #",
    r"^[0-9]{1,6}(\.[0-9]{1,30})?$": 'must be a decimal number as text, such as "0.000002"',
    r"^UPSTREAM_[A-Z0-9_]{1,119}$": "must begin with UPSTREAM_ and have capital letters, digits and _ only",
    r"^[^\s@\x00-\x1f\x7f]+@[^\s@\x00-\x1f\x7f]+$": "must be an email address",
    r"^[a-z]{3}_[a-z0-9]+$": "must be an id such as dep_019aa5c1d2e37f60",
    r"^[0-9a-f]{1,64}$": "must be 1 to 64 hexadecimal digits in lower case",
    r"^https?://[^\s/@?#]+(/[^\s@?#]*[^\s/@?#])?$": "must be an address that begins with https:// or http://, without "
    "@, ?, # and a slash at its end",
    r"^/[^\x00-\x1f\x7f-\x9f]*$": "must be a path that begins with /, without control characters",
    r"^[^\x00-\x1f]+$": "must not have control characters, such as line breaks",
    r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$": "must be at most 64 letters, digits and _ . -, the first a letter or digit",
    r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$": "must be at most 100 letters, digits and _ -, the first a letter or digit",
    r"^[A-Za-z0-9][A-Za-z0-9_.:/@+-]{0,127}$": "must be at most 128 letters, digits and _ . : / @ + -, the first a "
    "letter or digit",
    r"^[A-Za-z0-9][A-Za-z0-9_./-]{0,127}$": "must be the name of a branch, a tag or a commit",
    r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,95}(/[A-Za-z0-9][A-Za-z0-9_.-]{0,95})?$": "must be a repository of the hub, such as "
    "meta-llama/Llama-3.1-8B-Instruct",
    r"^[^/\\\x00-\x1f][^\\\x00-\x1f]{0,255}$": "must be the path of a file in the repository, without a slash at its "
    "beginning",
    r"^[a-z0-9][A-Za-z0-9_.:/@-]{0,255}$": "must be a container image, such as vllm/vllm-openai:latest",
    r"^[1-5](\d\d|xx)$": "must be an HTTP status such as 404, or 4xx for all from 400 to 499",
}
KINDS = {
    "missing": "is missing. Send it",
    "extra_forbidden": "is not known here",
    "json_invalid": "is not valid JSON",
    "string_type": "must be text",
    "bool_": "must be true or false",
    "int_": "must be a whole number",
    "float_": "must be a number",
    "decimal_max_places": "must have at most {decimal_places} decimal places",
    "decimal_": "must be a number",
    "finite_number": "must be a finite number",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_": "must be an object",
    "datetime_": TIME,
    "timezone_": f"{TIME}, with its time zone",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "string_pattern_mismatch": "must match {pattern}",
}
"""By pydantic's types of errors. One with an underscore at its end stands for all that begin with it."""
ONE_AT_LEAST = {"string_too_short": "must not be empty", "too_short": "must have at least 1 entry"}
REPEATED = "is missing. Send a value of your own, and the same one when you repeat the request"
"""Of an Idempotency-Key."""
OF_VALIDATORS = "Value error, "


def sentence(fault: Mapping[str, Any]) -> str:
    """For an error of pydantic's. Our own validators have said it themselves."""
    facts, kind = fault.get("ctx", {}), fault["type"]
    if kind in ONE_AT_LEAST and facts["min_length"] == 1:
        return ONE_AT_LEAST[kind]
    if kind == "missing" and fault["loc"] == ("header", "Idempotency-Key"):
        return REPEATED
    if kind == "string_pattern_mismatch" and facts["pattern"] in PATTERNS:
        return PATTERNS[facts["pattern"]]
    told = next(
        (text for name, text in KINDS.items() if kind == name or (name[-1] == "_" and kind.startswith(name))), None
    )
    return str(fault["msg"]).removeprefix(OF_VALIDATORS) if told is None else told.format_map(facts)
