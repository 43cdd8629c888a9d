"""When a change to servers and routes counts: here at once, elsewhere when the others look again."""

from pydantic import BaseModel, Field

from tollgate.catalog.cache import FRESH_SECONDS, Catalog


class Visibility(BaseModel):
    here: bool = Field(description="Whether calls to the instance that answered go by it already.")
    elsewhere_within_seconds: int = Field(description="When the last of the other instances does.", examples=[300])


async def of_change(catalog: Catalog) -> Visibility:
    return Visibility(here=await catalog.reread(), elsewhere_within_seconds=FRESH_SECONDS)
