"""One request as each of the four that call a Lambda function tells of it."""

import base64
import json
from typing import Any
from urllib.parse import parse_qsl

Event = dict[str, Any]

CALLER = "203.0.113.7"
FORGED = "198.51.100.66"
PNG = b"\x89PNG\r\n\x1a\n\x00\xff"


def _headers(given: dict[str, str], forwarded: str) -> dict[str, str]:
    usual = {
        "accept": "*/*",
        "content-type": "application/json",
        "host": "tollgate.example.com",
        "user-agent": "curl/8.10.1",
        "x-amzn-trace-id": "Root=1-67891233-abcdef012345678912345678",
        "x-forwarded-for": forwarded,
        "x-forwarded-port": "443",
        "x-forwarded-proto": "https",
    }
    return usual | given


def function_url(method: str, path: str, body: str | None = None, *, caller: str = CALLER, **headers: str) -> Event:
    """Lambda keeps the first element of X-Forwarded-For, which may be the caller's own invention."""
    return _second(method, path, body, _headers(headers, FORGED), caller) | {"routeKey": "$default"}


def http_api(method: str, path: str, body: str | None = None, *, caller: str = CALLER, **headers: str) -> Event:
    event = _second(method, path, body, _headers(headers, f"{FORGED},{caller}"), caller)
    return event | {"routeKey": "ANY /{proxy+}", "pathParameters": {"proxy": path.lstrip("/")}}


def _second(method: str, path: str, body: str | None, headers: dict[str, str], caller: str) -> Event:
    """Version 2.0 of the payload."""
    path, _, query = path.partition("?")
    event: Event = {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "r3pmxmplak",
            "domainName": "tollgate.example.com",
            "domainPrefix": "tollgate",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": caller,
                "userAgent": headers["user-agent"],
            },
            "requestId": "JKJaXmPLvHcESHA=",
            "routeKey": "$default",
            "stage": "$default",
            "time": "21/Nov/2026:15:00:00 +0000",
            "timeEpoch": 1795273200000,
        },
        "isBase64Encoded": False,
    }
    return event if body is None else event | {"body": body}


def rest_api(method: str, path: str, body: str | None = None, *, caller: str = CALLER, **headers: str) -> Event:
    path, _, query = path.partition("?")
    told = {name.title(): value for name, value in _headers(headers, f"{FORGED}, {caller}").items()}
    asked = parse_qsl(query)
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": told,
        "multiValueHeaders": {name: [value] for name, value in told.items()},
        "queryStringParameters": dict(asked) or None,
        "multiValueQueryStringParameters": {name: [value] for name, value in asked} or None,
        "pathParameters": {"proxy": path.lstrip("/")},
        "stageVariables": None,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "id",
            "domainName": "id.execute-api.us-east-1.amazonaws.com",
            "extendedRequestId": "request-id",
            "httpMethod": method,
            "identity": {"sourceIp": caller, "userAgent": "curl/8.10.1", "cognitoIdentityId": None},
            "path": f"/prod{path}",
            "protocol": "HTTP/1.1",
            "requestId": "id=",
            "requestTimeEpoch": 1795273200000,
            "resourceId": "abc123",
            "resourcePath": "/{proxy+}",
            "stage": "prod",
        },
        "body": body,
        "isBase64Encoded": False,
    }


def load_balancer(method: str, path: str, body: str | None = None, *, caller: str = CALLER, **headers: str) -> Event:
    """Nothing in it but X-Forwarded-For knows the caller, and the balancer adds only the last element."""
    path, _, query = path.partition("?")
    group = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/tollgate/49e9d65c45c6791a"
    return {
        "requestContext": {"elb": {"targetGroupArn": group}},
        "httpMethod": method,
        "path": path,
        "queryStringParameters": dict(part.partition("=")[::2] for part in query.split("&")) if query else {},
        "headers": _headers(headers, f"{FORGED}, {caller}"),
        "body": body or "",
        "isBase64Encoded": False,
    }


def many_valued(method: str, path: str, body: str | None = None, *, caller: str = CALLER, **headers: str) -> Event:
    """The same, from a balancer that is set to send every value of a header."""
    event = load_balancer(method, path, body, caller=caller, **headers)
    told = {name: [value] for name, value in event.pop("headers").items()}
    query = {name: [value] for name, value in event.pop("queryStringParameters").items()}
    return event | {
        "multiValueHeaders": told | {"x-forwarded-for": [FORGED, f"{FORGED}, {caller}"]},
        "multiValueQueryStringParameters": query,
    }


KINDS = (function_url, http_api, rest_api, load_balancer, many_valued)


def in_base64(event: Event) -> Event:
    """As a gateway sends what it does not know to be text."""
    return event | {"body": base64.b64encode(event["body"].encode()).decode(), "isBase64Encoded": True}


def headers_of(answer: Event) -> dict[str, str]:
    return answer.get("headers") or {name: values[-1] for name, values in answer["multiValueHeaders"].items()}


def cookies_of(answer: Event) -> list[str]:
    """Version 2.0 has a list of its own for them."""
    if "cookies" in answer:
        return list(answer["cookies"])
    headers = answer.get("multiValueHeaders") or {name: [value] for name, value in answer["headers"].items()}
    return list(headers["set-cookie"])


def with_cookie(event: Event, cookie: str) -> Event:
    """As a browser's request that brings it comes: in version 2.0 beside the headers."""
    if event.get("version") == "2.0":
        return event | {"cookies": [cookie]}
    told = {name: {**event[name]} for name in ("headers", "multiValueHeaders") if name in event}
    for name, headers in told.items():
        headers["cookie"] = [cookie] if name == "multiValueHeaders" else cookie
    return event | told


def error_of(answer: Event) -> str:
    return str(json.loads(answer["body"])["error"]["code"])
