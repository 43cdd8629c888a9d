"""Two doors (clients) to the database with one method: call a function, get its JSON."""

from tollgate.database.door import Door, Json
from tollgate.database.opening import open_door

__all__ = ["Door", "Json", "open_door"]
