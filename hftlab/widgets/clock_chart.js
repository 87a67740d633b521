// A clock over time: what is missing to UTC with its bound as a band, the state as a strip, drift and slew below. Joined behind
// canvas.js, in front of clock_panel.js.

const CLOCK_STATES = ["UNSYNCED", "HOLDOVER", "SYNCED"]; // by the kernel's codes
const CLOCK_SERIES = 6; // seconds, offset, bound, drift, slew, state
const STRIP_PX = 9;

function signedText(value, digits = 3) {
  const text = String(Number(Math.abs(value).toPrecision(digits)));
  return `${value < 0 && Number(text) ? "−" : "+"}${text}`;
}

class ClockChart extends Drawing {
  constructor(canvas) {
    super(canvas);
    Object.assign(this, { chart: null, series: null, at: null, box: null });
    this.on("pointermove", (event) => this.setPointed(this.placeAt(event.offsetX)));
    this.on("pointerleave", () => this.setPointed(null));
    this.on("blur", () => this.setPointed(null));
  }

  setChart(chart) {
    const view = chart.points;
    const all = new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
    const count = all.length / CLOCK_SERIES;
    const [seconds, offset, bound, drift, slew, state] = Array.from({ length: CLOCK_SERIES },
      (_, row) => all.subarray(row * count, (row + 1) * count));
    this.chart = chart;
    this.series = { count, seconds, offset, bound, drift, slew, state };
    if (this.at !== null && this.at >= count) this.at = null;
    this.redraw();
  }

  setPointed(at) {
    if (at === this.at) return;
    this.at = at;
    this.canvas.setAttribute("aria-valuetext", at === null || !this.series?.count ? "now" : this.told(at).join(", "));
    this.redraw();
  }

  move(key, shift) {
    const { count } = this.series ?? { count: 0 };
    const by = shift ? 10 : 1;
    const at = this.at ?? count;
    const to = { ArrowLeft: at - by, ArrowRight: at + by, Home: 0, End: count - 1, Escape: null }[key];
    if (to === undefined || !count) return false;
    this.setPointed(to === null ? null : Math.min(Math.max(to, 0), count - 1));
    return true;
  }

  placeAt(x) {
    const { box, series } = this;
    if (!box || !series.count || x < box.left - 4 || x > box.right + 4) return null;
    const seconds = this.from + ((x - box.left) / (box.right - box.left)) * (this.to - this.from);
    let nearest = 0;
    for (let i = 1; i < series.count; i += 1) {
      if (Math.abs(series.seconds[i] - seconds) < Math.abs(series.seconds[nearest] - seconds)) nearest = i;
    }
    return nearest;
  }

  // How high the band's axis reaches: a start with a bound of a second must not flatten the hour after it.
  reach() {
    const { count, offset, bound } = this.series;
    const whole = Array.from({ length: count }, (_, i) => Math.abs(offset[i]) + (bound[i] || 0));
    const sorted = [...whole].sort((a, b) => a - b);
    return Math.max(sorted[Math.floor(0.75 * (count - 1))] * 1.6, whole[count - 1] * 1.25, 100);
  }

  draw() {
    const sheet = this.clear();
    if (!sheet) return;
    this.box = null;
    const { series, chart, pen } = this;
    if (!series || !series.count) {
      return;
    }
    const { width, height, colour } = sheet;
    this.from = series.seconds[0];
    this.to = Math.max(series.seconds[series.count - 1], this.from + 1);
    const reach = this.reach();
    const most = Math.max(...["drift", "slew"].map((name) => series[name].reduce((a, b) => Math.max(a, Math.abs(b)), 0))) / 1e3;
    const rates = Math.max(most * 1.15, 0.1); // ppm
    const widest = Math.max(...[-reach, reach].map((ns) => pen.measureText(durationText(ns, 2)).width), pen.measureText("−000 ppm").width);
    const [left, right] = [Math.ceil(widest) + 10, width - 10];
    const split = Math.round(10 + (height - 62) * 0.6);
    this.box = { left, right, top: 10, bottom: split };
    const strip = { left, right, top: split + 4, bottom: split + 4 + STRIP_PX };
    const lower = { left, right, top: strip.bottom + 18, bottom: height - 20 };
    const x = (seconds) => left + ((seconds - this.from) / (this.to - this.from)) * (right - left);
    const upper = (ns) => (this.box.top + this.box.bottom) / 2 - (ns / reach) * ((this.box.bottom - this.box.top) / 2);
    const rate = (ppb) => (lower.top + lower.bottom) / 2 - (ppb / 1e3 / rates) * ((lower.bottom - lower.top) / 2);
    this.drawLevels(this.box, upper, reach, (ns) => durationText(ns, 3), colour);
    this.drawLevels(lower, (ppm) => rate(ppm * 1e3), rates, (ppm) => `${signedText(ppm).replace(/^\+0$/, "0")} ppm`, colour);
    pen.strokeStyle = colour("grid");
    this.drawTimes(lower, x, chart.base_ms / 1e3, this.from, this.to, colour, (at) => {
      pen.fillStyle = colour("grid");
      pen.fillRect(Math.round(at), this.box.top, 1, lower.bottom - this.box.top);
      pen.fillStyle = colour("muted");
    });
    this.drawBand(x, upper, colour);
    this.drawStates(strip, x, colour);
    this.drawLine(lower, "slew", x, rate, colour("slew"), [4, 3]);
    this.drawLine(lower, "drift", x, rate, colour("drift"), []);
    if (this.at !== null) this.drawPointed(x, upper, lower, colour);
  }

  drawLevels(box, y, reach, text, colour) {
    const { pen } = this;
    const step = niceStep(2 * reach, Math.max(Math.floor((box.bottom - box.top) / 20), 2));
    pen.lineWidth = 1;
    pen.strokeStyle = colour("grid");
    pen.fillStyle = colour("muted");
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    pen.beginPath();
    for (let tick = Math.ceil(-reach / step); tick * step <= reach; tick += 1) {
      const at = Math.round(y(tick * step)) + 0.5;
      pen.moveTo(box.left, at);
      pen.lineTo(box.right, at);
      pen.fillText(text(tick * step), box.left - 6, at);
    }
    pen.stroke();
    pen.textBaseline = "alphabetic";
  }

  drawBand(x, y, colour) {
    const { pen, box, series } = this;
    const { count, seconds, offset, bound, state } = series;
    pen.save();
    pen.beginPath();
    pen.rect(box.left, box.top, box.right - box.left, box.bottom - box.top);
    pen.clip();
    for (let i = 0; i + 1 < count; i += 1) {
      if (!(bound[i] >= 0) || !(bound[i + 1] >= 0)) continue;
      const from = i;
      while (i + 1 < count && bound[i + 1] >= 0 && state[i + 1] === state[from]) i += 1;
      const to = Math.min(i + 1, count - 1);
      const last = bound[to] >= 0 ? to : i;
      pen.beginPath();
      for (let at = from; at <= last; at += 1) pen.lineTo(x(seconds[at]), y(offset[at] + bound[at]));
      for (let at = last; at >= from; at -= 1) pen.lineTo(x(seconds[at]), y(offset[at] - bound[at]));
      pen.closePath();
      pen.globalAlpha = 0.22;
      pen.fillStyle = colour(CLOCK_STATES[state[from]]);
      pen.fill();
      pen.globalAlpha = 1;
      if (last > i) i = last - 1;
    }
    pen.beginPath();
    for (let at = 0; at < count; at += 1) {
      if (!(bound[at] >= 0)) continue;
      if (at && bound[at - 1] >= 0) pen.lineTo(x(seconds[at]), y(offset[at]));
      else pen.moveTo(x(seconds[at]), y(offset[at]));
    }
    pen.strokeStyle = colour("line");
    pen.lineWidth = 1.5;
    pen.lineJoin = "round";
    pen.stroke();
    pen.restore();
    if (bound[count - 1] >= 0) {
      pen.beginPath();
      pen.arc(x(seconds[count - 1]), y(offset[count - 1]), 3, 0, 7);
      pen.fillStyle = colour("line");
      pen.fill();
    }
  }

  drawStates(strip, x, colour) {
    const { pen, series } = this;
    const { count, seconds, state } = series;
    for (let i = 0; i < count; i += 1) {
      const from = i;
      while (i + 1 < count && state[i + 1] === state[from]) i += 1;
      const end = i + 1 < count ? x(seconds[i + 1]) : strip.right;
      const name = CLOCK_STATES[state[from]];
      const left = Math.round(x(seconds[from]));
      const wide = Math.max(Math.round(end) - left, 2);
      pen.fillStyle = colour(name);
      // Not by colour alone: holdover is half as high, unsynced a line.
      const high = [2, Math.round(STRIP_PX / 2), STRIP_PX][state[from]];
      pen.fillRect(left, strip.bottom - high, wide, high);
    }
  }

  drawLine(box, name, x, y, colour, dash) {
    const { pen, series } = this;
    pen.beginPath();
    let begun = false;
    for (let i = 0; i < series.count; i += 1) {
      const known = series.bound[i] >= 0;
      // A slew holds until the next one: steps, not slopes.
      if (known && begun && name === "slew") pen.lineTo(x(series.seconds[i]), y(series[name][i - 1]));
      if (known && begun) pen.lineTo(x(series.seconds[i]), y(series[name][i]));
      else if (known) pen.moveTo(x(series.seconds[i]), y(series[name][i]));
      begun = known;
    }
    pen.strokeStyle = colour;
    pen.lineWidth = 1.5;
    pen.setLineDash(dash);
    pen.stroke();
    pen.setLineDash([]);
  }

  told(at) {
    const { seconds, offset, bound, drift, slew, state } = this.series;
    const time = timeOfDay(this.chart.base_ms + 1e3 * seconds[at], 1);
    const known = bound[at] >= 0;
    return [
      `${time} UTC  ${CLOCK_STATES[state[at]]}`,
      known ? `${durationText(offset[at])} ± ${durationText(bound[at])}` : "not compared with UTC",
      `drift ${signedText(drift[at] / 1e3)} ppm, slew ${signedText(slew[at] / 1e3)} ppm`,
    ];
  }

  drawPointed(x, y, lower, colour) {
    const { pen, box, at, series } = this;
    const middle = x(series.seconds[at]);
    pen.fillStyle = colour("cursor");
    pen.globalAlpha = 0.5;
    pen.fillRect(Math.round(middle), box.top, 1, lower.bottom - box.top);
    pen.globalAlpha = 1;
    this.tag(this.told(at).join("\n"), middle, box.top + 9, box, colour("text"), colour("back"));
  }
}
