"""``import hftlab``: light, complete, and helpful."""

from __future__ import annotations

import subprocess
import sys

import pytest

import hftlab


def test_every_public_name_can_be_had() -> None:
    for name in hftlab.__all__:
        assert getattr(hftlab, name) is not None
        assert name in dir(hftlab)


def test_the_lazy_names_are_those_of_all() -> None:
    assert set(hftlab.__all__) == {"__version__", *hftlab._HOME_OF, *hftlab._PACKAGES}


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(AttributeError, match=r"hftlab has no 'Labs'; it has: .*Lab"):
        hftlab.Labs  # noqa: B018


def test_importing_hftlab_imports_nothing_heavy() -> None:
    heavy = ["numpy", "pandas", "numba", "redis", "plotly", "ipywidgets", "asyncio"]
    program = f"import sys, hftlab; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_the_events_come_without_pandas_numba_and_redis() -> None:
    heavy = ["pandas", "numba", "redis"]
    program = f"import sys, hftlab; hftlab.MarketDataEvent; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
