"""What the quick checks let pass, the rules let pass: on events of every kind, sound and broken."""

from __future__ import annotations

import math
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple

from hftlab.errors import ValidationError
from hftlab.events import Event, EventType, Flags
from hftlab.events.quick import QUICK_CHECKS
from hftlab.events.records import RUN_BIT
from hftlab.events.types import EVENT_CLASSES
from tests.events.strategies import CLASSES, events, headers, payloads

EDGES = [
    -1, 0, 1, 2, 5, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40, 1 << 41, RUN_BIT - 1, RUN_BIT, RUN_BIT | 1 << 40,
    (1 << 63) - 1, 1 << 63, -(1 << 63), 1 << 200, True, None, "", "x", "x" * 24, "x" * 25, "x" * 33, "x" * 41, "x" * 65,
    "a\0", "é", "\n", "\ud800", 0.0, -0.0, 1.5, -1.5, 5e-324, -5e-324, 1.7976931348623157e308, math.inf, -math.inf,
    math.nan, Flags.EMITTED, Flags.NONE, b"x",
]  # fmt: skip


@given(events())
def test_sound_events_of_plain_ascii_pass_without_a_look_at_the_rules(event: Event) -> None:
    plain = all(not isinstance(value, str) or value.isascii() for value in astuple(event))
    assert QUICK_CHECKS[event.event_type](astuple(event)) is plain


@pytest.mark.parametrize("event_type", list(EventType))
@given(data=st.data())
def test_nothing_passes_that_the_rules_refuse(event_type: EventType, data: st.DataObject) -> None:
    fields: dict[str, Any] = data.draw(headers()) | data.draw(payloads[event_type])
    for name in data.draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=2)):
        fields[name] = data.draw(st.sampled_from(EDGES))
    values = tuple(fields[name] for name in EVENT_CLASSES[event_type].__struct_fields__)
    if QUICK_CHECKS[event_type](values):
        with patch.object(CLASSES[event_type], "_quick", staticmethod(lambda _: False)):
            made = CLASSES[event_type](**fields)
        assert list(map(repr, astuple(made))) == list(map(repr, values))


@pytest.mark.parametrize("event_type", list(EventType))
@given(data=st.data())
def test_an_event_is_made_or_refused_with_and_without_the_quick_check_alike(
    event_type: EventType, data: st.DataObject
) -> None:
    fields: dict[str, Any] = data.draw(headers()) | data.draw(payloads[event_type])
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(st.sampled_from(EDGES))

    def outcome() -> object:
        try:
            return list(map(repr, astuple(CLASSES[event_type](**fields))))
        except ValidationError as error:
            return str(error)

    with patch.object(CLASSES[event_type], "_quick", staticmethod(lambda _: False)):
        slowly = outcome()
    assert outcome() == slowly


@pytest.mark.parametrize("event_type", list(EventType))
@given(data=st.data())
def test_a_value_of_another_type_passes_in_no_field(event_type: EventType, data: st.DataObject) -> None:
    values = list(astuple(data.draw(events(event_type))))
    for position in range(len(values)):
        assert not QUICK_CHECKS[event_type]((*values[:position], object(), *values[position + 1 :]))
