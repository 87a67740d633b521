"""The kernels do the same compiled and as the plain Python that they are written in."""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from hftlab.ring import atomics
from hftlab.sequence import Ordering, kernels, layout, sequencer
from hftlab.sequence.kernels import rows
from tests.sequence.messages import Stream, faulty_stream, streams
from tests.sequence.playing import assert_same, modelled, sequenced
from tests.sequence.test_sequencer import orderings

MODULES = [
    importlib.import_module(f"{kernels.__name__}.{module.name}") for module in pkgutil.iter_modules(kernels.__path__)
]


CALLED_BY_ROWS = ("atomics", "causes", "content", "gaps", "held", "words")


@contextmanager
def uncompiled() -> Iterator[int]:
    """Every kernel, and what kernels call, is the Python function that it was made from. Yields how many there are."""
    replaced = 0
    # Integers wrap around in a content's hash, compiled or not; NumPy's scalars warn of it.
    with pytest.MonkeyPatch.context() as patch, np.errstate(over="ignore"):
        for module in (*MODULES, sequencer):
            for name, value in list(vars(module).items()):
                if hasattr(value, "py_func"):
                    patch.setattr(module, name, value.py_func)
                    replaced += 1
        yield replaced


def test_the_kernels_file_names_the_sources_that_its_cached_machine_code_contains() -> None:
    called = [importlib.import_module(f"{kernels.__name__}.{name}") for name in CALLED_BY_ROWS]
    sources = (Path(str(module.__file__)).read_bytes() for module in (layout, *called, atomics))
    found = hashlib.sha256(b"".join(sources)).hexdigest()[:16]
    assert found == rows.COMPILED_IN, f'write COMPILED_IN = "{found}" into rows.py, or stale kernels stay cached'


@settings(max_examples=60)
@given(streams(), orderings)
def test_kernels_do_the_same_compiled_and_as_plain_python(stream: Stream, ordering: Ordering) -> None:
    compiled = sequenced(stream, ordering)
    with uncompiled() as replaced:
        assert replaced > 10
        assert_same(sequenced(stream, ordering), compiled)


def test_thousands_of_faulty_messages_come_out_of_plain_python_as_the_words_say() -> None:
    stream, ordering = faulty_stream(3, 5_000, sources=11), Ordering(window=16)
    with uncompiled():
        assert_same(sequenced(stream, ordering, [1_000, 1_001, 3_333]), modelled(stream, ordering))
