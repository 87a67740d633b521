from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from hftlab.clock import ServerState, SystemClock, VirtualClock
from hftlab.clock.ntp.poller import NtpPoller
from hftlab.errors import ValidationError
from hftlab.widgets.clock_series import read_series
from hftlab.widgets.clock_sources import clock_of, poller_of
from hftlab.widgets.clock_watching import PACE_S, ClockWatching
from tests.widgets.clocked import PretendedPoller, disciplined, server, tell, told

PARTS = {"status", "chart", "servers", "fault"}


class Watched:
    """A panel's model with one view, on a clock that is moved by hand."""

    def __init__(self, source: Any) -> None:
        self.changes = 0
        self.model = ClockWatching(source, self.changed)
        self.now = 0.0
        self.everything = self.model.everything()
        self.say("heard", "view")

    def changed(self) -> None:
        self.changes += 1

    def say(self, do: str, value: Any = None) -> None:
        self.model.receive({"do": do, "value": value}, self.now)

    def look(self, after_s: float = PACE_S) -> tuple[dict[str, Any], float | None]:
        self.now += after_s
        return self.model.look(self.now)


def points_of(parts: dict[str, Any]) -> int:
    return int(read_series(parts["chart"]).shape[1])


def test_a_view_that_is_made_now_gets_everything_as_plain_data() -> None:
    everything = Watched(PretendedPoller(disciplined(), server())).everything
    assert set(everything) == PARTS
    plain = {**everything, "chart": {**everything["chart"], "points": ""}}
    assert json.loads(json.dumps(plain)) == plain
    assert everything["status"]["clock"] == "SYNCED"
    assert everything["servers"]["rows"][0][3] == "truechimer"


def test_without_a_view_nothing_is_looked_at() -> None:
    watched = Watched(disciplined())
    watched.say("left", "view")
    assert watched.look() == ({}, None)


def test_a_clock_that_nobody_disciplines_has_no_picture_and_nothing_new() -> None:
    watched = Watched(SystemClock())
    assert points_of(watched.everything) == 0
    assert watched.everything["status"]["advice"]
    assert watched.everything["servers"]["more"] == "No NTP server is named"
    for _ in range(3):
        assert watched.look() == ({}, PACE_S)


def test_each_look_draws_on_from_what_the_clock_kept() -> None:
    clock = disciplined()
    watched = Watched(clock)
    assert points_of(watched.everything) == 2  # when it was told, and now
    assert points_of(watched.look()[0]) == 3
    tell(clock, 20_000)
    parts, pace_s = watched.look()
    assert points_of(parts) == 5
    assert pace_s == PACE_S
    seconds = read_series(parts["chart"])[0]
    assert (seconds[1:] >= seconds[:-1]).all()


def test_a_clock_that_is_told_of_utc_later_is_shown_from_then_on() -> None:
    clock = SystemClock()
    watched = Watched(clock)
    watched.look()
    tell(clock, 1_000)
    parts, _ = watched.look()
    assert parts["status"]["clock"] == "SYNCED"
    assert parts["status"]["advice"] == ""
    assert points_of(parts) == 3  # and that it was unknown before


def test_a_server_that_turns_is_shown_by_the_next_look() -> None:
    poller = PretendedPoller(disciplined(), server("a"), server("b"))
    watched = Watched(poller)
    assert "servers" not in watched.look()[0]
    poller.shown = told(server("a"), server("b", state=ServerState.FALSETICKER, offset_ns=1_000_000_000))
    parts, _ = watched.look()
    assert [row[0] for row in parts["servers"]["rows"]] == ["good", "bad"]
    assert parts["status"]["badges"][-1][1] == "1 falseticker"


def test_a_lab_whose_servers_are_asked_from_its_start_on_is_followed() -> None:
    clock = disciplined()
    lab = SimpleNamespace(system_clock=clock, ntp=None)
    watched = Watched(lab)
    assert watched.model.clock is clock
    assert watched.everything["servers"]["rows"] == []
    lab.ntp = PretendedPoller(clock, server())
    assert len(watched.look()[0]["servers"]["rows"]) == 1


def test_the_window_is_chosen_and_nonsense_is_told() -> None:
    watched = Watched(disciplined())
    watched.say("window", "1 day")
    assert watched.look()[0]["chart"]["window"] == "1 day"
    watched.say("window", "<script>")
    assert watched.look()[0]["fault"]["name"] == "ValidationError"
    watched.say("dismiss")
    assert watched.look()[0]["fault"] == {}


def test_a_poller_of_servers_brings_its_clock() -> None:
    clock = SystemClock()
    poller = NtpPoller(["127.0.0.1:11123"], clock)
    assert clock_of(poller) is clock
    assert poller_of(poller) is poller
    assert poller_of(clock) is None
    shown = Watched(poller).everything
    assert shown["status"]["advice"] == ""
    assert shown["servers"]["rows"][0][3] == "unheard"


@pytest.mark.parametrize("source", [None, 5, "lab", VirtualClock(), SimpleNamespace(clock=VirtualClock())])
def test_what_has_no_such_clock_is_refused(source: Any) -> None:
    with pytest.raises(ValidationError, match="takes a Lab, a SystemClock"):
        ClockWatching(source, lambda: None)
