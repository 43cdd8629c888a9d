"""OpenRouter's statement of a day: GET /activity, for a management key."""

from datetime import date
from http import HTTPStatus
from typing import Final

from tollgate.core.errors import ActivityUnavailable
from tollgate.process.http_client import Http, NoAnswer
from tollgate.reconciliation.rules import Statement, Unreadable, read_statement

TIMEOUT_SECONDS: Final = 10.0


class Activity:
    def __init__(self, http: Http, base_url: str, management_key: str, key_hash: str | None) -> None:
        self._http = http
        self._url = f"{base_url}/activity"
        self._key = management_key
        self._of_key = {"api_key_hash": key_hash} if key_hash else {}
        """Only the requests of this key. Without it, those of the whole account."""

    async def of_day(self, day: date) -> Statement:
        query = {"date": day.isoformat(), **self._of_key}
        try:
            headers = {"authorization": f"Bearer {self._key}"}
            answer = await self._http.ask("GET", self._url, TIMEOUT_SECONDS, params=query, headers=headers)
        except NoAnswer:
            raise ActivityUnavailable(reason="it did not answer") from None
        if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise ActivityUnavailable(reason="it refused OPENROUTER_MANAGEMENT_KEY; set one that works")
        if answer.status_code != HTTPStatus.OK:
            raise ActivityUnavailable(reason=f"it answered with status {answer.status_code}")
        try:
            return read_statement(answer.content, day)
        except Unreadable as error:
            raise ActivityUnavailable(reason=f"its answer could not be read: {error}") from None
