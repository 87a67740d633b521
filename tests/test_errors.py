"""Exceptions hang on one tree, as its drawing says, and what they show of a value never makes a second error."""

from __future__ import annotations

import re

import pytest

from hftlab import errors
from hftlab.errors import HftlabError, shown


def exceptions() -> dict[str, type[BaseException]]:
    found = {name: value for name, value in vars(errors).items() if isinstance(value, type)}
    return {name: value for name, value in found.items() if issubclass(value, BaseException)}


def test_every_exception_is_one_of_ours_and_drawn_in_the_tree_under_its_parent() -> None:
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│ ]*(?:├── |└── )?)([A-Z]\w+)", line)
        if match:
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            drawn[match[2]] = path[depth - 1] if depth else ""
    ours = exceptions()
    assert set(drawn) == set(ours)
    for name, parent in drawn.items():
        assert issubclass(ours[name], HftlabError)
        assert not parent or ours[parent] in ours[name].__bases__


class Shy:
    def __repr__(self) -> str:
        raise KeyError("no")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "'x'"),
        ("x" * 500, "'" + "x" * 99),
        (10**5_000, "<int that can't be shown: ValueError>"),
        (Shy(), "<Shy that can't be shown: KeyError>"),
        (None, "None"),
    ],
    ids=["text", "long", "number", "shy", "none"],
)
def test_any_value_can_be_shown(value: object, text: str) -> None:
    assert shown(value) == text
    assert len(shown(value, 10)) <= len(text)
