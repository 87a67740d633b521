"""``hftlab groups`` and ``hftlab letters``: where groups stand, and what they failed on."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

import hftlab as hl
from hftlab import cli


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert cli.main([*map(str, arguments)]) == 0
    return capsys.readouterr().out


async def fill(folder: Path, errors: list[str]) -> None:
    """A session of five orders, and a group whose handler fails on the first ones of them with these errors."""
    at_ns = 1_704_205_800_000_000_000
    async with hl.Lab(directory=folder) as lab:
        orders = [
            hl.OrderEvent(symbol="A", order_id=f"o-{n}", direction=hl.Side.BUY, quantity=1, timestamp=at_ns + n)
            for n in range(5)
        ]
        await lab.streams.append(hl.EventBatch.from_events(orders), session="day")
        await lab.streams.groups.create("day", "idle")
        waiting = iter(errors)

        def book(event: hl.Event) -> None:
            if (error := next(waiting, None)) is not None:
                raise ValueError(error)

        lab.bus.subscribe(book, hl.OrderEvent, name="book")
        async with lab.processor("books", session="day", retry=hl.RetryPolicy(attempts=0)) as processor:
            await processor.drain()


def test_groups_are_listed_with_position_lag_and_dead_letters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hl.run(fill(tmp_path, ["no such account", "no money"]))
    text = told(capsys, "groups", "day", "--directory", tmp_path)
    assert text.startswith("groups of day: 2\n")
    (books,) = [line.split() for line in text.splitlines() if line.split()[0] == "books"]
    (idle,) = [line.split() for line in text.splitlines() if line.split()[0] == "idle"]
    assert books[:5] == ["books", "5", "0", "free", "2"]
    assert idle[:5] == ["idle", "0", "5", "free", "0"]
    rows = list(csv.DictReader(io.StringIO(told(capsys, "groups", "day", "--csv", "--directory", tmp_path))))
    assert [(row["group"], row["lag"], row["letters"]) for row in rows] == [("books", "0", "2"), ("idle", "5", "0")]


def test_letters_are_shown_with_handler_and_error_and_nothing_that_a_terminal_obeys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hl.run(fill(tmp_path, ["\x1b[2Jno such account\nsecond line", "no money " * 20]))
    text = told(capsys, "letters", "day", "books", "--directory", tmp_path)
    assert text.startswith("dead letters of books in day: 2, of 2 events\n")
    assert "ValueError: ?[2Jno such account\n" in text
    assert "\x1b" not in text
    assert "second line" not in text
    assert "…" in text
    assert "  book: 2\n" in text
    text = told(capsys, "letters", "day", "books", "--rows", 1, "--directory", tmp_path)
    assert "and 1 more; --csv has all" in text
    rows = list(csv.DictReader(io.StringIO(told(capsys, "letters", "day", "books", "--csv", "--directory", tmp_path))))
    assert [(row["handler"], row["log_sequence"], row["attempts"]) for row in rows] == [
        ("book", "0", "1"),
        ("book", "1", "1"),
    ]
    assert "second line" in rows[0]["error"]
    assert told(capsys, "letters", "day", "idle", "--directory", tmp_path) == "dead letters of idle in day: none\n"


def test_a_group_that_is_not_there_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hl.run(fill(tmp_path, []))
    assert cli.main(["letters", "day", "book", "--directory", str(tmp_path)]) == 1
    assert "did you mean 'books'?" in capsys.readouterr().err
    assert cli.main(["groups", "dya", "--directory", str(tmp_path)]) == 1
    assert "dya" in capsys.readouterr().err
    assert cli.main(["letters", "day", "books", "--rows", "0", "--directory", str(tmp_path)]) == 1
    assert "--rows is at least 1; got 0" in capsys.readouterr().err
