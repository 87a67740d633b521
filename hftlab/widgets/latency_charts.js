// The two pictures of a latency panel, of one run or of two: how often which latency is, and which latency at most by
// percentile. Both axes of both are logarithmic: a tail is a few values a thousand times as long as the rest. Joined behind
// canvas.js, in front of latency_panel.js.

const DASHES = [[], [5, 3]]; // the second is the one that is compared with
const RUN_COLOURS = ["now", "kept"];

// The percentile that is `decades` powers of ten from 100 %: 0 %, 90 %, 99 %, 99.9 %, and what lies between them.
function percentileText(decades) {
  const exact = Math.round(decades * 1e6) / 1e6;
  const digits = Math.max(Number.isInteger(exact) ? exact - 2 : Math.ceil(exact) - 1, 0);
  return `${(100 * (1 - 10 ** -exact)).toFixed(digits)} %`;
}

// Powers of ten from `low` to `high`, and 2 and 5 times them where there is room for `most` of them.
function logTicks(low, high, most) {
  const [first, last] = [Math.floor(Math.log10(low) + 1e-9), Math.ceil(Math.log10(high) - 1e-9)];
  const inside = (value) => value >= low * 0.999 && value <= high * 1.001;
  const all = [];
  for (let power = first; power <= last; power += 1) all.push(power);
  const fine = all.flatMap((power) => [1, 2, 5].map((step) => step * 10 ** power)).filter(inside);
  if (fine.length <= most) return fine;
  const powers = all.filter((power) => inside(10 ** power));
  const apart = Math.max(Math.ceil(powers.length / Math.max(most, 2)), 1);
  return powers.filter((power) => power % apart === 0).map((power) => 10 ** power);
}

function floats(view, rows) {
  const all = new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  const count = all.length / Math.max(rows, 1);
  return Array.from({ length: rows }, (_, row) => all.subarray(row * count, (row + 1) * count));
}

// What both pictures share: a box with axes, and a place in it that is read by pointer or by keys.
class LatencyChart extends Drawing {
  constructor(canvas) {
    super(canvas);
    Object.assign(this, { picture: null, series: [], at: null, box: null });
    this.on("pointermove", (event) => this.setPointed(this.placeAt(event.offsetX)));
    this.on("pointerleave", () => this.setPointed(null));
    this.on("blur", () => this.setPointed(null));
  }

  get filled() {
    return this.series.length > 0 && this.picture.counts.some((count) => count > 0);
  }

  setPicture(picture) {
    this.picture = picture;
    this.series = floats(picture[this.field], picture.names.length);
    if (this.at !== null) this.at = Math.min(this.at, this.places - 1);
    this.redraw();
  }

  setPointed(at) {
    if (at === this.at) return;
    this.at = at;
    this.canvas.setAttribute("aria-valuetext", at === null || !this.filled ? "nothing is read" : this.told(at).join(", "));
    this.redraw();
  }

  // Where a key moves what is read; whether there is such a key.
  move(key, shift) {
    const by = shift ? 10 : 1;
    const at = this.at;
    const to = {
      ArrowLeft: at === null ? this.places - 1 : at - by, ArrowRight: at === null ? 0 : at + by, Home: 0, End: this.places - 1,
      Escape: null,
    }[key];
    if (to === undefined || !this.filled) return false;
    this.setPointed(to === null ? null : Math.min(Math.max(to, 0), this.places - 1));
    return true;
  }

  placeAt(x) {
    const { box } = this;
    if (!box || !this.filled || x < box.left - 4 || x > box.right + 4) return null;
    return Math.min(Math.max(this.nearest((x - box.left) / (box.right - box.left)), 0), this.places - 1);
  }

  draw() {
    const sheet = this.clear();
    if (!sheet) return;
    this.box = null;
    if (!this.picture || !this.filled) {
      this.say(this.picture ? this.picture.nothing : "", sheet);
      return;
    }
    const { pen } = this;
    const levels = this.levels(sheet.height);
    const widest = Math.max(...levels.ticks.map((tick) => pen.measureText(levels.text(tick)).width), 10);
    this.box = { left: Math.ceil(widest) + 10, right: sheet.width - 12, top: 10, bottom: sheet.height - 20 };
    const { box } = this;
    const [low, high] = [Math.log(levels.low), Math.log(levels.high)];
    const y = (value) => box.bottom - ((Math.log(value) - low) / (high - low)) * (box.bottom - box.top);
    this.drawLevels(levels, y, sheet);
    this.drawPlaces(sheet);
    pen.save();
    pen.beginPath();
    pen.rect(box.left, box.top - 4, box.right - box.left + 4, box.bottom - box.top + 5);
    pen.clip();
    // What is compared with stands behind.
    for (let run = this.series.length - 1; run >= 0; run -= 1) {
      if (this.picture.counts[run]) this.drawRun(run, y, sheet.colour(RUN_COLOURS[run]));
    }
    pen.restore();
    if (this.at !== null) this.drawPointed(sheet);
  }

  drawLevels({ ticks, text }, y, { colour }) {
    const { pen, box } = this;
    pen.lineWidth = 1;
    pen.strokeStyle = colour("grid");
    pen.fillStyle = colour("muted");
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    pen.beginPath();
    for (const tick of ticks) {
      const at = Math.round(y(tick)) + 0.5;
      pen.moveTo(box.left, at);
      pen.lineTo(box.right, at);
      pen.fillText(text(tick), box.left - 6, at);
    }
    pen.stroke();
    pen.textBaseline = "alphabetic";
  }

  // Lines and texts of the axis below: the text of a tick that would meet the one before is left out.
  drawPlaces({ width, colour }) {
    const { pen, box } = this;
    pen.textAlign = "center";
    let free = 0;
    for (const [part, text] of this.ticks(Math.max(Math.floor((box.right - box.left) / 58), 2))) {
      const at = box.left + part * (box.right - box.left);
      pen.fillStyle = colour("grid");
      pen.fillRect(Math.round(at), box.top, 1, box.bottom - box.top + 4);
      const half = pen.measureText(text).width / 2;
      const middle = Math.min(Math.max(at, half), width - half);
      if (middle - half < free) continue;
      free = middle + half + 6;
      pen.fillStyle = colour("muted");
      pen.fillText(text, middle, box.bottom + 15);
    }
  }

  drawPointed({ colour }) {
    const { pen, box } = this;
    const at = box.left + this.part(this.at) * (box.right - box.left);
    pen.fillStyle = colour("cursor");
    pen.globalAlpha = 0.5;
    pen.fillRect(Math.round(at), box.top, 1, box.bottom - box.top);
    pen.globalAlpha = 1;
    this.tag(this.told(this.at).join("\n"), at, box.top + 9, box, colour("text"), colour("back"));
  }

  // Whose figure it is: only where there are two.
  of(run, text) {
    return this.series.length > 1 ? `${this.picture.names[run]}: ${text}` : text;
  }
}

// How much of all latencies is as long as that.
class DistributionChart extends LatencyChart {
  get field() {
    return "percent";
  }

  get places() {
    return this.series[0]?.length ?? 0;
  }

  nearest(part) {
    return Math.floor(part * this.places);
  }

  part(at) {
    return (at + 0.5) / this.places;
  }

  levels(height) {
    const most = Math.max(...this.series.map((bars) => bars.reduce((a, b) => Math.max(a, b), 0)));
    // A third of one value: where a bucket is wider than a bar, its values are spread over several.
    const one = 100 / Math.max(...this.picture.counts);
    const low = Math.max(Math.min(one / 3, most / 12), most / 1e9);
    const ticks = logTicks(low, most * 1.4, Math.max(Math.floor(height / 26), 2));
    return { low, high: most * 1.4, ticks, text: (tick) => `${Number(tick.toPrecision(2))} %` };
  }

  ticks(most) {
    const { low, high } = this.picture;
    return logTicks(low, high, most).map((tick) => [Math.log(tick / low) / Math.log(high / low), durationText(tick)]);
  }

  edge(place) {
    const { low, high } = this.picture;
    return low * (high / low) ** (place / this.places);
  }

  told(at) {
    const parts = this.series.map((bars, run) => this.of(run, `${Number(bars[at].toPrecision(3))} %`));
    return [`${durationText(this.edge(at))} to ${durationText(this.edge(at + 1))}`, ...parts];
  }

  // A step line; a faint ground for the run that is looked at alone, so that two don't muddy each other.
  drawRun(run, y, colour) {
    const { pen, box, places } = this;
    const bars = this.series[run];
    const x = (place) => box.left + (place / places) * (box.right - box.left);
    const below = box.bottom + 8;
    pen.beginPath();
    pen.moveTo(box.left, below);
    for (let place = 0; place < places; place += 1) {
      const level = bars[place] > 0 ? Math.min(y(bars[place]), below) : below;
      pen.lineTo(x(place), level);
      pen.lineTo(x(place + 1), level);
    }
    pen.lineTo(box.right, below);
    pen.strokeStyle = colour;
    pen.lineWidth = 1.5;
    pen.setLineDash(DASHES[run]);
    pen.stroke();
    pen.setLineDash([]);
    if (run) return;
    pen.globalAlpha = 0.16;
    pen.fillStyle = colour;
    pen.fill();
    pen.globalAlpha = 1;
  }
}

// Which latency that part of all does not exceed.
class PercentileChart extends LatencyChart {
  get field() {
    return "values";
  }

  get places() {
    return this.series[0]?.length ?? 0;
  }

  nearest(part) {
    return Math.round(part * (this.places - 1));
  }

  part(at) {
    return at / (this.places - 1);
  }

  levels(height) {
    let [least, most] = [Infinity, Math.max(...this.picture.most)];
    for (const values of this.series) for (const value of values) if (value < least) least = value;
    [least, most] = [Math.max(least, 0.5) / 1.3, Math.max(most, 1) * 1.3];
    if (most < least * 10) [least, most] = [least / 2, most * 2];
    return { low: least, high: most, ticks: logTicks(least, most, Math.max(Math.floor(height / 26), 2)), text: (tick) => durationText(tick) };
  }

  ticks() {
    const { decades } = this.picture;
    return Array.from({ length: decades + 1 }, (_, i) => [i / decades, percentileText(i)]);
  }

  told(at) {
    const { decades, counts } = this.picture;
    const value = (run) => (Number.isNaN(this.series[run][at]) ? `unknown, of ${counts[run].toLocaleString("en-US")}`
      : durationText(this.series[run][at]));
    return [percentileText((at / (this.places - 1)) * decades), ...this.series.map((_, run) => this.of(run, value(run)))];
  }

  drawRun(run, y, colour) {
    const { pen, box } = this;
    const values = this.series[run];
    const x = (place) => box.left + this.part(place) * (box.right - box.left);
    pen.beginPath();
    let last = 0;
    for (let place = 0; place < values.length && !Number.isNaN(values[place]); place += 1) {
      pen.lineTo(x(place), y(Math.max(values[place], 0.5)));
      last = place;
    }
    const top = y(Math.max(this.picture.most[run], 0.5));
    pen.lineTo(x(last), top);
    pen.strokeStyle = colour;
    pen.lineWidth = 1.75;
    pen.lineJoin = "round";
    pen.setLineDash(DASHES[run]);
    pen.stroke();
    pen.setLineDash([]);
    // The greatest value ends the curve.
    pen.beginPath();
    pen.arc(x(last), top, 3, 0, 7);
    pen.fillStyle = colour;
    pen.fill();
  }
}
