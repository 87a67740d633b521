"""This machine's clock: never falling across threads and compiled code, whoever disciplines it meanwhile."""

from __future__ import annotations

import signal
import threading
import time

import numpy as np
import pytest

from hftlab.clock import ClockState, Estimate, SystemClock, kernels, system
from tests.clock.ten_minutes import Watch, watch


def estimate(clock: SystemClock, ahead_ns: int, bound_ns: int = 1_000) -> Estimate:
    """UTC is so much ahead of what the clock shows now."""
    counter_ns = time.perf_counter_ns()
    return Estimate(counter_ns, clock.now_ns() - counter_ns + ahead_ns, bound_ns, servers=("a",))


def test_nobody_has_compared_a_new_clock_with_utc() -> None:
    clock = SystemClock()
    assert (clock.state, clock.bound_ns, repr(clock)) == (ClockState.UNSYNCED, None, "SystemClock()")
    assert "nobody has compared it with UTC" in clock._repr_html_()
    assert len(clock.history) == 0
    assert len(clock.history.to_frame()) == 0


def test_an_estimate_is_slewed_in_and_told() -> None:
    clock = SystemClock()
    before = clock.now_ns()
    reading = clock.discipline(estimate(clock, 50_000_000))
    after = clock.now_ns()
    assert before <= reading.now_ns <= after
    assert reading.state is ClockState.SYNCED
    assert reading.offset_ns == pytest.approx(50_000_000, abs=5_000_000)
    assert abs(clock.utc_ns() - clock.now_ns() - 50_000_000) < 10_000_000
    assert repr(clock).startswith("SystemClock(SYNCED: +")
    (row,) = clock.history.to_frame().to_dict("records")
    assert (row["state"], row["servers"]) == ("SYNCED", "a")
    assert clock.step_forward() > 0
    assert abs(clock.reading().offset_ns) < 10


def test_compiled_code_shows_the_same_time() -> None:
    clock = SystemClock()
    address = clock.address
    for ahead_ns in (0, 70_000_000, -70_000_000):
        if ahead_ns:
            clock.discipline(estimate(clock, ahead_ns))
        for show in (kernels.now_ns, kernels.now_ns.py_func):
            before = clock.now_ns()
            shown = show(address)
            assert before <= shown <= clock.now_ns()


def test_no_thread_sees_time_fall_while_it_is_slewed_back_and_forth() -> None:
    print("seed 7")
    found: Watch = watch(seconds=0.7, seed=7)
    assert found.falls == 0, found
    assert found.changes > 3
    assert min(found.readings) > 1_000


def test_a_signal_that_comes_while_the_line_changes_does_not_wait_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    told = estimate(clock, 1_000_000)
    seen: list[int] = []
    real, before = system._perf_counter_ns, clock.now_ns()

    def interrupted() -> int:
        monkeypatch.setattr(system, "_perf_counter_ns", real)
        signal.raise_signal(signal.SIGUSR1)
        return real()

    handler = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(clock.now_ns()))
    try:
        with clock._lock:
            monkeypatch.setattr(system, "_perf_counter_ns", interrupted)
            clock._change(told)
    finally:
        signal.signal(signal.SIGUSR1, handler)
    assert len(seen) == 1
    assert before <= seen[0] <= clock.now_ns()


def test_readers_wait_while_another_thread_changes_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    told = estimate(clock, 1_000_000)
    real, changing, go_on = system._perf_counter_ns, threading.Event(), threading.Event()

    def slow() -> int:
        if threading.current_thread().name == "changes" and not changing.is_set():
            changing.set()
            assert go_on.wait(10)
        return real()

    monkeypatch.setattr(system, "_perf_counter_ns", slow)
    thread = threading.Thread(target=lambda: clock._change(told), name="changes")
    # As discipline() does, in the thread that changes.
    change = clock._change

    def locked(estimate: Estimate | None) -> None:
        with clock._lock:
            change(estimate)

    monkeypatch.setattr(clock, "_change", locked)
    thread.start()
    assert changing.wait(10)
    seen: list[int] = []
    reader = threading.Thread(target=lambda: seen.append(clock.now_ns()))
    reader.start()
    assert not seen
    go_on.set()
    thread.join(10)
    reader.join(10)
    assert len(seen) == 1
    assert seen[0] <= clock.now_ns()


def test_a_machine_that_slept_is_told_by_its_two_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    clock.discipline(estimate(clock, 0))
    assert clock.state is ClockState.SYNCED
    asleep_ns = system.asleep_ns() + 3_000_000_000
    monkeypatch.setattr(system, "asleep_ns", lambda: asleep_ns)
    assert (clock.state, clock.suspensions) == (ClockState.UNSYNCED, 1)
    clock.discipline(estimate(clock, 3_000_000_000))
    assert clock.state is ClockState.SYNCED


def test_the_picture_shows_offset_bound_state_and_drift() -> None:
    clock = SystemClock(holdover_after_s=0.001, unsynced_bound_ns=1_000_000)
    assert any("nobody has compared" in note.text for note in clock.history.figure().layout.annotations)
    for ahead_ns, bound_ns in ((1_000, 500), (2_000, 5_000_000), (500, 400)):
        clock.discipline(estimate(clock, ahead_ns, bound_ns))
    figure = clock.history.figure()
    assert {trace.name for trace in figure.data if trace.showlegend} == {"SYNCED", "UNSYNCED"}
    assert len(figure.data[2].x) == 3
    assert np.all(figure.data[0].y >= figure.data[1].y)
