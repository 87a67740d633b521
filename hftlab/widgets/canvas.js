// What the drawings of all widgets share: drawn when the browser is ready to draw, as sharp as the screen, in the theme's
// colours; an axis of times, and durations as text. Joined in front of the drawings.

const NICE = [1, 2, 5];
const DURATIONS = [[1e3, 1, "ns"], [1e6, 1e3, "µs"], [1e9, 1e6, "ms"], [Infinity, 1e9, "s"]];
const SECONDS = [1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5,
  1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

function niceStep(span, most) {
  const raw = span / Math.max(most, 1);
  const power = 10 ** Math.floor(Math.log10(raw));
  const factor = NICE.find((value) => value * power >= raw) ?? 10;
  return factor * power;
}

function secondStep(span, most) {
  return SECONDS.find((value) => value * most >= span) ?? 86400 * Math.ceil(span / most / 86400);
}

// Milliseconds since 1970 as a time of day in UTC, with as many decimals as steps of `step` seconds need.
function timeOfDay(ms, step = 0.001) {
  const digits = step >= 1 ? 0 : Math.min(Math.ceil(-Math.log10(step) - 1e-9), 6);
  const whole = Math.floor(ms / 1000 + 1e-7);
  const clock = new Date(whole * 1000).toISOString().slice(11, 19);
  return digits ? clock + (Math.max(ms / 1000 - whole, 0)).toFixed(digits).slice(1) : clock;
}

// Nanoseconds to `digits` digits: 850 ns, 12.5 µs, −3 ms.
function durationText(ns, digits = 3) {
  const [, divisor, unit] = DURATIONS.find(([most]) => Math.abs(ns) < most * (1 - 5 * 10 ** -(digits + 1)));
  const value = Math.abs(ns) / divisor;
  const text = value >= 1000 ? value.toLocaleString("en-US", { maximumFractionDigits: 0 }) : String(Number(value.toPrecision(digits)));
  return `${ns < 0 && Number(text) !== 0 ? "−" : ""}${text} ${unit}`;
}

function priceText(value, step) {
  const digits = Math.min(Math.max(Math.ceil(-Math.log10(step) - 1e-9), 0), 8);
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

class Drawing {
  constructor(canvas) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
    this.frame = 0;
    this.aborter = new AbortController();
    this.resizes = new ResizeObserver(() => this.redraw());
    this.resizes.observe(canvas);
    // JupyterLab writes the theme's name on the body.
    this.themes = new MutationObserver(() => this.redraw());
    this.themes.observe(document.body, { attributes: true });
  }

  on(name, action) {
    this.canvas.addEventListener(name, action, { signal: this.aborter.signal });
  }

  close() {
    this.aborter.abort();
    this.resizes.disconnect();
    this.themes.disconnect();
    cancelAnimationFrame(this.frame);
  }

  redraw() {
    if (!this.frame) {
      this.frame = requestAnimationFrame(() => {
        this.frame = 0;
        this.step();
      });
    }
  }

  step() {
    this.draw();
  }

  // An empty canvas of the right size: its width, height and colours; null where it has no room.
  clear() {
    const { canvas, pen } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return null;
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const style = getComputedStyle(canvas);
    pen.font = `11px ${style.fontFamily}`;
    return { width, height, colour: (name) => style.getPropertyValue(`--hl-${name}`).trim() };
  }

  say(text, { width, height, colour }) {
    const { pen } = this;
    pen.fillStyle = colour("muted");
    pen.textAlign = "center";
    pen.fillText(text, width / 2, height / 2);
  }

  // Ticks and times of day below a box, for seconds s0 … s1 after `base` (seconds since 1970); calls `each` with every x.
  drawTimes(box, x, base, s0, s1, colour, each = () => {}) {
    const { pen } = this;
    pen.fillStyle = colour("muted");
    pen.textAlign = "center";
    pen.textBaseline = "alphabetic";
    const apart = secondStep(s1 - s0, Math.max(Math.floor((box.right - box.left) / 96), 1));
    for (let tick = Math.ceil((base + s0) / apart); tick * apart <= base + s1; tick += 1) {
      const at = x(tick * apart - base);
      const text = timeOfDay(tick * apart * 1000, apart);
      const half = pen.measureText(text).width / 2;
      each(at);
      pen.fillRect(Math.round(at), box.bottom, 1, 3);
      if (at - half > 0 && at + half < this.canvas.clientWidth) pen.fillText(text, at, box.bottom + 15);
    }
  }

  // Text of one or more lines beside a point, on the side where there is room.
  tag(text, at, level, box, fill, ink) {
    const { pen, canvas } = this;
    const lines = text.split("\n");
    const wide = Math.max(...lines.map((line) => pen.measureText(line).width)) + 10;
    const high = 15 * lines.length + 3;
    const left = at + 8 + wide < canvas.clientWidth ? at + 8 : Math.max(at - 8 - wide, 0);
    const top = Math.min(Math.max(level - 9, 0), Math.max(box.bottom - high, 0));
    pen.fillStyle = fill;
    pen.beginPath();
    pen.roundRect(left, top, wide, high, 3);
    pen.fill();
    pen.fillStyle = ink;
    pen.textAlign = "left";
    pen.textBaseline = "middle";
    lines.forEach((line, i) => pen.fillText(line, left + 5, top + 9.5 + 15 * i));
    pen.textBaseline = "alphabetic";
  }
}
