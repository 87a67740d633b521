"""This machine's clock: never falling across threads and compiled code, whoever disciplines it meanwhile."""

from __future__ import annotations

import contextlib
import signal
import threading
import time

import numpy as np
import pytest
from numba import njit

from hftlab.clock import ClockState, Estimate, SystemClock, kernels, system
from hftlab.errors import HftlabError
from tests.clock.ten_minutes import Watch, watch

SECOND_NS = 1_000_000_000


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


def until(counter_ns: int) -> int:
    """Have the counter come to ``counter_ns``, and read it: so that lines of two slews show different times."""
    while (read_ns := time.perf_counter_ns()) < counter_ns:
        pass
    return read_ns


@pytest.mark.parametrize("compiled", [False, True])
def test_a_reader_between_whose_looks_the_line_changed_looks_again(
    monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    clock = SystemClock(max_slew_ppm=100_000)
    address, asked, real = clock.address, 0, time.perf_counter_ns
    # Python has taken the line, and would read the counter after it changed: the old line, if fast, is ahead by then.
    # Compiled code has read the counter, and would take the line after it changed: the new one, if fast, was behind.
    clock.discipline(estimate(clock, -SECOND_NS if compiled else SECOND_NS))
    told = estimate(clock, SECOND_NS if compiled else -SECOND_NS)

    def changed_meanwhile() -> int:
        nonlocal asked
        asked += 1
        if asked > 1:
            return real()
        counter_ns = real()
        until(counter_ns + 2_000_000)
        clock.discipline(told)
        return counter_ns if compiled else until(real() + 2_000_000)

    before = clock.now_ns()
    with monkeypatch.context() as patch:
        patch.setattr(
            kernels if compiled else system, "counter_ns" if compiled else "_perf_counter_ns", changed_meanwhile
        )
        shown = kernels.now_ns.py_func(address) if compiled else clock.now_ns()
    assert before <= shown <= clock.now_ns()


def test_the_version_is_odd_before_a_writer_reads_the_counter_and_compiled_readers_wait_while_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SystemClock()
    address, versions, looks = clock.address, [], 0
    load, store = kernels._load, kernels._store

    def noting() -> int:
        versions.append(load(address))
        return time.perf_counter_ns()

    def looking(at: int) -> int:
        nonlocal looks
        looks += at == address
        if looks == 5:
            store(address, 4)
        return load(at)

    with monkeypatch.context() as patch:
        patch.setattr(kernels, "counter_ns", noting)
        kernels.bend.py_func(address, 0, clock.now_ns() - time.perf_counter_ns(), 0.0, SECOND_NS, 5e-4, 0)
        versions.append(load(address))
        assert versions == [1, 2]
        store(address, 3)
        patch.setattr(kernels, "_load", looking)
        before = clock.now_ns()
        assert kernels.now_ns.py_func(address) >= before
    assert versions == [1, 2, 4], "the counter was read once, when the version had become even"


def test_no_thread_sees_time_fall_while_it_is_slewed_back_and_forth() -> None:
    print("seed 7")
    found: Watch = watch(seconds=0.7, seed=7)
    assert found.falls == 0, found
    assert found.changes > 3
    assert min(found.readings) > 1_000


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("place", range(1, 5))
def test_a_signal_that_comes_while_the_line_changes_neither_waits_for_itself_nor_sees_time_fall(
    monkeypatch: pytest.MonkeyPatch, place: int, compiled: bool
) -> None:
    clock = SystemClock(max_slew_ppm=100_000)
    if compiled:
        assert clock.address
    clock.discipline(estimate(clock, SECOND_NS))  # fast, and then slow: where an old line leads on, it is ahead
    told = estimate(clock, -SECOND_NS)
    seen: list[int] = []
    real, calls = system._perf_counter_ns, 0

    def interrupted() -> int:
        nonlocal calls
        calls += 1
        counter_ns = real()
        if calls == place:  # the counter has been read, and what was read has not been kept yet
            signal.raise_signal(signal.SIGUSR1)
        return counter_ns

    def ask(number: int, frame: object) -> None:
        refused = clock.refused
        seen.extend(clock.now_ns() for _ in range(3))
        seen.append(kernels.now_ns(clock.address) if compiled else seen[-1])
        clock.discipline(told)
        assert clock.refused >= refused

    handler = signal.signal(signal.SIGUSR1, ask)
    try:
        before = clock.now_ns()
        with monkeypatch.context() as patch:
            patch.setattr(system, "_perf_counter_ns", interrupted)
            clock.discipline(told)
    finally:
        signal.signal(signal.SIGUSR1, handler)
    after = clock.now_ns()
    assert len(seen) == 4, "the handler ran"
    assert [before, *seen[:3], after] == sorted([before, *seen[:3], after])
    assert before <= seen[3] <= after


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("place", range(1, 6))
def test_an_interrupt_leaves_python_and_compiled_code_with_the_same_line(
    monkeypatch: pytest.MonkeyPatch, place: int, compiled: bool
) -> None:
    clock = SystemClock(max_slew_ppm=100_000)
    clock.discipline(estimate(clock, SECOND_NS))
    address = clock.address if compiled else 0
    real, calls = system._perf_counter_ns, 0

    def interrupted() -> int:
        nonlocal calls
        calls += 1
        if calls == place:
            raise KeyboardInterrupt
        return real()

    before, told = clock.now_ns(), estimate(clock, -SECOND_NS)
    with monkeypatch.context() as patch:
        patch.setattr(system, "_perf_counter_ns", interrupted)
        with contextlib.suppress(KeyboardInterrupt):  # asked five times at most
            clock.discipline(told)
    shown = clock.now_ns()
    assert before <= shown
    if compiled:
        assert shown <= kernels.now_ns(address) <= clock.now_ns()
    clock.discipline(estimate(clock, 0))
    assert shown <= clock.now_ns()


def test_readers_wait_while_another_thread_changes_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    told = estimate(clock, 1_000_000)
    real, changing, go_on = system._perf_counter_ns, threading.Event(), threading.Event()

    def slow() -> int:
        if threading.current_thread().name == "changes" and clock._shown is None and not changing.is_set():
            changing.set()
            assert go_on.wait(10)
        return real()

    monkeypatch.setattr(system, "_perf_counter_ns", slow)
    thread = threading.Thread(target=lambda: clock.discipline(told), name="changes")
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


@njit(nogil=False)
def _asks_holding_the_interpreter(block: int) -> int:
    return kernels.now_ns(block)


def test_a_kernel_that_holds_the_interpreter_does_not_wait_for_a_writer_who_needs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SystemClock()
    told, block = estimate(clock, 1_000_000), clock.address
    _asks_holding_the_interpreter(block)
    real, changing, go_on = system._perf_counter_ns, threading.Event(), threading.Event()

    def slow() -> int:
        if clock._shown is None and not changing.is_set():
            changing.set()
            assert go_on.wait(10)
        return real()

    monkeypatch.setattr(system, "_perf_counter_ns", slow)
    thread = threading.Thread(target=lambda: clock.discipline(told))
    before = clock.now_ns()
    thread.start()
    assert changing.wait(10)
    # The writer is in the midst of it. If this waited for him, it would be for ever: he can't run meanwhile.
    shown = _asks_holding_the_interpreter(block)
    go_on.set()
    thread.join(10)
    assert before <= shown <= clock.now_ns()


def test_a_machine_that_slept_is_told_by_its_two_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    clock.discipline(estimate(clock, 0))
    assert clock.state is ClockState.SYNCED
    asleep_ns = system.asleep_ns() + 3_000_000_000
    monkeypatch.setattr(system, "asleep_ns", lambda: asleep_ns)
    assert (clock.state, clock.suspensions) == (ClockState.UNSYNCED, 1)
    clock.discipline(estimate(clock, 3_000_000_000))
    assert clock.state is ClockState.SYNCED
    assert [row.reading.state.value for row in clock.history] == ["SYNCED", "UNSYNCED", "SYNCED"]
    assert [row.estimate is None for row in clock.history] == [False, True, False]
    assert clock.history.to_frame()["servers"].tolist() == ["a", "", "a"]


def test_what_a_bound_had_grown_to_when_a_holdover_ends_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, later_ns, real = SystemClock(), 0, system._perf_counter_ns
    monkeypatch.setattr(system, "_perf_counter_ns", lambda: real() + later_ns)
    clock.discipline(estimate(clock, 0))
    later_ns = 1_000 * SECOND_NS
    clock.discipline(Estimate(real() + later_ns, time.time_ns() - real(), 500))
    states = [(row.reading.state.value, row.estimate is None) for row in clock.history]
    assert states == [("SYNCED", False), ("HOLDOVER", True), ("SYNCED", False)]
    bounds_ns = clock.history.to_frame()["bound_ns"].tolist()
    assert bounds_ns[1] == pytest.approx(15_000_000, rel=0.01)
    assert bounds_ns[2] < 2_000_000


def test_a_refused_estimate_changes_nothing_and_is_counted() -> None:
    clock = SystemClock()
    clock.discipline(estimate(clock, 0))
    clock.discipline(Estimate(0, time.time_ns(), 1))
    assert (clock.refused, len(clock.history)) == (1, 1)


def test_compiled_code_is_refused_where_the_counter_is_another_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    info = time.get_clock_info("perf_counter")
    info.implementation = "mach_absolute_time()"
    monkeypatch.setattr(time, "get_clock_info", lambda name: info)
    with pytest.raises(HftlabError, match=r"perf_counter is mach_absolute_time\(\) here; ask clock.now_ns"):
        _ = clock.address


def test_the_picture_shows_offset_bound_state_and_drift() -> None:
    clock = SystemClock(holdover_after_s=0.001, unsynced_bound_ns=1_000_000)
    assert any("nobody has compared" in note.text for note in clock.history.figure().layout.annotations)
    for ahead_ns, bound_ns in ((1_000, 500), (2_000, 5_000_000), (500, 400)):
        clock.discipline(estimate(clock, ahead_ns, bound_ns))
    figure = clock.history.figure()
    assert {"SYNCED", "UNSYNCED"} <= {trace.name for trace in figure.data if trace.showlegend}
    assert len(figure.data[2].x) == len(clock.history) >= 3
    assert np.all(figure.data[0].y >= figure.data[1].y)
