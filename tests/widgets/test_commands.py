from __future__ import annotations

import math
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.widgets.commands import MOST_STEPS, MOST_WAITING, Command, Do, add_command, parse_command, position_in


@pytest.mark.parametrize(
    ("content", "command"),
    [
        ({"do": "play", "value": None}, Command(Do.PLAY)),
        ({"do": "pause"}, Command(Do.PAUSE)),
        ({"do": "step", "value": 5}, Command(Do.STEP, 5)),
        ({"do": "seek", "value": " 23:54:30 "}, Command(Do.SEEK, "23:54:30")),
        ({"do": "seek", "value": 0.25}, Command(Do.SEEK, 0.25)),
        ({"do": "seek", "value": 1}, Command(Do.SEEK, 1.0)),
        ({"do": "seek-by", "value": -0.1}, Command(Do.SEEK_BY, -0.1)),
        ({"do": "speed", "value": "inf"}, Command(Do.SPEED, math.inf)),
        ({"do": "speed", "value": 2}, Command(Do.SPEED, 2.0)),
        ({"do": "symbol", "value": "BTCUSDT"}, Command(Do.SYMBOL, "BTCUSDT")),
        ({"do": "heard", "value": "x1"}, Command(Do.HEARD, "x1")),
    ],
)
def test_a_message_of_a_view_becomes_a_command(content: object, command: Command) -> None:
    assert parse_command(content) == command


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "an object with a `do`"),
        ([], "an object with a `do`"),
        ({}, "one of play, pause"),
        ({"do": "format"}, "'format'"),
        ({"do": ["play"]}, "one of play, pause"),
        ({"do": "step", "value": 0}, "got 0"),
        ({"do": "step", "value": True}, "got True"),
        ({"do": "step", "value": 1.5}, "got 1.5"),
        ({"do": "step", "value": MOST_STEPS + 1}, "1 to 100,000"),
        ({"do": "speed", "value": "fast"}, "'fast'"),
        ({"do": "speed", "value": -1}, "got -1"),
        ({"do": "speed", "value": "nan"}, "nan"),
        ({"do": "speed", "value": None}, "None"),
        ({"do": "seek", "value": 1.01}, "1.01"),
        ({"do": "seek", "value": float("nan")}, "nan"),
        ({"do": "seek", "value": None}, "None"),
        ({"do": "seek", "value": "  "}, "23:54:30"),
        ({"do": "seek", "value": "9" * 101}, "up to 100 characters"),
        ({"do": "seek-by", "value": "1"}, "from -1 to 1"),
        ({"do": "symbol", "value": 5}, "got 5"),
    ],
)
def test_what_a_view_may_not_ask_is_refused_with_what_it_sent(content: object, told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        parse_command(content)
    assert told in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=200),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.fixed_dictionaries({"do": st.sampled_from([*Do, "x"]) | json_values, "value": json_values}) | json_values)
def test_whatever_a_page_sends_is_a_command_or_a_validation_error(content: object) -> None:
    try:
        command = parse_command(content)
    except ValidationError:
        return
    assert isinstance(command.do, Do)
    if command.do is Do.STEP:
        assert 1 <= command.value <= MOST_STEPS  # type: ignore[operator]


def queue(*commands: Command) -> list[Command]:
    waiting: deque[Command] = deque()
    for command in commands:
        add_command(waiting, command)
    return list(waiting)


def test_a_dragged_slider_ends_where_it_was_let_go() -> None:
    assert queue(*[Command(Do.SEEK, at / 100) for at in range(50)]) == [Command(Do.SEEK, 0.49)]


def test_pressed_steps_add_up() -> None:
    assert queue(Command(Do.STEP, 1), Command(Do.STEP, 1), Command(Do.STEP, 5)) == [Command(Do.STEP, 7)]
    assert queue(Command(Do.STEP, MOST_STEPS), Command(Do.STEP, 1)) == [Command(Do.STEP, MOST_STEPS)]


def test_moves_add_up() -> None:
    (moved,) = queue(Command(Do.SEEK_BY, -0.01), Command(Do.SEEK_BY, -0.1))
    assert moved.value == pytest.approx(-0.11)


def test_a_seek_makes_the_moves_before_it_pointless_and_keeps_the_rest() -> None:
    left = queue(Command(Do.SPEED, 2.0), Command(Do.STEP, 3), Command(Do.SEEK_BY, 0.1), Command(Do.SEEK, "12:00:00"))
    assert left == [Command(Do.SPEED, 2.0), Command(Do.SEEK, "12:00:00")]


def test_commands_of_different_kinds_keep_their_order() -> None:
    commands = [Command(Do.SEEK, 0.5), Command(Do.STEP, 2), Command(Do.PLAY), Command(Do.SPEED, 1.0)]
    assert queue(*commands) == commands


@given(
    st.lists(st.sampled_from([Command(Do.PLAY), Command(Do.STEP, 1), Command(Do.SPEED, 1.0), Command(Do.SEEK, 0.1)]))
)
def test_no_mix_of_commands_stacks_up(commands: list[Command]) -> None:
    left = queue(*commands)
    assert len(left) <= MOST_WAITING
    assert left[-1:] == commands[-1:] or left[-1].do is Do.STEP


def test_digits_alone_are_an_event_id_or_nanoseconds() -> None:
    assert position_in(" 1099511627786 ") == 1_099_511_627_786
    assert position_in("23:54:30") == "23:54:30"
    assert position_in("٣") == "٣"  # digits of other scripts are left to the parser of times, which refuses them
