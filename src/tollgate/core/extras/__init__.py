"""Extras: what an upstream bills apart from tokens, such as a search, a parsed page or a generated image.

`register` has a minimum price for each, whatever the model's listing says. `requested` finds the extras of a request
and bounds how often each may happen. `pricing` adds them to the worst case. `edits` writes the bounds into the body.
An extra that the register does not know is refused. Unknown parameters pass; unknown server tools, plugins, presets and
service tiers do not.

Server tools run in a loop: the model calls one, reads its result as prompt, and may call again. `max_tool_calls`
bounds the loop. If the client sets no bound, we choose one and send it upstream, as with output tokens.
"""
