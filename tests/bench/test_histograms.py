"""The histogram's benchmark runs, on a few values: whether it is fast is not asked here."""

import importlib

import pytest

from tests.bench import histograms


def test_every_contender_records_and_both_of_ours_record_the_same() -> None:
    found = histograms.measure(runs=2, batches=2)
    assert [(one.work, one.contender) for one in found] == [
        (histograms.WORK, "hftlab"),
        (histograms.COLUMNS, "hftlab"),
        (histograms.WORK, "numpy.histogram"),
        (histograms.WORK, "hdrhistogram"),
    ]
    assert all(one.skipped or (len(one.figures) == 2 and one.median > 0) for one in found)


def test_without_the_peer_it_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert histograms.measure(runs=1, batches=1)[-1].skipped.startswith("hdrhistogram is not installed")
