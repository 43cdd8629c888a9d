"""Passes a stream on: bytes as they came, with the end held back until the call is settled."""

from collections.abc import Callable, Mapping
from typing import Any

from tollgate.completions import charge_shown
from tollgate.completions.answer_forms import CHAT, AnswerForm
from tollgate.completions.charge_shown import UNKNOWN, Amounts
from tollgate.core import sse
from tollgate.core.sse import Event, Events, Tally
from tollgate.upstreams.dialects.openai import AT_THE_END, as_it_came

BLANK_LINES = (b"\n\n", b"\r\r", b"\r\n\r\n")


class Relay:
    """Passes events on in order. Those from [DONE] on are held back for the settlement; when the charge goes into the
    usage, those from the usage on."""

    def __init__(
        self,
        tally: Tally,
        shown: Callable[[Event], bytes | None],
        *,
        wants_charge: bool,
        hides_cost: bool,
        error_as: Callable[[bytes], bytes] | None = None,
        form: AnswerForm = CHAT,
    ) -> None:
        """`error_as` puts the upstream's error in an event into the shape that the client expects."""
        self.tally = tally
        self._shown = shown
        self._wants_charge = wants_charge
        self._hides_cost = hides_cost
        self._error_as = error_as
        self._form = form
        self._is_unchanged = shown is as_it_came and not wants_charge and not tally.counts
        self._events = Events()
        self._held: list[bytes] = []
        self._usage: tuple[int, bytes] | None = None
        """The index of the held-back event that the charge goes into, and the event with the cost."""

    def take(self, piece: bytes) -> bytes:
        """What may go out after this piece. Events that carry only text pass without being parsed."""
        first = b""
        if self._is_unchanged and self.tally.awaits_start:
            end = piece.find(b"\n\n") + 2
            first, piece = self._parsed(piece[:end]), piece[end:]
        quiet = sse.quiet(piece, self.tally.noteworthy) if self._may_skip else 0
        self.tally.events += piece.count(b"\n\n", 0, quiet)
        rest = self._parsed(piece[quiet:]) if quiet < len(piece) else b""
        return first + piece[:quiet] + rest

    @property
    def _may_skip(self) -> bool:
        known = not self.tally.awaits_start
        return self._is_unchanged and known and self._events.is_between and not self._held

    def _parsed(self, piece: bytes) -> bytes:
        return b"".join([self._pass(event) for event in self._events.feed(piece)])

    def rest(self) -> bytes:
        """As `take`, for an event that the upstream left unfinished."""
        return b"".join([self._pass(self._finished(event)) for event in self._events.finish()])

    def tail(self, amounts: Amounts, charge: Mapping[str, Any] | None = None) -> bytes:
        """What was held back. A complete stream without its last event gets one."""
        held = list(self._held)
        if self._usage is not None:
            index, event = self._usage
            priced = charge_shown.in_event(event, amounts, self._form.usage_in) if self._hides_cost else event
            held[index] = charge_shown.with_charge(priced, charge, self._form.usage_in) if charge else priced
        lacks_end = self.tally.ending == "complete" and not self.tally.done
        return (self._shown(AT_THE_END) or b"") + b"".join(held) + (self._form.end if lacks_end else b"")

    def _pass(self, event: Event) -> bytes:
        before = self.tally.usage
        shown = self._see(event) if event.data else event.raw
        released = self._release() if shown and event.data and not self.tally.done else b""
        if shown and self.tally.usage is not before and self._waits_for_charge():
            self._usage = len(self._held), shown
            shown = charge_shown.in_event(shown, UNKNOWN, self._form.usage_in) if self._hides_cost else shown
        elif not self._held and not self.tally.done:
            return released + shown
        self._held.append(shown)
        return released

    def _waits_for_charge(self) -> bool:
        return self._wants_charge or (self._hides_cost and charge_shown.states_cost(self.tally.usage))

    def _see(self, event: Event) -> bytes:
        self.tally.see(event.data)
        shown = self._shown(event) or b""
        if shown and self._error_as and self.tally.failure and b'"error"' in shown:
            return self._error_as(shown)
        if self._form.is_typed and self._hides_cost and self.tally.usage is None and b"cost" in shown:
            return charge_shown.without_cost(shown, self._form.usage_in)
        return shown

    def _finished(self, event: Event) -> Event:
        """With the blank line that it may lack, where an event of ours may follow."""
        if self.tally.done or sse.is_done(event.data) or event.raw.endswith(BLANK_LINES):
            return event
        return event._replace(raw=event.raw + b"\n\n")

    def _release(self) -> bytes:
        """More text followed, so what was held back was not the end."""
        released = b"".join(self._held)
        self._held, self._usage = [], None
        return released


def as_event(body: bytes) -> bytes:
    """A plain answer as an event, for when a heartbeat has begun the stream already."""
    return b"".join(b"data: " + line + b"\n" for line in body.splitlines()) + b"\n"
