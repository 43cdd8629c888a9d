"""Extras: what an upstream does beside the model's own work, and bills apart from its tokens.

A search, a parsed page, a generated image. `register` gives each a price floor that does not depend on the model's
listing; `asked` finds the extras of a request and bounds how often each may happen; `pricing` adds them up; `sent`
writes the bounds into the body. An extra that the register does not know is refused: nothing unpriced goes upstream on
credit. Parameters that nobody here knows pass; tools that a server runs, plugins, presets and service tiers do not.

Server tools run in a loop: the model calls one, reads its result as prompt, and may call again. `max_tool_calls`
bounds the loop. Where the client leaves it open we choose a bound and send it upstream, as with output tokens.
"""
