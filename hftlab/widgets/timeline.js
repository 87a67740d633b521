// The timeline of gaps: a lane a source, and in it a third a state. States differ in sign, pattern, place and colour. What
// is drawn was chosen by the kernel; a gap that stands for others says so when it is pointed at. Joined behind canvas.js
// and marks.js, in front of inspector.js.

const LANE = 30;
const REACH = 9; // pixels around a sign within which it is meant
const LEAST_NS = 10_000; // a range of times is not made shorter
const THIRD = { open: -9, lost: 0, filled: 9 };

class GapTimeline extends Drawing {
  constructor(canvas, { onSelect, onZoom, onLane }) {
    super(canvas);
    Object.assign(this, { onSelect, onZoom, onLane });
    this.timeline = { lanes: [], begin_ns: "0", end_ns: "0", until_ns: "0" };
    this.marks = [];
    this.selected = "";
    this.chosen = null; // the selected gap's own values: it is drawn even where another stands for it
    this.position = 0n;
    this.hover = null;
    this.drag = null;
    this.on("pointerdown", (event) => this.press(event));
    this.on("pointermove", (event) => this.point(event));
    this.on("pointerup", (event) => this.release(event));
    this.on("pointercancel", () => { this.drag = null; this.redraw(); });
    this.on("pointerleave", () => { this.hover = null; this.redraw(); });
    this.on("dblclick", () => this.onZoom(null));
  }

  setTimeline(timeline) {
    this.timeline = timeline;
    this.marks = readMarks(timeline);
    this.canvas.style.height = `${Math.max(timeline.lanes.length, 2) * LANE + 26}px`;
    this.redraw();
  }

  // The selected gap's key at once, and its values when the kernel has sent them.
  setSelected(key, mark = null) {
    this.selected = key;
    this.chosen = mark && mark.map(BigInt);
    this.redraw();
  }

  get chosenMark() {
    const drawn = this.marks.find((mark) => mark.key === this.selected);
    return drawn ?? (this.chosen && readMark(this.chosen, this.timeline));
  }

  setPosition(ns) {
    this.position = BigInt(ns);
    this.redraw();
  }

  // The range a step in or out, around the selected gap where it is in sight.
  zoomBy(factor) {
    const { begin_ns: begin, end_ns: end } = this.timeline;
    const span = Number(BigInt(end) - BigInt(begin));
    if (!span) return;
    const chosen = this.chosenMark;
    const middle = chosen && chosen.from >= 0 && chosen.from * 1e9 <= span ? chosen.from * 1e9 : span / 2;
    const half = Math.max(span * factor, LEAST_NS) / 2;
    this.zoomTo(middle - half, middle + half);
  }

  zoomTo(from, to) {
    const begin = BigInt(this.timeline.begin_ns);
    this.onZoom(`${begin + BigInt(Math.round(from))}:${begin + BigInt(Math.round(to))}`);
  }

  draw() {
    const sheet = this.clear();
    if (!sheet) return;
    const { lanes, begin_ns: begin, end_ns: end, until_ns: until } = this.timeline;
    const span = Number(BigInt(end) - BigInt(begin)) / 1e9;
    this.box = null;
    if (!lanes.length || !span) {
      this.say("no gaps", sheet);
      return;
    }
    const { pen } = this;
    const widest = Math.max(...lanes.map(([, name]) => pen.measureText(name).width));
    const left = Math.min(Math.ceil(widest) + 14, Math.round(sheet.width * 0.3), 240);
    const box = { left, right: sheet.width - 12, top: 0, bottom: lanes.length * LANE };
    this.box = box;
    this.span = span;
    this.x = (seconds) => box.left + (seconds / span) * (box.right - box.left);
    const seconds = (ns) => Number(ns - BigInt(begin)) / 1e9;
    this.now = this.position ? seconds(this.position) : null;
    // What is open has been open until the latest moment that is known of.
    this.until = Math.max(seconds(BigInt(until)), this.now ?? -Infinity);
    this.drawLanes(box, sheet.colour);
    const base = Number(BigInt(begin) / 1000n) / 1e6;
    pen.strokeStyle = sheet.colour("grid");
    pen.beginPath();
    this.drawTimes(box, this.x, base, 0, span, sheet.colour, (at) => {
      pen.moveTo(Math.round(at) + 0.5, 0);
      pen.lineTo(Math.round(at) + 0.5, box.bottom);
    });
    pen.stroke();
    pen.save();
    pen.beginPath();
    pen.rect(box.left - 6, 0, box.right - box.left + 12, box.bottom);
    pen.clip();
    for (const mark of this.marks) if (mark.key !== this.selected) this.drawMark(mark, sheet.colour);
    const chosen = this.chosenMark;
    if (chosen) this.drawChosen(chosen, sheet.colour);
    this.drawCursor(box, sheet.colour);
    pen.restore();
    if (this.drag && this.drag.moved) this.drawDrag(box, sheet.colour);
    else if (this.hover) this.tell(this.hover, box, sheet.colour);
  }

  drawLanes(box, colour) {
    const { pen } = this;
    this.timeline.lanes.forEach(([, name], lane) => {
      if (lane % 2) {
        pen.globalAlpha = 0.05;
        pen.fillStyle = colour("text");
        pen.fillRect(box.left, lane * LANE, box.right - box.left, LANE);
        pen.globalAlpha = 1;
      }
      pen.fillStyle = colour("text");
      pen.textAlign = "left";
      pen.textBaseline = "middle";
      pen.fillText(this.shortened(name, box.left - 12), 2, (lane + 0.5) * LANE);
    });
  }

  shortened(text, width) {
    const { pen } = this;
    if (pen.measureText(text).width <= width) return text;
    let kept = text.length;
    while (kept > 3 && pen.measureText(`${text.slice(0, kept / 2)}…${text.slice(-kept / 2)}`).width > width) kept -= 2;
    return `${text.slice(0, kept / 2)}…${text.slice(-kept / 2)}`;
  }

  // Where a mark's bar is: x from and to, and its middle's y.
  place(mark) {
    const to = mark.to ?? Math.max(this.until, mark.from);
    return [this.x(mark.from), this.x(to), (mark.lane + 0.5) * LANE + THIRD[mark.state]];
  }

  drawMark(mark, colour) {
    const { pen } = this;
    const [from, to, y] = this.place(mark);
    pen.globalAlpha = mark.earlier ? 0.45 : 1;
    pen.fillStyle = colour(mark.state);
    pen.strokeStyle = colour(mark.state);
    pen.lineWidth = 1.5;
    pen.setLineDash(mark.earlier && mark.state !== "lost" ? [3, 2] : []);
    if (mark.state === "lost") {
      pen.fillRect(from, y - 3, to - from, 6);
    } else if (to - from > 1) {
      pen.strokeRect(from, y - 3, to - from, 6);
      if (mark.state === "open") this.hatch(from, to, y);
    }
    pen.setLineDash([]);
    this.drawSign(mark.state, mark.state === "open" ? to : from, y);
    pen.globalAlpha = 1;
  }

  hatch(from, to, y) {
    const { pen, box } = this;
    pen.lineWidth = 1;
    pen.beginPath();
    const last = Math.min(to, box.right);
    for (let x = Math.max(from, box.left) + 2; x < last - 4; x += 6) {
      pen.moveTo(x, y + 3);
      pen.lineTo(x + 4, y - 3);
    }
    pen.stroke();
  }

  drawSign(state, x, y) {
    const { pen } = this;
    pen.beginPath();
    if (state === "lost") {
      pen.lineWidth = 2.4;
      for (const side of [-1, 1]) {
        pen.moveTo(x - 4, y - 4 * side);
        pen.lineTo(x + 4, y + 4 * side);
      }
      pen.stroke();
    } else if (state === "open") {
      pen.moveTo(x - 2, y - 5);
      pen.lineTo(x + 6, y);
      pen.lineTo(x - 2, y + 5);
      pen.fill();
    } else {
      pen.lineWidth = 1.6;
      pen.arc(x, y, 3.6, 0, 7);
      pen.stroke();
    }
  }

  drawChosen(mark, colour) {
    const { pen, box } = this;
    const [from, to, y] = this.place(mark);
    const [left, right] = [Math.max(from, box.left) - 8, Math.min(to, box.right) + 9];
    pen.fillStyle = colour("line");
    pen.globalAlpha = 0.16;
    pen.fillRect(left, 0, right - left, box.bottom);
    pen.globalAlpha = 1;
    pen.fillStyle = colour("back");
    pen.strokeStyle = colour("text");
    pen.lineWidth = 1.5;
    pen.beginPath();
    pen.roundRect(left, y - 8, right - left, 16, 8);
    pen.fill();
    this.drawMark(mark, colour);
    pen.strokeStyle = colour("text");
    pen.lineWidth = 1.5;
    pen.beginPath();
    pen.roundRect(left, y - 8, right - left, 16, 8);
    pen.stroke();
  }

  drawCursor(box, colour) {
    if (this.now === null) return;
    const { pen } = this;
    const at = this.x(this.now);
    pen.strokeStyle = colour("cursor");
    pen.fillStyle = colour("cursor");
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(at, 0);
    pen.lineTo(at, box.bottom);
    pen.stroke();
    pen.beginPath();
    pen.moveTo(at - 4, 0);
    pen.lineTo(at + 4, 0);
    pen.lineTo(at, 6);
    pen.fill();
  }

  drawDrag(box, colour) {
    const { pen, drag } = this;
    pen.fillStyle = colour("line");
    pen.globalAlpha = 0.2;
    pen.fillRect(Math.min(drag.from, drag.to), 0, Math.abs(drag.to - drag.from), box.bottom);
    pen.globalAlpha = 1;
  }

  tell(mark, box, colour) {
    const [from, to, y] = this.place(mark);
    const many = mark.missing === 1n ? "1 number" : `${mark.missing.toLocaleString("en-US")} numbers`;
    const why = mark.reason ? ` (${mark.reason})` : "";
    const lines = [`${mark.numbers}: ${many} ${mark.state}${why}`];
    if (mark.earlier) lines.push("from an earlier run");
    if (mark.standsFor > 1) lines.push(`the longest of ${mark.standsFor.toLocaleString("en-US")} here: drag to zoom in`);
    const at = mark.state === "open" ? to : from;
    this.tag(lines.join("\n"), Math.max(at, box.left), y - 14, box, colour("text"), colour("back"));
  }

  // -- pointing -------------------------------------------------------------------------------------------------------

  // The mark that is meant by a point: the nearest within reach; of bars, the one that it is on.
  at(x, y) {
    let [found, nearest] = [null, REACH];
    for (const mark of this.box ? this.marks : []) {
      const [from, to, level] = this.place(mark);
      if (Math.abs(y - level) > 7) continue;
      const far = Math.max(from - x, x - to, 0);
      // Of two bars under the pointer, the one whose end is nearer.
      const distance = far + Math.min(Math.abs(x - from), Math.abs(x - to)) / 1e4 + Math.abs(y - level) / 10;
      if (distance < nearest) [found, nearest] = [mark, distance];
    }
    return found;
  }

  laneAt(event) {
    const lane = this.timeline.lanes[Math.floor(event.offsetY / LANE)];
    return this.box && lane && event.offsetX < this.box.left - 6 ? lane[0] : null;
  }

  press(event) {
    if (!this.box || event.button || event.offsetX < this.box.left - 6 || event.offsetY > this.box.bottom + 20) return;
    this.drag = { from: event.offsetX, to: event.offsetX, moved: false };
    this.canvas.setPointerCapture(event.pointerId);
  }

  point(event) {
    if (this.drag) {
      this.drag.to = Math.min(Math.max(event.offsetX, this.box.left), this.box.right);
      this.drag.moved ||= Math.abs(event.offsetX - this.drag.from) > 5;
    }
    this.hover = this.at(event.offsetX, event.offsetY);
    this.canvas.style.cursor = this.hover || this.laneAt(event) ? "pointer" : "";
    this.redraw();
  }

  release(event) {
    const { drag } = this;
    this.drag = null;
    this.redraw();
    const lane = this.laneAt(event);
    if (!drag) {
      if (lane !== null) this.onLane(lane);
      return;
    }
    if (!drag.moved) {
      const mark = this.at(event.offsetX, event.offsetY);
      if (mark) this.onSelect(mark.key);
      return;
    }
    const { box, span } = this;
    const ns = (x) => ((Math.max(x, box.left) - box.left) / (box.right - box.left)) * span * 1e9;
    const [from, to] = [ns(Math.min(drag.from, drag.to)), ns(Math.max(drag.from, drag.to))];
    const short = Math.max(LEAST_NS - (to - from), 0) / 2;
    this.zoomTo(from - short, to + short);
  }
}
