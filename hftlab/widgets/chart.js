// The price chart: float32 points from the kernel. Between two updates (ten a second) the axes and the cursor glide, so
// that the picture moves at the screen's own rate. Joined behind canvas.js, in front of player.js.

const GLIDE_MS = 110;

class PriceChart extends Drawing {
  constructor(canvas, onSeek) {
    super(canvas);
    this.onSeek = onSeek;
    this.window = "run";
    this.path = { times: [], prices: [], baseMs: 0, basePrice: 0, last: "" };
    this.place = { now: 0, start: 0, end: 0 };
    this.shown = null; // the extents on the screen, and those that they glide from and to
    this.from = null;
    this.target = null;
    this.since = 0;
    this.hover = null;
    this.still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.on("pointermove", (event) => this.point(event));
    this.on("pointerleave", () => { this.hover = null; this.redraw(); });
    this.on("click", (event) => this.click(event));
  }

  setPath(path) {
    const view = path.points;
    const bytes = view ? view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength) : new ArrayBuffer(0);
    const points = new Float32Array(bytes);
    const count = points.length / 2;
    this.path = {
      times: points.subarray(0, count),
      prices: points.subarray(count),
      baseMs: path.base_ms,
      basePrice: path.base_price,
      last: path.last,
    };
    this.aim();
  }

  setPlace(now, start, end) {
    this.place = { now, start, end };
    this.aim();
  }

  setWindow(window) {
    this.window = window;
    this.aim();
  }

  // Where the axes should be: x in seconds after the path's base, y in prices above it.
  extents() {
    const { times, prices, baseMs } = this.path;
    if (!times.length) return null;
    const seconds = (ms) => (ms - baseMs) / 1000;
    const last = times[times.length - 1];
    const now = Math.max(this.place.now ? seconds(this.place.now) : last, last);
    let [x0, x1] = [times[0], now];
    if (this.window === "range" && this.place.end > this.place.start) {
      [x0, x1] = [seconds(this.place.start), Math.max(seconds(this.place.end), now)];
    } else if (this.window !== "run") {
      x0 = now - Number(this.window);
    }
    if (!(x1 > x0)) [x0, x1] = [x1 - 1e-3, x1 + 1e-3];
    let [y0, y1] = [Infinity, -Infinity];
    for (let i = 0; i < times.length; i += 1) {
      // The step that reaches into the window begins before it.
      if (times[i] > x1 || (i + 1 < times.length && times[i + 1] < x0)) continue;
      y0 = Math.min(y0, prices[i]);
      y1 = Math.max(y1, prices[i]);
    }
    if (!(y1 >= y0)) [y0, y1] = [prices[prices.length - 1], prices[prices.length - 1]];
    const room = (y1 - y0) * 0.12 || Math.max(Math.abs(this.path.basePrice) * 1e-5, 1e-6);
    return { x0, x1, y0: y0 - room, y1: y1 + room, now };
  }

  aim() {
    const target = this.extents();
    const jump = !target || !this.shown || this.still || this.origin !== this.path.baseMs
      || target.now < this.shown.now || this.aimed !== this.window;
    this.origin = this.path.baseMs;
    this.aimed = this.window;
    this.from = jump ? target : this.shown;
    this.target = target;
    this.since = performance.now();
    this.redraw();
  }

  step() {
    const done = Math.min((performance.now() - this.since) / GLIDE_MS, 1);
    if (this.target) {
      this.shown = {};
      for (const key of Object.keys(this.target)) {
        this.shown[key] = this.from[key] + (this.target[key] - this.from[key]) * done;
      }
    } else {
      this.shown = null;
    }
    this.draw();
    if (done < 1 && this.from !== this.target) this.redraw();
  }

  draw() {
    const { pen } = this;
    const sheet = this.clear();
    if (!sheet) return;
    const { width, height, colour } = sheet;
    if (!this.shown) {
      this.say("nothing with a price has been delivered yet", sheet);
      this.box = null;
      return;
    }
    const { x0, x1, y0, y1 } = this.shown;
    const step = niceStep(y1 - y0, Math.max(Math.floor((height - 26) / 32), 2));
    const widest = Math.max(...[y0, y1].map((y) => pen.measureText(priceText(this.path.basePrice + y, step)).width));
    // The latest price stands to the right of the cursor, also when that is at the end.
    const box = { left: Math.ceil(widest) + 12, right: width - Math.ceil(widest) - 26, top: 8, bottom: height - 20 };
    const x = (seconds) => box.left + ((seconds - x0) / (x1 - x0)) * (box.right - box.left);
    const y = (price) => box.bottom - ((price - y0) / (y1 - y0)) * (box.bottom - box.top);
    this.box = box;
    this.drawGrid(box, x, y, step, colour);
    this.drawPath(box, x, y, colour);
    this.drawCursor(box, x, y, step, colour);
    if (this.hover) this.drawHover(box, x, y, step, colour);
  }

  drawGrid(box, x, y, step, colour) {
    const { pen, path } = this;
    const { x0, x1, y0, y1 } = this.shown;
    pen.lineWidth = 1;
    pen.strokeStyle = colour("grid");
    pen.fillStyle = colour("muted");
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    pen.beginPath();
    for (let tick = Math.ceil((path.basePrice + y0) / step); tick * step <= path.basePrice + y1; tick += 1) {
      const at = Math.round(y(tick * step - path.basePrice)) + 0.5;
      pen.moveTo(box.left, at);
      pen.lineTo(box.right, at);
      pen.fillText(priceText(tick * step, step), box.left - 6, at);
    }
    pen.stroke();
    this.drawTimes(box, x, path.baseMs / 1000, x0, x1, colour);
  }

  drawPath(box, x, y, colour) {
    const { pen, path } = this;
    const { x0, now } = this.shown;
    const { times, prices } = path;
    pen.save();
    pen.beginPath();
    pen.rect(box.left, 0, box.right - box.left, box.bottom);
    pen.clip();
    // A price holds until the next one: steps, not slopes.
    pen.beginPath();
    let begun = false;
    let edge = box.left;
    this.reached = 0;
    for (let i = 0; i < times.length; i += 1) {
      if (i + 1 < times.length && times[i + 1] < x0) continue;
      if (times[i] > now) break;
      const [px, py] = [x(times[i]), y(prices[i])];
      if (begun) {
        pen.lineTo(px, this.level);
        pen.lineTo(px, py);
      } else {
        edge = Math.max(px, box.left);
        pen.moveTo(px, py);
        begun = true;
      }
      this.level = py;
      this.reached = i;
    }
    if (begun) {
      pen.lineTo(x(now), this.level);
      pen.strokeStyle = colour("line");
      pen.lineWidth = 1.5;
      pen.lineJoin = "round";
      pen.stroke();
      pen.lineTo(x(now), box.bottom);
      pen.lineTo(edge, box.bottom);
      pen.closePath();
      pen.globalAlpha = 0.08;
      pen.fillStyle = colour("line");
      pen.fill();
    }
    pen.restore();
  }

  drawCursor(box, x, y, step, colour) {
    const { pen, path } = this;
    const at = x(this.shown.now);
    pen.strokeStyle = colour("cursor");
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(at, box.top);
    pen.lineTo(at, box.bottom);
    pen.stroke();
    // While it glides, the line ends before the latest point.
    const ends = this.reached === path.prices.length - 1;
    const price = path.prices[this.reached];
    pen.fillStyle = colour("line");
    pen.beginPath();
    pen.arc(at, y(price), 3.5, 0, 7);
    pen.fill();
    const text = ends ? path.last : priceText(path.basePrice + price, this.finer(step));
    this.tag(text, at, y(price), box, colour("line"), colour("back"));
  }

  drawHover(box, x, y, step, colour) {
    const { pen, path } = this;
    const { x0, x1 } = this.shown;
    const seconds = x0 + ((this.hover - box.left) / (box.right - box.left)) * (x1 - x0);
    pen.strokeStyle = colour("muted");
    pen.setLineDash([3, 3]);
    pen.beginPath();
    pen.moveTo(this.hover, box.top);
    pen.lineTo(this.hover, box.bottom);
    pen.stroke();
    pen.setLineDash([]);
    let text = timeOfDay(path.baseMs + seconds * 1000, Math.min((x1 - x0) / 1000, 0.001));
    let found = -1;
    for (let i = 0; i < path.times.length && path.times[i] <= seconds; i += 1) found = i;
    if (found >= 0 && seconds <= this.shown.now) {
      text += `  ${priceText(path.basePrice + path.prices[found], this.finer(step))}`;
      pen.fillStyle = colour("line");
      pen.beginPath();
      pen.arc(this.hover, y(path.prices[found]), 3, 0, 7);
      pen.fill();
    }
    this.tag(text, this.hover, box.top + 9, box, colour("text"), colour("back"));
  }

  // A price needs one digit more than the steps of its axis.
  finer(step) {
    return Math.max(Math.min(step / 10, 0.1), 1e-8);
  }

  point(event) {
    const at = event.offsetX;
    this.hover = this.box && at >= this.box.left && at <= this.box.right ? at : null;
    this.redraw();
  }

  click(event) {
    const { box, place, path } = this;
    if (!box || event.offsetX < box.left || !(place.end > place.start)) return;
    const { x0, x1 } = this.shown;
    const ms = path.baseMs + 1000 * (x0 + ((event.offsetX - box.left) / (box.right - box.left)) * (x1 - x0));
    this.onSeek(Math.min(Math.max((ms - place.start) / (place.end - place.start), 0), 1));
  }
}
