"""``SymbolSlots``: which symbols have histograms of their own, as the compiled pass looks them up."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from hftlab.metrics.journeys import kernels
from hftlab.metrics.journeys import layout as at

Ints = npt.NDArray[np.int64]

NOTHING = np.iinfo(np.int64).max
"""A window's least difference before it has one."""
OTHER_SYMBOLS = "other symbols"


class SymbolSlots:
    """The journey's state block, its symbols' table, its scratch and its envelopes: arrays that never move.

    Slots 0 to ``most - 1`` go to the first symbols that come, slot ``most`` is for all others.
    """

    def __init__(self, most: int, symbol_name: Callable[[int], str]) -> None:
        self.most = most
        self.names: list[str] = []
        """By slot, as they were called when they were given one."""
        self._symbol_name = symbol_name
        # Four places a symbol at least: searches for a symbol of the rest end soon.
        places = 1 << (4 * most + 3).bit_length()
        self._keys, self._slots = np.empty(places, np.int64), np.empty(places, np.int64)
        self._scratch = np.empty(4 * at.SCRATCH_ROWS, np.int64)
        self.envelopes: Ints = np.empty((at.MOST_SOURCES, at.ENVELOPE_WORDS), np.int64)
        self.state: Ints = np.zeros(at.STATE_WORDS, np.int64)
        for word, array in ((at.KEYS, self._keys), (at.SLOTS, self._slots), (at.SCRATCH, self._scratch),
                            (at.ENVELOPES, self.envelopes)):  # fmt: skip
            self.state[word] = array.ctypes.data
        self.state[at.KEY_MASK] = places - 1
        self.address = int(self.state.ctypes.data)
        self.clear()

    def clear(self) -> None:
        """Forget symbols and envelopes; ids may mean something else from now on."""
        self.names.clear()
        self._keys[:] = -1
        self._slots[:] = -1
        self.envelopes[:] = 0
        self.envelopes[:, at.ENVELOPE_SOURCE] = -1
        self.envelopes[:, at.ENVELOPE_LEAST : at.ENVELOPE_AT] = NOTHING
        self.state[at.REST] = self.most if self.most == 0 else -1
        self.state[at.BEYOND] = self.state[at.IMPLAUSIBLE] = 0

    def slot_for(self, symbol: int) -> int:
        """The slot of a symbol id, a new one where it has none and there is room."""
        slot = int(kernels.slot_of(self.address, symbol))
        if slot < 0:
            slot = len(self.names)
            kernels.give_slot(self.address, symbol, slot)
            self.names.append(self._symbol_name(symbol))
            if len(self.names) == self.most:
                self.state[at.REST] = self.most
        return slot

    def slot_name(self, slot: int) -> str:
        """The symbol's name, or what all that have no slot are called."""
        return self.names[slot] if slot < self.most else OTHER_SYMBOLS

    def envelope_points(self) -> Iterator[tuple[int, Ints, Ints, int, int]]:
        """Each source's id, its windows' least differences (arrivals, values), its rows, and its stamps' resolution."""
        for words in self.envelopes:
            if words[at.ENVELOPE_SOURCE] < 0:
                return
            least = words[at.ENVELOPE_LEAST : at.ENVELOPE_AT]
            filled = least != NOTHING
            moments = words[at.ENVELOPE_AT :]
            events, resolution_ns = int(words[at.ENVELOPE_EVENTS]), int(words[at.ENVELOPE_RESOLUTION])
            yield int(words[at.ENVELOPE_SOURCE]), moments[filled], least[filled], events, resolution_ns

    def copy(self) -> SymbolSlots:
        """All of it in memory of its own."""
        twin = SymbolSlots(self.most, self._symbol_name)
        for mine, its in ((self._keys, twin._keys), (self._slots, twin._slots), (self.envelopes, twin.envelopes)):
            its[:] = mine
        # Behind the addresses.
        twin.state[at.REST], twin.state[at.BEYOND :] = self.state[at.REST], self.state[at.BEYOND :]
        twin.names = list(self.names)
        return twin


class HistogramTable:
    """One type's histograms as the kernel finds them: two addresses a slot, of RECEIVED and TOTAL; 0: none yet."""

    def __init__(self, most_symbols: int) -> None:
        self.words: Ints = np.zeros(2 * (most_symbols + 1), np.int64)
        self.address = int(self.words.ctypes.data)
