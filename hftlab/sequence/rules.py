"""The rules by which sources number their messages: named objects, and how to add one of your own.

========== ========================= ================= ==============================================================
name       a message covers          a jump is         who numbers so (the captures that this was tested on)
========== ========================= ================= ==============================================================
plus-one   its number                a loss            HitBTC and Kraken Futures books by symbol; Binance, Coinbase
                                                       trades by trade id; dYdX's message ids by connection
range      the ``span`` numbers up   a loss            Binance books: USD-M says the number before (``pu``), spot the
           to its number                               first one (``U`` = the last ``u`` + 1); the reader makes spans
shared     its number                nothing           Binance quotes, dYdX offsets, Coinbase tickers: one counter for
                                                       several symbols or channels, of which this source has some
none       nothing                   -                 Coinbase level 2: the sequencer numbers on arrival, from 0
========== ========================= ================= ==============================================================

A rule of your own says which numbers each message covers, and whether every number must come::

    @hl.sequence.rules.register("tens", dense=True)          # 10, 20, 30 …
    def tens(records):
        return records["sequence"] // 10, records["sequence"] // 10

    hl.Source("myvenue", "trades", "BTC", rule="tens")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from hftlab.errors import ValidationError, shown
from hftlab.events.records import Rows
from hftlab.events.tables import NumberRule, Source

Numbers = Callable[[Rows], tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]
"""From records of one source (the header's fields) to the first and the last number that each row's message covers."""


class Rule(msgspec.Struct, frozen=True):
    """``dense``: every number must come, so that a jump is a loss; else numbers only rise. ``numbered``: there are any.

    ``numbers`` gives first and last numbers, int64 arrays of the records' length, the same for all rows of a message;
    None: the message covers ``sequence`` alone or, with ``spans``, the ``span`` numbers up to it.
    """

    name: str
    dense: bool = True
    spans: bool = False
    numbered: bool = True
    numbers: Numbers | None = None

    def cover(self, records: Rows) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """First and last number of each row's message. Raises ValidationError for what a rule of yours returns."""
        if self.numbers is None:
            last = records["sequence"].astype(np.int64)
            return (last - records["span"].astype(np.int64) + 1 if self.spans else last), last
        returned: Any = self.numbers(records)
        found = [np.asarray(part) for part in returned] if isinstance(returned, Iterable) else []
        if len(found) != 2 or any(part.shape != (len(records),) or part.dtype.kind not in "iu" for part in found):
            raise ValidationError(
                f"rule {self.name!r} returns two integer arrays of the length of its records ({len(records)}), first "
                f"and last numbers; got {', '.join(f'{part.dtype}{part.shape}' for part in found) or shown(returned)}"
            )
        first, last = (part.astype(np.int64) for part in found)
        return first, last


_RULES = {
    rule.name: rule
    for rule in (
        Rule(NumberRule.NONE.value, dense=False, numbered=False),
        Rule(NumberRule.PLUS_ONE.value),
        Rule(NumberRule.RANGE.value, spans=True),
        Rule(NumberRule.SHARED.value, dense=False),
    )
}
_OWN = frozenset(_RULES)


def register(name: str, *, dense: bool) -> Callable[[Numbers], Numbers]:
    """A decorator that makes a function the rule of that name; see the module's docstring for what it must do.

    Registering a name again replaces its rule, for sequencers made from then on, so a cell that does it can be rerun.
    Raises ValidationError for the name of a built-in rule.
    """
    if name in _OWN:
        raise ValidationError(f"rule {name!r} is built in; give yours another name")

    def keep(function: Numbers) -> Numbers:
        _RULES[name] = Rule(name, dense=dense, numbers=function)
        return function

    return keep


def names() -> list[str]:
    """The names of all rules, in alphabetical order."""
    return sorted(_RULES)


def is_known(source: Source) -> bool:
    """Whether the rule of a source was registered."""
    return source.rule in _RULES


def find(source: Source) -> Rule:
    """The rule of a source. Raises ValidationError where no rule of that name was registered."""
    rule = _RULES.get(source.rule)
    if rule is None:
        raise ValidationError(
            f"source {source} numbers by the rule {source.rule!r}, which nobody registered; there are "
            f"{', '.join(names())}: register it first (hftlab.sequence.rules.register)"
        )
    return rule
