"""What a processor can be asked to be."""

from __future__ import annotations

import pytest

from hftlab.errors import ValidationError
from hftlab.pipeline import ProcessorSettings
from hftlab.pipeline.settings import named
from hftlab.sequence import Ordering


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"ordering": Ordering(merge_s=0.2)}, "without merge_s"),
        ({"types": frozenset()}, "at least one type"),
        ({"checkpoint_s": 0}, "checkpoint_s is a number of seconds"),
        ({"lease_s": True}, "lease_s is a number of seconds"),
        ({"ordering": 3}, "ordering is an hl.Ordering; got 3"),
        ({"retry": 3}, "retry is an hl.RetryPolicy; got 3"),
        ({"restart": "maybe"}, "restart is True or False; got 'maybe'"),
        ({"name": 3}, "name is text"),
    ],
)
def test_what_can_not_be_is_refused_with_what_to_do(wrong: dict[str, object], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        ProcessorSettings(group="g", session="day", **wrong)  # type: ignore[arg-type]


def test_functions_come_with_the_names_that_messages_use() -> None:
    def positive(records: object) -> None: ...

    assert named("validate", None) == ()
    assert named("validate", positive) == (("positive", positive),)
    assert named("validate", [positive]) == (("positive", positive),)
    assert named("validate", {"above 0": positive}) == (("above 0", positive),)
    with pytest.raises(ValidationError, match="validate takes functions: one, several, or a dict by name; got 3"):
        named("validate", 3)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="validate takes functions; got 3"):
        named("validate", {"three": 3})  # type: ignore[type-var]
