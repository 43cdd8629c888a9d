"""How many upstream calls one org may have in flight in this process, so that it never takes the last connections.

An org may have three times as many calls in flight as connections are free. Alone it gets three quarters of all;
two busy orgs get three sevenths each, and some always stay free. An org without any call in flight may always begin
one: if no connection is free, it queues.
"""

from typing import Final

from tollgate.core.errors import TooManyInFlight

TIMES_WHAT_IS_LEFT: Final = 3


class Shares:
    def __init__(self, places: int) -> None:
        self._left = places
        self._in_flight: dict[str, int] = {}

    def check(self, org_id: str) -> None:
        """Raises TooManyInFlight when this org may not begin one more call."""
        in_flight = self._in_flight.get(org_id, 0)
        limit = max(1, TIMES_WHAT_IS_LEFT * self._left)
        if in_flight >= limit:
            raise TooManyInFlight(limit=limit, in_flight=in_flight, of="server share")

    def take(self, org_id: str) -> None:
        """As `check`. Give back what was taken."""
        self.check(org_id)
        self._left -= 1
        self._in_flight[org_id] = self._in_flight.get(org_id, 0) + 1

    def give_back(self, org_id: str) -> None:
        self._left += 1
        self._in_flight[org_id] -= 1
        if not self._in_flight[org_id]:
            del self._in_flight[org_id]
