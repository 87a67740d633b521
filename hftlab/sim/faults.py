"""``faults``: broken feeds made on purpose, with the truth of what was done."""

from __future__ import annotations

import numpy as np

from hftlab.errors import ValidationError
from hftlab.events import EventBatch, Flags
from hftlab.events.records import Rows
from hftlab.events.rowbytes import copy_rows
from hftlab.sim.arguments import SECOND_NS, check_seed
from hftlab.sim.arrange import Arranged, arrange, stamp
from hftlab.sim.draws import Ints
from hftlab.sim.messages import Messages, messages_of, numbered
from hftlab.sim.plan import Draws, Plan, plan_faults, reset_some
from hftlab.sim.rates import Faults
from hftlab.sim.truth import LOSSES, TRUTH, Fault, FaultTruth, FaultyBatch

_END_NS = 1 << 63


def faults(
    batch: EventBatch,
    *,
    seed: int,
    loss: float = 0.0,
    loss_bursts: float = 0.0,
    loss_burst_length: int = 10,
    tail: int = 0,
    duplicates: float = 0.0,
    conflicts: float = 0.0,
    duplicate_delay: int = 8,
    disorder: float = 0.0,
    displacement: int = 8,
    late_bursts: float = 0.0,
    late_burst_length: int = 10,
    late_by_s: float = 1.0,
    resets: float = 0.0,
    clock_steps: float = 0.0,
    step_s: float = -0.5,
) -> FaultyBatch:
    """The batch as it arrives over a bad line, and ``.truth``: what was done, for a sequencer to find.

    What happens, happens to whole messages (rows that share source, epoch and sequence). A rate is the share of all
    messages that it happens to, or where it begins (0 to 1):

    - ``loss``: never arrive. ``loss_bursts``: neither do up to ``loss_burst_length`` of one source in a row. ``tail``:
      nor the last so many of every source.
    - ``duplicates``: arrive again, after 1 to ``duplicate_delay`` later messages of their source. ``conflicts``: so
      too, but in the first row another price (or bid, ask, quantity, strength): twice what it was.
    - ``disorder``: arrive after 1 to ``displacement`` later messages of their source, of the same epoch.
    - ``late_bursts``: up to ``late_burst_length`` of one source in a row are held back, and arrive together
      ``late_by_s`` seconds after the last of them was due. Longer than a deadline, and they come too late.
    - ``resets``: the source begins a new epoch with this message: numbers from 1, for all that follows.
    - ``clock_steps``: from this message on, the recorder's clock is ``step_s`` further on (or back).

    **The truth is unambiguous.** No message has two of these faults. The first and the last message of a source's
    epoch arrive in place (they may come twice): what is missing before the first number ever seen, or behind the last,
    nobody can know, so only ``tail`` takes the last ones, and nothing the first. Left alone are heartbeats and declared
    ends, messages without a number in sources that have some, and those that the batch has out of order or twice; late
    bursts that would arrive in a later epoch of their source are not made. So rates are met a little short, and by far
    in short batches. A source without any numbers is numbered from 1 first (see ``numbered``), as else no
    loss could be proved. Where numbers jump by rule (SHARED), or have none (NONE), the same is done, but a loss can't
    be seen: ``truth.lost_unseen``, not ``truth.lost``.

    **Rows.** ``received`` is the arrival in the new order: where it never fell along the batch, it falls at clock steps
    only. ``timestamp`` stays, unless it stands for the arrival (Flags.ARRIVAL_TIME); AHEAD is set or cleared where an
    arrival changed. All other rows keep their bytes, but that these are rows of no session: where they were recorded,
    ``log_sequence`` and ``session_number`` are 0 again (``cause`` stays). With nothing asked for, the rows are the
    batch's own, to the byte, numbers and session included.

    The same batch, arguments and seed give the same bytes on every machine and with every NumPy. Raises ValidationError
    for arguments out of bounds, for late bursts without arrival times, and where a clock step leaves 1970 to 2262.
    About 1 µs a row, and 10 µs a burst; the batch is not changed.
    """
    check_seed(seed)
    if not isinstance(batch, EventBatch):
        raise ValidationError(f"faults are made in an EventBatch; got {batch!r:.100}")
    asked = Faults(
        loss=loss, loss_bursts=loss_bursts, loss_burst_length=loss_burst_length, tail=tail,
        duplicates=duplicates, conflicts=conflicts, duplicate_delay=duplicate_delay,
        disorder=disorder, displacement=displacement,
        late_bursts=late_bursts, late_burst_length=late_burst_length, late_by_s=late_by_s,
        resets=resets, clock_steps=clock_steps, step_s=step_s,
    )  # fmt: skip
    if asked.nothing or not len(batch):
        count = len(messages_of(batch.records))
        return _faulty(batch, batch.records, np.zeros(0, TRUTH), asked, seed, (count, count))
    if asked.late_bursts:
        _check_arrivals(batch.records["received"], int(asked.late_by_s * SECOND_NS))
    source = numbered(batch)
    records = copy_rows(source.records)
    records["log_sequence"][(records["flags"] & Flags.EMITTED) == 0] = 0
    messages = messages_of(records)
    draws = Draws(seed, len(messages))
    messages, resetting = reset_some(records, messages, asked, draws)
    plan = plan_faults(records, messages, asked, draws)
    plan = Plan(*(np.concatenate(columns) for columns in zip(resetting, plan, strict=True)))
    arranged = arrange(records, messages, plan)
    steps, shift = _step_clock(arranged, messages, asked, draws)
    truth = _truth(records, messages, plan, arranged, shift)
    truth = _with_steps(truth, arranged, steps, int(asked.step_s * SECOND_NS))
    counts = len(messages), len(messages) + _added(plan)
    return _faulty(source, arranged.records, truth, asked, seed, counts)


def _check_arrivals(received: Ints, late_ns: int) -> None:
    if not received.all():
        raise ValidationError(
            "late bursts need to know when rows arrive; got rows with received 0 (not stamped): "
            "stamp them, or leave late_bursts at 0"
        )
    if int(received.max()) + late_ns >= _END_NS:
        raise ValidationError(
            f"arrivals lie between 1970 and 2262; bursts that are {late_ns / SECOND_NS:g} s late leave that: ask for a "
            "smaller late_by_s"
        )


def _step_clock(arranged: Arranged, messages: Messages, asked: Faults, draws: Draws) -> tuple[Ints, Ints]:
    """Set the recorder's clock; the positions where, and by how much each row's arrival was shifted."""
    records = arranged.records
    shift = np.zeros(len(records) + 1, np.int64)
    begins = messages.first_row[draws.happens(Fault.CLOCK_STEP, asked.clock_steps)]
    steps = np.unique(np.searchsorted(arranged.key, begins))
    steps = steps[(steps > 0) & (steps < len(records))]  # before the first row, nobody can tell
    if not len(steps) or not asked.step_s:
        return steps[:0], shift
    step_ns = int(asked.step_s * SECOND_NS)
    received = records["received"]
    stamped = received != 0
    if abs(step_ns) * len(steps) < _END_NS:
        shift[steps] = step_ns
        shift = np.cumsum(shift)
    # What ran past the end has wrapped round, to below 0.
    if abs(step_ns) * len(steps) >= _END_NS or ((received + shift[:-1])[stamped] <= 0).any():
        raise ValidationError(
            f"arrivals lie between 1970 and 2262; {len(steps):,} clock steps of {asked.step_s:g} s leave that: ask for "
            "a smaller step_s, or for fewer clock_steps"
        )
    changed = np.flatnonzero(stamped & (shift[:-1] != 0))
    stamp(records, changed, received[changed] + shift[:-1][changed])
    return steps, shift


def _truth(records: Rows, messages: Messages, plan: Plan, arranged: Arranged, shift: Ints) -> Rows:
    """The plan's faults as rows of TRUTH, in the order in which they lie along the faulty batch."""
    truth = np.zeros(len(plan.kind), TRUTH)
    end = plan.lead + plan.many - 1
    first_row = messages.first_row[plan.lead]
    truth["kind"] = plan.kind
    truth["source"], truth["epoch"] = messages.source[plan.lead], messages.epoch[plan.lead]
    truth["symbol"] = records["symbol"][first_row]
    truth["first"] = messages.sequence[plan.lead] - messages.span[plan.lead] + 1
    truth["last"] = messages.sequence[end]
    truth["messages"] = plan.many
    upto = np.append(0, np.cumsum(messages.count))
    truth["rows"] = upto[end + 1] - upto[plan.lead]
    truth["position"], truth["amount"] = arranged.position, arranged.amount
    lost = arranged.position < 0
    place = np.where(lost, np.searchsorted(arranged.key, first_row), arranged.position)
    truth["received"][~lost] = arranged.records["received"][place[~lost]]
    truth["received"][lost] = (records["received"][first_row] + shift[place])[lost]
    ordered: Rows = truth[np.lexsort((plan.lead, plan.kind, place))]
    return ordered


def _with_steps(truth: Rows, arranged: Arranged, steps: Ints, step_ns: int) -> Rows:
    """The clock steps among the other faults, each before what else lies at its row."""
    listed = np.zeros(len(steps), TRUTH)
    listed["kind"] = Fault.CLOCK_STEP
    for name in ("source", "symbol", "epoch", "first", "last"):
        listed[name] = -1
    listed["messages"] = 1
    listed["position"], listed["amount"] = steps, step_ns
    listed["received"] = arranged.records["received"][steps]
    # Losses have no position of their own: they lie before the next fault that has one.
    position = np.where(truth["position"] < 0, np.iinfo(np.int64).max, truth["position"])
    position = np.minimum.accumulate(position[::-1])[::-1]
    merged: Rows = np.insert(truth, np.searchsorted(position, steps), listed)
    return merged


def _added(plan: Plan) -> int:
    lost = int(plan.of(*LOSSES).many.sum())
    return int(np.isin(plan.kind, (Fault.DUPLICATE, Fault.CONFLICT)).sum()) - lost


def _faulty(
    batch: EventBatch, records: Rows, truth: Rows, asked: Faults, seed: int, messages: tuple[int, int]
) -> FaultyBatch:
    return FaultyBatch(
        records,
        batch.symbols,
        batch.sources,
        session_number=batch.session_number if records is batch.records else 0,
        truth=FaultTruth(
            records=truth,
            symbols=batch.symbols,
            sources=batch.sources,
            asked=asked,
            seed=seed,
            messages_in=messages[0],
            messages_out=messages[1],
            rows_in=len(batch),
            rows_out=len(records),
        ),
    )
