"""A format's options out of text, and what tells readings apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hftlab.errors import FeedError, HftlabError, ValidationError
from hftlab.events import EventBatch
from hftlab.feeds import fingerprint, formats, mapping_from, options_from
from hftlab.feeds.capture import Capture


@pytest.fixture
def form(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(formats, "_FORMATS", dict(formats._FORMATS))

    @formats.register("typed")
    def typed(
        capture: Capture, *, merge: bool = False, depth: int = 5, scale: float = 1.0, name: str | None = None,
        names: Sequence[str] | None = None, columns: Mapping[str, str] | None = None,
    ) -> Iterator[EventBatch]:  # fmt: skip
        yield EventBatch.empty()

    return "typed"


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        ([], {}),
        (["merge"], {"merge": True}),
        (["merge=yes", "merge=Off"], {"merge": False}),
        (["depth=10", "scale=0.5"], {"depth": 10, "scale": 0.5}),
        (["name=a=b", "names=x,y,z"], {"name": "a=b", "names": ["x", "y", "z"]}),
        (["name="], {"name": ""}),
        (["unknown=7"], {"unknown": "7"}),
    ],
)
def test_an_options_kind_is_told_by_its_default(texts: list[str], options: dict[str, Any], form: str) -> None:
    assert options_from(form, texts) == options


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("merge=2", ValidationError, "merge is true or false; got '2'"),
        ("depth", ValidationError, "depth needs a value: depth=VALUE"),
        ("depth=much", ValidationError, "depth is a number such as 5; got 'much'"),
        ("two words=1", ValidationError, "NAME=VALUE"),
        ("columns=a", FeedError, "--column"),
    ],
)
def test_what_does_not_fit_says_what_would(text: str, kind: type[HftlabError], said: str, form: str) -> None:
    with pytest.raises(kind, match=said):
        options_from(form, [text])


def test_pairs_need_their_equals_sign() -> None:
    assert mapping_from(["volume=amount", "price=p=q"], "--column", "a=b") == {"volume": "amount", "price": "p=q"}
    with pytest.raises(ValidationError, match=r"--column is OURS=THEIRS, such as a=b; got 'volume'"):
        mapping_from(["volume"], "--column", "a=b")


def test_a_fingerprint_tells_bytes_order_format_and_options(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"ab")
    two.write_bytes(b"c")
    same = fingerprint([one, two], "csv", {"a": 1, "b": 2})
    assert same == fingerprint([str(one), two], "csv", {"b": 2, "a": 1})
    others = [
        fingerprint([two, one], "csv", {"a": 1, "b": 2}),
        fingerprint([one, two], "csv", {"a": 1}),
        fingerprint([one, two], "binance", {"a": 1, "b": 2}),
    ]
    one.write_bytes(b"a")
    two.write_bytes(b"bc")
    others.append(fingerprint([one, two], "csv", {"a": 1, "b": 2}))
    assert same not in others
    assert len(set(others)) == len(others)
