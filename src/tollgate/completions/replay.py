"""The stored answer to a repeated Idempotency-Key."""

import base64
from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

MOST_STORED_BYTES: Final = 512 * 1024

NOT_STORED: Final[Mapping[str, Any]] = {"kept": False}


def stored(status: int, content_type: str, body: bytes) -> Mapping[str, Any]:
    if len(body) > MOST_STORED_BYTES:
        return NOT_STORED
    return {"kept": True, "status": status, "content_type": content_type, "body": base64.b64encode(body).decode()}


def response(answer: Mapping[str, Any]) -> Response:
    headers = {
        "content-type": answer["content_type"],
        "idempotency-replayed": "true",
        "x-tollgate-request-id": answer["request_id"],
        "x-tollgate-charge-nanos": "0",
    }
    return Response(base64.b64decode(answer["body"]), answer["status"], headers)
