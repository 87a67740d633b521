"""Where time goes, from one end to the other: appended, read, sequenced, dispatched, handled; and clocks of a lab."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

import hftlab as hl
from hftlab.clock import Skew
from hftlab.errors import ValidationError
from hftlab.metrics.journeys import Stage

LATE_NS = 5_000_000


def rows_now(lab: hl.Lab, count: int) -> hl.EventBatch:
    """Rows that arrived 5 ms ago, and were sent 2 ms before that."""
    batch = hl.sim.market(["BTCUSDT", "ETHUSDT"], seconds=5, seed=3)[:count]
    batch.records["received"] = lab.clock.now_ns() - LATE_NS
    batch.records["timestamp"] = batch.records["received"] - 2_000_000
    return batch


def counts(latency: hl.metrics.Latency) -> dict[Stage, int]:
    return {stage: histogram.recorded for stage, histogram in latency.stages.items()}


async def test_a_processor_times_the_whole_way_of_its_events(tmp_path: Path) -> None:
    async with hl.Lab(directory=tmp_path / "data") as lab:
        batch = rows_now(lab, 400)
        rows = len(batch)
        await lab.streams.append(batch, session="live")
        lab.bus.subscribe(lambda price: None, hl.MarketDataEvent, name="look")
        processor = lab.processor(group="research", session="live")
        await processor.start()
        try:
            async with asyncio.timeout(20):
                while processor.statistics().handled < rows:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.001)
        finally:
            await processor.stop()
        shown = processor.latency
        assert shown.paths == ("processor",)
        found = counts(shown)
        whole = {stage: rows for stage in Stage if stage is not Stage.APPENDED}
        assert found == whole
        assert shown.histogram("received").minimum == shown.histogram("received").maximum == 2_000_000
        assert (shown.histogram("total").minimum or 0) > LATE_NS
        # Of rows that were appended by another clock's time it may be negative; here server and reader share one.
        assert shown.histogram("read").negative == 0
        assert counts(lab.latency)[Stage.APPENDED] == rows
        assert (lab.latency.histogram("appended").minimum or 0) > LATE_NS


async def test_what_is_appended_is_timed_if_it_arrived_just_now_and_not_if_it_is_a_capture(tmp_path: Path) -> None:
    async with hl.Lab(directory=tmp_path / "data") as lab:
        old = rows_now(lab, 200)
        old.records["received"] -= 3_600_000_000_000
        await lab.streams.append(old, session="old")
        assert lab.streams.latency.stages == {}
        await lab.streams.append(rows_now(lab, 150), session="new")
        assert counts(lab.streams.latency) == {Stage.APPENDED: 150}


async def test_a_replay_times_its_stages_and_corrects_a_recorders_clock(tmp_path: Path) -> None:
    async with hl.Lab(directory=tmp_path / "data") as lab:
        batch = hl.sim.market(["BTCUSDT"], seconds=60, seed=5)
        behind_ns = 1_270_000_000
        elapsed_ns = batch.records["received"] - batch.records["received"][0]
        batch.records["received"] += (-behind_ns + elapsed_ns * 18e-6).astype(np.int64)
        await lab.streams.append(batch, session="slow")
        lab.bus.subscribe(lambda price: None, hl.MarketDataEvent, name="look")
        replay = lab.replay("slow")
        assert counts(replay.latency) == {}
        await replay.run(progress=False)
        raw = replay.latency.histogram("received")
        assert raw.negative == raw.recorded > 0
        assert Stage.TOTAL not in replay.latency.stages, "recorded arrivals have no end on this machine"
        skew = replay.latency.skew
        assert skew is not None
        assert skew.offset_ns == pytest.approx(-behind_ns, abs=5_000_000)
        assert skew.drift_ppb is None or skew.drift_ppb == pytest.approx(18_000, abs=10_000)
        again = lab.replay("slow", skew=skew)
        await again.run(progress=False)
        corrected = again.latency.histogram("received")
        assert corrected.recorded == raw.recorded
        assert corrected.negative <= corrected.recorded // 1_000
        assert again.digest == replay.digest, "only what is shown is corrected"
        # Paced, sought, stepped: each event is in once.
        stepped = lab.replay("slow")
        await stepped.step(50)
        assert counts(stepped.latency)[Stage.HANDLED] == 50
        await stepped.close()


async def test_a_skew_is_one_and_not_a_number(tmp_path: Path) -> None:
    async with hl.Lab(directory=tmp_path / "data") as lab:
        with pytest.raises(ValidationError, match="skew is how far the recorder's clock was off"):
            lab.replay("any", skew=1.27)  # type: ignore[arg-type]
        assert Skew.__name__ == "Skew"


async def test_without_journeys_a_lab_times_nothing(tmp_path: Path) -> None:
    async with hl.Lab(directory=tmp_path / "data", journeys=0) as lab:
        await lab.streams.append(rows_now(lab, 50), session="s")
        lab.bus.subscribe(lambda price: None, hl.MarketDataEvent, name="look")
        replay = await lab.replay("s").run(progress=False)
        for shown in (lab.latency, replay.latency, lab.streams.latency):
            assert (shown.paths, shown.stages) == ((), {})


async def test_a_lab_compares_its_clock_with_the_servers_that_it_is_told_and_asks_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HFTLAB_NTP", raising=False)
    assert hl.Lab(directory=tmp_path / "none").ntp is None
    monkeypatch.setenv("HFTLAB_NTP", "127.0.0.1:1, [::1]:1")
    named = hl.Lab(directory=tmp_path / "named")
    assert named.ntp is not None
    assert named.ntp.servers == ("127.0.0.1:1", "[::1]:1")
    assert hl.Lab(directory=tmp_path / "off", ntp=()).ntp is None
    with pytest.raises(ValidationError, match="ntp names servers"):
        hl.Lab(directory=tmp_path / "bad", ntp=[5])  # type: ignore[list-item]
    async with hl.Lab(directory=tmp_path / "one", ntp="127.0.0.1:1") as lab:
        assert lab.ntp is not None
        async with asyncio.timeout(10):
            while not lab.ntp.statistics().servers[0].sent:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.005)
        assert lab.ntp.running
        assert lab.bus.clock is lab.clock is lab.system_clock
        assert abs(lab.clock.now_ns() - time.time_ns()) < 3_600_000_000_000
    assert not lab.ntp.running


async def test_a_lab_is_examined_with_its_own_server_and_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HFTLAB_NTP", raising=False)
    async with hl.Lab(directory=tmp_path / "data") as lab:
        report = await lab.doctor()
        assert not report.failed
        assert len(report.to_frame()) == len(report.checks) > 10


async def test_a_processor_of_a_capture_does_not_say_how_long_ago_that_was(tmp_path: Path) -> None:
    async with hl.Lab(directory=tmp_path / "data") as lab:
        batch = hl.sim.market(["BTCUSDT"], seconds=5, seed=3)
        await lab.streams.append(batch, session="old")
        lab.bus.subscribe(lambda price: None, hl.MarketDataEvent, name="look")
        processor = lab.processor(group="research", session="old")
        await processor.start()
        try:
            async with asyncio.timeout(20):
                while processor.statistics().handled < len(batch):  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.001)
        finally:
            await processor.stop()
        assert Stage.TOTAL not in processor.latency.stages
        assert counts(processor.latency)[Stage.HANDLED] == len(batch)
        with pytest.raises(ValidationError, match="runs are compared by their latencies"):
            processor.latency.figure(lab)  # type: ignore[arg-type]
