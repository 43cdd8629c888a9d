"""What one org may have in flight upstream in this process, so that it never takes the last connections.

An org may have three times as many requests in flight as there are places left. Alone it gets three quarters of all;
two that ask for more than there is get three sevenths each, and some are always left. An org without any request in
flight may always begin one: when no place is left, it queues for a connection.
"""

from collections import Counter
from typing import Final

from tollgate.core.errors import TooManyInFlight

TIMES_WHAT_IS_LEFT: Final = 3


class Shares:
    def __init__(self, places: int) -> None:
        self._left = places
        self._in_flight = Counter[str]()

    def check(self, org_id: str) -> None:
        """Raises TooManyInFlight when this org may not begin one more."""
        in_flight = self._in_flight[org_id]
        limit = max(1, TIMES_WHAT_IS_LEFT * self._left)
        if in_flight >= limit:
            raise TooManyInFlight(limit=limit, in_flight=in_flight, of="server share")

    def take(self, org_id: str) -> None:
        """As `check`; what is taken must be given back."""
        self.check(org_id)
        self._left -= 1
        self._in_flight[org_id] += 1

    def give_back(self, org_id: str) -> None:
        self._left += 1
        self._in_flight[org_id] -= 1
        if not self._in_flight[org_id]:
            del self._in_flight[org_id]
