"""The arguments of ``market``, checked and turned into whole numbers: ticks, lots and ns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hftlab.errors import ValidationError
from hftlab.events.tables import check_symbol
from hftlab.sim.draws import Floats, Ints
from hftlab.sim.latency import Latency

if TYPE_CHECKING:
    from hftlab.clock.times import Time

SECOND_NS = 1_000_000_000
MAX_EVENTS = 1 << 26
"""More events at once are refused: they take 8 GiB as rows."""

_EXACT = 1 << 53  # whole numbers up to here are exact in float64
_MAX_DECIMALS = 15
_MAX_LOTS = 1e9
_MAX_TICKS = 1 << 40


class Units(NamedTuple):
    """Steps of a price or a size, as ``numerator / denominator`` with a power of ten below: 0.25 is 25 / 100.

    A number of steps times 25, over 100, is one correctly rounded division: the nearest float64 to the decimal, which
    prints as such. Steps times 0.25 would not be for most sizes of a step (29 * 0.01 is 0.29000000000000004).
    """

    name: str
    step: Decimal
    numerator: int
    denominator: int

    @classmethod
    def of(cls, name: str, step: float) -> Units:
        """Steps of this size. Raises ValidationError."""
        decimal = Decimal(repr(check_within(name, step, 10.0**-_MAX_DECIMALS, 1e6)))
        exponent = decimal.as_tuple().exponent
        assert isinstance(exponent, int)
        denominator = 10 ** max(-exponent, 0)
        if denominator > 10**_MAX_DECIMALS:
            raise ValidationError(f"{name} has up to {_MAX_DECIMALS} decimals; got {step!r}")
        return cls(name, decimal, int(decimal * denominator), denominator)

    def values(self, steps: Ints) -> Floats:
        """Numbers of steps as prices or sizes."""
        return np.true_divide(steps * self.numerator, self.denominator)

    def steps(self, name: str, size: float) -> float:
        """How many steps a mean size has; need not be whole. Raises ValidationError."""
        found = float(Decimal(repr(check_within(name, size, 0.0, math.inf))) / self.step)
        if not 1 <= found <= _MAX_LOTS or found * 64 * self.numerator > _EXACT:
            raise ValidationError(
                f"{name} is 1 to {_MAX_LOTS:,.0f} times {self.name} ({self.step}), with up to 15 digits; got {size!r}"
            )
        return found

    def start(self, price: float | Mapping[str, float], symbol: str) -> int:
        """The number of ticks that is nearest to a symbol's first price. Raises ValidationError."""
        if isinstance(price, Mapping):
            if symbol not in price:
                raise ValidationError(f"price names {', '.join(map(str, price))[:100]}, and has none for {symbol}")
            price = price[symbol]
        found = check_within("price", price, 0.0, math.inf)
        ticks = int((Decimal(repr(found)) / self.step).to_integral_value())
        if not 1 <= ticks <= _MAX_TICKS or (ticks + MAX_EVENTS) * self.numerator > _EXACT:
            raise ValidationError(
                f"a price is 1 to {_MAX_TICKS:,} times {self.name} ({self.step}), with up to 15 digits; got {price!r}"
            )
        return ticks


def check_within(name: str, value: float, low: float, high: float) -> float:
    """The number as a float. Raises ValidationError unless it is finite and within the bounds (these included)."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ValidationError(f"{name} is a number; got {value!r:.100}")
    found = float(value)
    if not math.isfinite(found) or not low <= found <= high:
        bounds = f"of at least {low:g}" if high == math.inf else f"of {low:g} to {high:g}"
        raise ValidationError(f"{name} is a number {bounds}; got {value!r:.100}")
    return found


def check_names(symbols: str | Iterable[str]) -> list[str]:
    """The symbols as a list. Raises ValidationError for none, for one twice, and for what is no symbol."""
    if not isinstance(symbols, (str, Iterable)):
        raise ValidationError(f'symbols is a name such as "BTCUSDT", or a list of names; got {symbols!r:.100}')
    names = [symbols] if isinstance(symbols, str) else list(symbols)
    for name in names:
        check_symbol(name)
    if not names or len(set(names)) < len(names):
        raise ValidationError(f"symbols are one or more names, each once; got {names!r:.100}")
    return names


def check_seed(seed: int) -> None:
    """Raise ValidationError for what is not an integer of at least 0."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValidationError(f"seed is an integer of at least 0: the same one, the same bytes; got {seed!r:.100}")


def check_period(start: Time, seconds: float) -> tuple[int, int]:
    """The start and the length in ns. Raises TimeError, ValidationError."""
    from hftlab.clock import parse_time

    horizon_ns = max(int(check_within("seconds", seconds, 1e-9, 1e9) * SECOND_NS), 1)
    start_ns = parse_time(start)
    # 0 as a time means "not stamped yet"; an hour at the end is room for latencies.
    if not 0 < start_ns < (1 << 63) - horizon_ns - 3600 * SECOND_NS:
        raise ValidationError(f"a market lies between 1970 and 2262; got start {start!r:.100} and {seconds!r} s")
    return start_ns, horizon_ns


def check_events(rate_hz: float, seconds: float, symbols: int) -> None:
    """Raise ValidationError for more events than are made at once."""
    expected = rate_hz * seconds * symbols
    if expected > MAX_EVENTS:
        raise ValidationError(
            f"market makes up to {MAX_EVENTS:,} events at once (8 GiB); {rate_hz:,g} a second for {seconds:,g} s and "
            f"{symbols} symbols are about {expected:,.0f}: ask for fewer, or for one stretch of time after the other"
        )


def check_latency(latency: Latency | None) -> Latency:
    """The latency, or the default one. Raises ValidationError."""
    if latency is None:
        return Latency()
    if not isinstance(latency, Latency):
        raise ValidationError(f"latency is a Latency(floor_ns, jitter_ns, sigma); got {latency!r:.100}")
    check_within("floor_ns", latency.floor_ns, 0, 60 * SECOND_NS)
    check_within("jitter_ns", latency.jitter_ns, 0, 60 * SECOND_NS)
    check_within("sigma", latency.sigma, 0.0, 2.0)
    return latency
