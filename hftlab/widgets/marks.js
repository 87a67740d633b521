// The gaps that a timeline draws, as the kernel sends them: integers of 64 bits, which a browser's numbers can't hold, a row
// for each of what `gap_choice.MARK` names. Joined in front of timeline.js.

const MARK_ROWS = 10;
const STATES = ["", "open", "filled", "lost"];
const REASONS = ["", "deadline", "window", "reset", "end", "decided", "skipped"];

// One mark from its values (integers of 64 bits), with times in seconds after the timeline's beginning; null without a lane.
function readMark(values, timeline) {
  const [opened, closed, source, epoch, first, last, state, reason, standsFor, earlier] = values;
  const lane = timeline.lanes.findIndex(([id]) => id === String(source));
  const seconds = (ns) => Number(ns - BigInt(timeline.begin_ns)) / 1e9;
  return lane < 0 ? null : {
    key: [source, epoch, first, last].join(":"),
    lane,
    from: seconds(opened),
    to: closed ? seconds(closed) : null,
    state: STATES[Number(state)],
    reason: REASONS[Number(reason)],
    numbers: first === last ? String(first) : `${first}…${last}`,
    missing: last - first + 1n,
    standsFor: Number(standsFor),
    earlier: Boolean(earlier),
  };
}

function readMarks(timeline) {
  const view = timeline.marks;
  if (!view || !view.byteLength) return [];
  const all = new BigInt64Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  const count = all.length / MARK_ROWS;
  const rows = Array.from({ length: MARK_ROWS }, (_, row) => row);
  return Array.from({ length: count }, (_, i) => readMark(rows.map((row) => all[row * count + i]), timeline)).filter(Boolean);
}
