"""What is compiled before the first event: every kernel that Python calls, for the types that it calls it with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numba import types

from hftlab.sequence.kernels.dedup import deduplicate, take_back
from hftlab.sequence.kernels.rows import decide, forget, gather, sequence
from hftlab.sequence.kernels.sliding import gather_slid, let_go, slide

_INTEGERS: dict[Any, int] = {
    sequence: 7, decide: 5, gather: 3, forget: 3, deduplicate: 6, take_back: 5, slide: 6, gather_slid: 4,
}  # fmt: skip


def compiling() -> Iterator[str]:
    """Compile every kernel into numba's cache on disk, or load what is there already, and name it when it is done.

    Some 10 s in all when nothing is cached, 0.1 s of loading when all is.
    """
    for kernel, integers in _INTEGERS.items():
        kernel.compile((types.int64,) * integers)
        yield kernel.py_func.__name__
    bare: Any = let_go
    bare.compile((types.int64, types.int64, types.boolean))
    yield bare.py_func.__name__
