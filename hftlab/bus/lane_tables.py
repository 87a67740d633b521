"""The lanes that mappings give to events of one type: decided once for what is told apart, then looked up by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hftlab.bus.mappings import Mapping, text_matcher
from hftlab.bus.subscriptions import is_pattern, symbol_matcher
from hftlab.events.records import DTYPES, SIGNAL_TYPE_BYTES, STRATEGY_ID_BYTES, EventType, Priority, Rows
from hftlab.events.tables import SymbolTable

Lanes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

MAX_TEXTS = 1 << 16
"""Of how many texts of signals it is remembered what they match; then all are forgotten, and looked at again."""

_MAX_PATTERNS = 256
_SIGNAL_TYPE_AT, _STRATEGY_AT = (
    int(DTYPES[EventType.SIGNAL].fields[name][1])  # type: ignore[index]
    for name in ("signal_type", "strategy_id")
)
# One field of opaque text over both, so that one lookup a row tells both.
_BOTH = f"S{_STRATEGY_AT + STRATEGY_ID_BYTES - _SIGNAL_TYPE_AT}"
_SPLIT = _STRATEGY_AT - _SIGNAL_TYPE_AT
assert _SPLIT == SIGNAL_TYPE_BYTES


class SymbolMasks:
    """Which of a table's symbols match a pattern, remembered by pattern; the latest table's alone. One thread."""

    def __init__(self) -> None:
        self._symbols: SymbolTable | None = None
        self._masks: dict[str, Mask] = {}

    def mask(self, patterns: Sequence[str], symbols: SymbolTable) -> Mask:
        """By symbol id, whether any of the patterns matches: bool of ``len(symbols)``; not to be written to.

        About 1 µs a symbol when a pattern is new, 60 ns an exact symbol.
        """
        if symbols is not self._symbols or len(self._masks) > _MAX_PATTERNS:
            self._symbols, self._masks = symbols, {}
        if len(patterns) == 1 and is_pattern(patterns[0]):
            return self._wild(patterns[0], symbols)
        found = np.zeros(len(symbols), bool)
        for pattern in patterns:
            if is_pattern(pattern):
                found |= self._wild(pattern, symbols)
            else:  # a mask each would be a square of memory where every symbol has a condition of its own
                index = symbols.find(pattern)
                if index is not None:
                    found[index] = True
        return found

    def _wild(self, pattern: str, symbols: SymbolTable) -> Mask:
        known = self._masks.get(pattern)
        done = 0 if known is None else len(known)
        if known is None or done < len(symbols):
            # Tables only grow, so what was matched before stays.
            matches = symbol_matcher(pattern)
            fresh = np.fromiter((matches(symbol) for symbol in symbols.values[done:]), bool)
            known = self._masks[pattern] = fresh if known is None else np.concatenate([known, fresh])
        return known


class _Remembered(dict[bytes, int]):
    """What a function said of each key; it is asked about those that are new."""

    def __init__(self, ask: Callable[[bytes], int]) -> None:
        self._ask = ask

    def __missing__(self, key: bytes) -> int:
        answer = self[key] = self._ask(key)
        return answer


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """A mapping, as far as it can matter: ``pattern`` and ``places`` (where its condition is set) None: everywhere."""

    lane: Priority
    pattern: str | None
    places: tuple[str, ...] | None
    texts: Callable[[str, str], bool] | None

    def matches(self, symbol: str) -> bool:
        return symbol_matcher(self.pattern)(symbol) and (
            self.places is None or any(symbol_matcher(place)(symbol) for place in self.places)
        )


class LaneTable:
    """What the mappings say of one type, while ``conditions`` (name to the patterns it is set for) are as they are.

    ``uniform`` is the lane of all its events, None where it depends on the symbol or the texts. One thread.
    """

    def __init__(
        self,
        event_type: EventType,
        mappings: Sequence[Mapping],
        conditions: dict[str, tuple[str, ...]],
        masks: SymbolMasks,
    ) -> None:
        self._masks = masks
        self._base, self._steps = _read_steps(event_type, mappings, conditions)
        self.uniform = None if self._steps else self._base
        self._by_symbol = any(step.pattern is not None or step.places is not None for step in self._steps)
        textual = [mapping for mapping in mappings if event_type in mapping.types]
        self._field = _field_of(textual) if any(step.texts for step in self._steps) else None
        self._text_steps = [step.texts for step in self._steps if step.texts is not None]
        self._symbols: SymbolTable | None = None
        self._forget()

    def lanes(self, rows: Rows, symbols: SymbolTable) -> Lanes:
        """The lane of each row of this type: uint8 of ``len(rows)``. About 4 ns a row by symbol, 80 ns by texts."""
        if self.uniform is not None:
            return np.full(len(rows), self.uniform, np.uint8)
        classes = None if self._field is None else self._look_up(rows)
        width = len(symbols) if self._by_symbol else 1
        if self._table.shape != (len(self._classes), width) or symbols is not self._symbols:
            self._build(symbols, width)
        found: Lanes
        if classes is None:
            found = self._table[0].take(rows["symbol"])
        elif not self._by_symbol:
            found = self._table[:, 0].take(classes)
        else:
            found = self._table[classes, rows["symbol"]]
        return found

    def lane_of(self, symbol: str, signal_type: str, strategy: str) -> Priority:
        """The lane of one event of this type, told by its texts (empty where the type has none). Some µs."""
        lane = self._base
        for step in self._steps:
            if (step.texts is None or step.texts(signal_type, strategy)) and step.matches(symbol):
                lane = step.lane
        return lane

    def _look_up(self, rows: Rows) -> npt.NDArray[np.intp]:
        assert self._field is not None
        form, offset = self._field
        if len(self._class_of) > MAX_TEXTS:
            self._forget()
        # A dict by row beats np.unique, which sorts the texts first: 45 ns a row, before any lookup.
        texts = rows.getfield(form, offset).tolist()
        return np.fromiter(map(self._class_of.__getitem__, texts), np.intp, len(texts))

    def _forget(self) -> None:
        # A class of texts is one outcome of all text patterns; the table has a row a class, a column a symbol.
        self._class_of = _Remembered(self._classify)
        self._classes: dict[tuple[bool, ...], int] = {(False,) * len(self._text_steps): 0}
        self._table: Lanes = np.zeros((0, 0), np.uint8)

    def _classify(self, text: bytes) -> int:
        assert self._field is not None
        offset = self._field[1]
        both = text if offset == _SIGNAL_TYPE_AT else bytes(_SPLIT) + text
        signal_type, strategy = (
            part.rstrip(b"\0").decode("utf-8", "replace") for part in (both[:_SPLIT], both[_SPLIT:])
        )
        outcome = tuple(matches(signal_type, strategy) for matches in self._text_steps)
        return self._classes.setdefault(outcome, len(self._classes))

    def _build(self, symbols: SymbolTable, width: int) -> None:
        table = np.full((len(self._classes), width), self._base, np.uint8)
        outcomes = np.array(list(self._classes), bool).reshape(len(self._classes), -1)
        column = 0
        for step in self._steps:
            where: Mask = np.ones(width, bool)
            if step.pattern is not None:
                where = where & self._masks.mask((step.pattern,), symbols)
            if step.places is not None:
                where = where & self._masks.mask(step.places, symbols)
            if step.texts is None:
                table[:, where] = step.lane
            else:
                table[np.ix_(outcomes[:, column], where)] = step.lane
                column += 1
        self._symbols, self._table = symbols, table


def _read_steps(
    event_type: EventType, mappings: Sequence[Mapping], conditions: dict[str, tuple[str, ...]]
) -> tuple[Priority, list[_Step]]:
    """The lane that holds first, and the mappings that may change it, in order. Nothing matches: NORMAL."""
    steps: list[_Step] = []
    for mapping in reversed(mappings):
        if event_type not in mapping.types:
            continue
        places: tuple[str, ...] | None = None
        if mapping.when is not None:
            places = conditions.get(mapping.when, ())
            if not places:
                continue
            if "*" in places:
                places = None
        told = mapping.strategy is not None or mapping.signal_type is not None
        if not told and mapping.pattern is None and places is None:
            return mapping.lane, steps[::-1]  # what was mapped before can't show through
        steps.append(_Step(mapping.lane, mapping.pattern, places, _texts_matcher(mapping) if told else None))
    return Priority.NORMAL, steps[::-1]


def _texts_matcher(mapping: Mapping) -> Callable[[str, str], bool]:
    by_type, by_strategy = text_matcher(mapping.signal_type), text_matcher(mapping.strategy)
    return lambda signal_type, strategy: by_type(signal_type) and by_strategy(strategy)


def _field_of(mappings: Sequence[Mapping]) -> tuple[str, int]:
    """Which bytes of a signal tell its texts apart, as far as anyone asks: their dtype and where they begin."""
    by_type = any(mapping.signal_type is not None for mapping in mappings)
    if not any(mapping.strategy is not None for mapping in mappings):
        return f"S{SIGNAL_TYPE_BYTES}", _SIGNAL_TYPE_AT
    return (_BOTH, _SIGNAL_TYPE_AT) if by_type else (f"S{STRATEGY_ID_BYTES}", _STRATEGY_AT)
