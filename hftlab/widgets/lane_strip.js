// The last minute of one lane: rows waiting upwards, what gave way a second downwards, each to a scale of its own (a lane of
// three orders and one of ten thousand quotes are both to be seen). Joined behind canvas.js, in front of monitor.js.

const UPPER = 0.64; // the part of the height that is above the base line

function shortCount(value) {
  for (const [limit, divisor, unit] of [[1e4, 1, ""], [1e6, 1e3, " k"], [Infinity, 1e6, " M"]]) {
    if (Math.round(value) < limit) {
      const scaled = value / divisor;
      return scaled.toLocaleString("en-US", { maximumFractionDigits: unit && scaled < 100 ? 1 : 0 }) + unit;
    }
  }
  return "";
}

class LaneStrip extends Drawing {
  constructor(canvas, lane, onPoint) {
    super(canvas);
    Object.assign(this, { lane, onPoint, waiting: [], gave: [], bucket: 1, at: null, spoken: false });
    this.on("pointermove", (event) => onPoint(this.bucketAt(event.offsetX), this));
    this.on("pointerleave", () => onPoint(null, this));
  }

  setSeries(waiting, gave, bucket) {
    Object.assign(this, { waiting, gave, bucket });
    this.redraw();
  }

  // `spoken`: this strip is the one that is pointed at.
  setPointed(at, spoken) {
    if (at === this.at && spoken === this.spoken) return;
    Object.assign(this, { at, spoken });
    this.redraw();
  }

  bucketAt(x) {
    const count = this.waiting.length;
    return count ? Math.min(Math.max(Math.floor((x / this.canvas.clientWidth) * count), 0), count - 1) : null;
  }

  draw() {
    const sheet = this.clear();
    if (!sheet) return;
    const { pen, waiting, gave } = this;
    const count = waiting.length;
    const { width, height, colour } = sheet;
    const base = Math.round(height * UPPER);
    const x = (bucket) => Math.round((bucket / count) * width); // whole pixels: no seams between neighbours
    this.drawGround(sheet, base, x);
    const [most, worst] = [waiting, gave].map((values) => values.reduce((a, b) => (b > a ? b : a), 0));
    // A single waiting row is no peak.
    const up = (value) => base - (value / Math.max(most, 10)) * (base - 12);
    const down = (value) => base + (value / worst) * (height - base - 2);
    this.drawWaiting(count, x, up, base, colour("lane"));
    pen.fillStyle = colour("gave");
    for (let i = 0; i < count; i += 1) {
      if (gave[i] > 0) pen.fillRect(x(i), base + 1, Math.max(x(i + 1) - x(i), 1), Math.max(down(gave[i]) - base, 1.5));
    }
    pen.fillStyle = colour("edge");
    pen.fillRect(0, base, width, 1);
    if (most) this.label(shortCount(most), 3, 9, sheet);
    if (worst) this.label(`−${shortCount(worst)}/s`, 3, height - 4, sheet);
    if (this.at !== null && this.at < count) this.drawPointed(sheet, x);
  }

  // Quarters of the minute, and where nobody took samples.
  drawGround({ height, colour }, base, x) {
    const { pen, waiting } = this;
    pen.fillStyle = colour("raised");
    pen.globalAlpha = 0.55;
    for (let i = 0; i < waiting.length; i += 1) {
      if (Number.isNaN(waiting[i])) pen.fillRect(x(i), 0, x(i + 1) - x(i), height);
    }
    pen.globalAlpha = 1;
    pen.fillStyle = colour("grid");
    for (let quarter = 1; quarter < 4; quarter += 1) pen.fillRect(Math.round(x((waiting.length * quarter) / 4)), 0, 1, height);
  }

  drawWaiting(count, x, up, base, colour) {
    const { pen, waiting } = this;
    pen.lineWidth = 1.5;
    pen.strokeStyle = colour;
    pen.fillStyle = colour;
    for (let i = 0; i < count; i += 1) {
      if (!(waiting[i] >= 0)) continue;
      const begin = i;
      while (i + 1 < count && waiting[i + 1] >= 0) i += 1;
      pen.beginPath();
      for (let at = begin; at <= i; at += 1) {
        pen.lineTo(x(at), up(waiting[at]));
        pen.lineTo(x(at + 1), up(waiting[at]));
      }
      pen.stroke();
      pen.lineTo(x(i + 1), base);
      pen.lineTo(x(begin), base);
      pen.globalAlpha = 0.22;
      pen.fill();
      pen.globalAlpha = 1;
    }
  }

  label(text, x, y, { colour }) {
    const { pen } = this;
    pen.textAlign = "left";
    pen.textBaseline = "alphabetic";
    pen.lineWidth = 3;
    pen.lineJoin = "round";
    pen.strokeStyle = colour("back");
    pen.strokeText(text, x, y);
    pen.fillStyle = colour("muted");
    pen.fillText(text, x, y);
  }

  // What the pointed strip says in words, the others say in figures: they are read together.
  drawPointed({ width, height, colour }, x) {
    const { pen, waiting, gave, at } = this;
    const middle = (x(at) + x(at + 1)) / 2;
    pen.fillStyle = colour("cursor");
    pen.globalAlpha = 0.5;
    pen.fillRect(Math.round(middle), 0, 1, height);
    pen.globalAlpha = 1;
    const known = waiting[at] >= 0;
    const count = waiting[at].toLocaleString("en-US");
    const lost = gave[at] > 0 ? `${shortCount(gave[at])}/s` : "";
    const told = known ? `${count} waiting${lost && `, ${lost} gave way`}` : "not sampled";
    const text = `${((waiting.length - at) * this.bucket).toFixed(1)} s ago: ${told}`;
    this.canvas.setAttribute("aria-valuetext", text);
    const brief = known ? `${count}${lost && `, −${lost}`}` : "–";
    this.tag(this.spoken ? text : brief, Math.min(middle, width), 9, { bottom: height }, colour("text"), colour("back"));
  }
}
