"""Keys: one hash tag for all, and names that are safe."""

from __future__ import annotations

import pytest
from redis.crc import key_slot

from hftlab.errors import ValidationError
from hftlab.streams.keys import Keys, check_name


def test_all_keys_of_a_namespace_lie_in_one_slot_of_a_cluster() -> None:
    keys = Keys("lab-7")
    names = [keys.sessions, keys.numbers, *keys.session(1).all, *keys.session(4_000_000).all]
    assert len(set(names)) == len(names)
    assert len({key_slot(name.encode()) for name in names}) == 1


@pytest.mark.parametrize("wrong", ["", "a b", "{x}", "x" * 65, "Ü", None, 7])
def test_a_namespace_that_would_be_no_hash_tag_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError, match="namespace"):
        Keys(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["", " x", "x ", "a\nb", "x" * 201, "\ud800", None, b"x"])
def test_a_name_that_could_not_be_read_back_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError, match="printable text"):
        check_name("a session's name", wrong)


@pytest.mark.parametrize("good", ["btc-0808", "Sitzung vom 8. August", "x" * 200, "测试"])
def test_names_are_free_text(good: str) -> None:
    assert check_name("a session's name", good) == good
