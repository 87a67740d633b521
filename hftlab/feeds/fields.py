"""The types of the fields in venues' messages, as msgspec decodes and validates them.

What comes out of here meets the rules of ``events.rules``. Prices and sizes that come as text ("61800.20") are decoded
straight into the nearest float64, which needs a decoder in lax mode; that mode also reads "nan" and "inf", which the
bounds refuse.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

Number = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Price = Annotated[float, Meta(ge=-1e300, le=1e300)]
Size = Annotated[float, Meta(ge=0, le=1e300)]
Level = tuple[Price, Size]
"""A price and the new total size at it; 0: the level is gone."""

Symbol = Annotated[str, Meta(min_length=1, max_length=64)]
Milliseconds = Annotated[int, Meta(ge=0, le=9_223_372_036_854)]
"""ms since 1970 that fit into int64 as ns: up to the year 2262."""
