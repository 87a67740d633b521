"""The ring's benchmark runs, on a few rows: whether it is fast is not asked here."""

import pytest

from tests.bench import rings


def test_both_contenders_do_every_work_and_all_rows_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rings, "ROWS", 20 * rings.BATCH)
    found = rings.measure(runs=1)
    assert [(one.work, one.contender) for one in found] == [
        (work, contender) for work in rings.GOALS for contender in (rings.OURS, rings.PEER)
    ]
    assert all(one.skipped or one.median > 0 for one in found)
    assert not any(one.skipped for one in found if one.contender == rings.OURS)


def test_without_a_compiler_the_peer_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rings, "ROWS", rings.BATCH)
    monkeypatch.setattr("shutil.which", lambda name: None)
    skipped = [one.skipped for one in rings.measure(runs=1) if one.contender == rings.PEER]
    assert skipped == ["no C++ compiler on the PATH (looked for c++, g++, clang++)"] * 3


def test_a_contender_that_garbles_rows_fails_instead_of_being_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rings, "ROWS", rings.BATCH)
    wrong = rings.Contender("wrong", *(lambda *arguments: 1,) * 4)
    with pytest.raises(AssertionError, match="wrong: 1 rows"):
        wrong.work(rings.BATCHES)()
