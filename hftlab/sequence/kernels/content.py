"""The hash by which two receptions of a message are told to be the same, or not."""

from __future__ import annotations

from hftlab.events.records import Flags
from hftlab.ring.atomics import wrapped
from hftlab.sequence.kernels.atomics import called, word

_LOW_32 = 0xFFFFFFFF
_ARRIVAL_TIME = int(Flags.ARRIVAL_TIME)

# Odd constants of 63 bits: digits of the square roots of primes, as in SHA-512.
_K0, _K1, _K2, _K3 = 0x6A09E667F3BCC909, 0x3B67AE8584CAA73B, 0x3C6EF372FE94F82B, 0x254FF53A5F1D36F1
_K4, _K5, _K6, _K7 = 0x510E527FADE682D1, 0x1B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179
_K8, _K9, _K10, _K11 = 0x4BBB9D5DC1059ED9, 0x629A292A367CD507, 0x1159015A3070DD17, 0x152FECD8F70E5939
_K12 = 0x67332667FFC00B31


@called
def content_of(rows: int, row: int, before: int) -> int:
    """The hash of a message's content up to this row, ``before`` being that of the rows before (0 for the first).

    A sum of products of neighbouring words (NH, of Black et al., UMAC, 1999): five multiplications, 2 ns. It covers the
    payload, symbol, span, part, type and the source's time, and nothing that differs between two receptions.
    """
    tail = word(rows, row, 7)
    moment = 0 if (tail >> 16) & _ARRIVAL_TIME else word(rows, row, 0)
    kind = (word(rows, row, 6) & _LOW_32) | ((tail & 0xFF00000000) << 8)
    mixed = wrapped((moment + _K0) * (word(rows, row, 5) + _K1))
    mixed += wrapped((kind + _K2) * (word(rows, row, 8) + _K3))
    mixed += wrapped((word(rows, row, 9) + _K4) * (word(rows, row, 10) + _K5))
    mixed += wrapped((word(rows, row, 11) + _K6) * (word(rows, row, 12) + _K7))
    mixed += wrapped((word(rows, row, 13) + _K8) * (word(rows, row, 14) + _K9))
    mixed = wrapped(mixed + (word(rows, row, 15) + _K10) * (before + _K11))
    return wrapped((mixed ^ (mixed >> 32)) * _K12)
