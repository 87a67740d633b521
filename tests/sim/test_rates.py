"""What ``faults`` may be asked for."""

from __future__ import annotations

from typing import Any

import pytest

from hftlab.errors import ValidationError
from hftlab.sim import Faults


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"loss": -0.1}, r"loss is the share of messages that it happens to, a number of 0 to 1; got -0\.1"),
        ({"disorder": 5}, r"disorder is the share .*; got 5: for 5 percent, 0\.05"),
        ({"duplicates": float("nan")}, "duplicates is the share .*; got nan"),
        ({"resets": "often"}, "resets is the share .*; got 'often'"),
        ({"conflicts": True}, "conflicts is the share .*; got True"),
        ({"displacement": 0}, "displacement is a number of messages, an integer of 1 to 1,000,000; got 0"),
        ({"loss_burst_length": 1.5}, r"loss_burst_length is a number of messages.* got 1\.5"),
        ({"tail": -1}, "tail is a number of messages, an integer of 0 to 1,000,000; got -1"),
        ({"late_by_s": 0}, "late_by_s is a number of 1e-09 to 1e\\+06; got 0"),
        ({"step_s": float("inf")}, "step_s is a number of -1e\\+06 to 1e\\+06; got inf"),
    ],
)
def test_what_is_out_of_bounds_is_refused_with_the_bounds(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Faults(**asked)


def test_nothing_is_asked_for_by_default_and_anything_else_is_something() -> None:
    assert Faults().nothing
    assert Faults(displacement=3, late_by_s=2.0).nothing
    assert not Faults(tail=1).nothing
    assert not Faults(clock_steps=0.1).nothing
