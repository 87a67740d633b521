from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hftlab.widgets.audience import FRESH_S, MOST_VIEWS, SILENT_S, TRICKLE_S, Audience


def test_a_widget_that_nobody_displayed_has_no_pace() -> None:
    assert Audience().pace_s(0.0) is None


def test_a_displayed_widget_is_refreshed_before_its_view_was_heard() -> None:
    audience = Audience()
    audience.expect(0.0)
    assert audience.pace_s(1.0) == 0.0
    assert audience.pace_s(FRESH_S + 1) == TRICKLE_S  # the kernel is busy with a long cell, perhaps
    assert audience.pace_s(SILENT_S + 1) is None


def test_a_view_that_renews_keeps_the_full_pace() -> None:
    audience = Audience()
    for second in range(0, 600, 2):
        audience.heard("a", float(second))
        assert audience.pace_s(second + 1.9) == 0.0


def test_a_view_that_falls_silent_is_refreshed_slowly_and_then_not_at_all() -> None:
    audience = Audience()
    audience.heard("a", 0.0)
    assert [audience.pace_s(at) for at in (FRESH_S, FRESH_S + 0.1, SILENT_S, SILENT_S + 0.1)] == [
        0.0,
        TRICKLE_S,
        TRICKLE_S,
        None,
    ]


def test_when_the_last_view_leaves_nobody_is_there() -> None:
    audience = Audience()
    audience.heard("a", 0.0)
    audience.heard("b", 0.0)
    audience.left("a")
    assert audience.pace_s(0.0) == 0.0
    audience.left("b")
    audience.left("b")
    assert audience.pace_s(0.0) is None


def test_a_view_is_new_once() -> None:
    audience = Audience()
    assert audience.heard("a", 0.0)
    assert not audience.heard("a", 2.0)
    audience.left("a")
    assert audience.heard("a", 4.0)


@given(st.lists(st.text(max_size=4), max_size=200))
def test_a_page_that_makes_up_views_fills_no_memory(views: list[str]) -> None:
    audience = Audience()
    for at, view in enumerate(views):
        audience.heard(view, float(at) / 100)
        assert len(audience) <= MOST_VIEWS


class AudienceAgainstModel(RuleBasedStateMachine):
    """The model: when each view was heard last."""

    def __init__(self) -> None:
        super().__init__()
        self.audience, self.model, self.now = Audience(), dict[str, float](), 0.0

    @rule(view=st.sampled_from("abc"))
    def heard(self, view: str) -> None:
        assert self.audience.heard(view, self.now) == (view not in self.alive())
        self.model[view] = self.now

    @rule(view=st.sampled_from("abc"))
    def left(self, view: str) -> None:
        self.audience.left(view)
        self.model.pop(view, None)

    @rule(seconds=st.sampled_from([0.5, 2.0, 7.0, 59.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    def alive(self) -> dict[str, float]:
        return {view: at for view, at in self.model.items() if self.now - at <= SILENT_S}

    @invariant()
    def the_pace_is_that_of_the_view_heard_last(self) -> None:
        alive = self.alive()
        latest = max(alive.values(), default=None)
        wanted = None if latest is None else 0.0 if self.now - latest <= FRESH_S else TRICKLE_S
        assert self.audience.pace_s(self.now) == wanted
        assert len(self.audience) == len(alive)


TestAudience = AudienceAgainstModel.TestCase
