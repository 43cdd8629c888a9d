"""A map for what is remembered of calls. It cannot fill the memory."""

from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class BoundedMap(dict[Key, Value]):
    """Emptied when it is full. What is lost is found out again."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, key: Key, value: Value) -> None:
        if len(self) >= self._most and key not in self:
            self.clear()
        super().__setitem__(key, value)
