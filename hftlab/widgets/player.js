// The player's view: builds the page's elements once, fills them from the model's state, and sends what is pressed.
// Joined behind page.js, canvas.js and chart.js, whose names it uses.

const KEYS = [
  ["Space", "play or pause"],
  ["→", "one event"],
  ["Shift →", "as many events as beside Step"],
  ["←", "back 1% of the range"],
  ["Page Up, Page Down", "back, forwards 10%"],
  ["Home", "to the start"],
  ["+ −", "faster, slower"],
];
const WINDOWS = [["run", "this run"], ["range", "whole range"], ["1", "last second"], ["10", "last 10 s"],
  ["60", "last minute"], ["600", "last 10 min"], ["3600", "last hour"]];

function build() {
  const parts = {
    ...headParts(),
    ...faultParts(),
    restart: button("restart", "Restart", "Back to the start (Home)"),
    play: button("play", "Play", "Play or pause (Space)"),
    step: button("step", "Step", "Deliver the next events (→ for one)"),
    count: make("input", { type: "number", class: "hl-count", min: 1, max: 100000, value: 1,
      "aria-label": "Events a step", title: "Events a step" }),
    speed: make("select", { class: "hl-speed" }),
    to: make("input", { type: "text", class: "hl-to", placeholder: "23:54:30 or an event id", spellcheck: false,
      "aria-label": "Seek to a time or an event id", title: "A time of day (UTC), a full time with its zone, or an event id" }),
    go: make("button", { type: "submit", class: "hl-go" }, "Go"),
    slider: make("input", { type: "range", class: "hl-slider", min: 0, max: 1000, step: 1, value: 0,
      "aria-label": "Place in the range" }),
    elapsed: make("span", { class: "hl-elapsed" }),
    total: make("span", { class: "hl-total" }),
    symbol: make("select", { class: "hl-symbol" }),
    window: make("select", { class: "hl-window" }),
    canvas: make("canvas", { class: "hl-canvas", tabIndex: 0, role: "application", "aria-roledescription": "price chart",
      "aria-label": "Price over time. Space plays or pauses, arrow right steps." }),
    rows: make("tbody"),
    counts: make("div", { class: "hl-counts" }),
  };
  parts.form = make("form", { class: "hl-group" }, labelled("Go to", parts.to), parts.go);
  fillSelect(parts.window, WINDOWS, "run");
  parts.table = eventTable("Latest events, newest first", parts.rows);
  parts.root = make("section", { class: "hl-widget hl-player", "aria-label": "Replay player" },
    make("header", { class: "hl-head" }, parts.title, parts.state, parts.time),
    make("div", { class: "hl-bar" },
      make("div", { class: "hl-group" }, parts.restart, parts.play),
      make("div", { class: "hl-group" }, parts.step, parts.count),
      labelled("Speed", parts.speed), parts.form, keysHelp(KEYS)),
    make("div", { class: "hl-seek" }, parts.elapsed, parts.slider, parts.total),
    parts.error,
    make("div", { class: "hl-body" },
      make("div", { class: "hl-chart" }, make("div", { class: "hl-tools" }, labelled("Price of", parts.symbol),
        labelled("Shown", parts.window)), parts.canvas),
      make("div", { class: "hl-table" }, parts.table)),
    parts.counts);
  return parts;
}

function showStatus(parts, chart, status, dragging) {
  showHead(parts, status.session, status);
  put(parts.elapsed, status.elapsed);
  put(parts.total, status.total);
  const playing = status.state === "running";
  if (parts.play.dataset.shown !== String(playing)) {
    parts.play.dataset.shown = String(playing);
    parts.play.replaceChildren(icon(playing ? "pause" : "play"), make("span", { class: "hl-label" }, playing ? "Pause" : "Play"));
    parts.play.setAttribute("aria-label", playing ? "Pause" : "Play");
  }
  fillSelect(parts.speed, status.speeds, status.speed);
  if (!dragging) parts.slider.value = Math.round(status.place * 1000);
  parts.slider.style.setProperty("--hl-fill", `${Number(parts.slider.value) / 10}%`);
  parts.slider.setAttribute("aria-valuetext", status.clock);
  if (status.start_ms) parts.to.placeholder = `${timeOfDay(status.start_ms, 1)} or an event id`;
  chart.setPlace(status.position_ms, status.start_ms, status.end_ms);
  showCounts(parts.counts, status.counts);
}

// Rows are reused, so that ten updates a second make no garbage and keep a selection.
function showEvents(parts, rows) {
  const body = parts.rows;
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((row, index) => fillEvent(body.rows[index] ?? body.insertRow(), row));
}

function showPath(parts, chart, path) {
  const symbols = path.symbols ?? [];
  fillSelect(parts.symbol, symbols.length ? symbols.map((name) => [name, name]) : [["", "–"]], path.symbol ?? "");
  parts.symbol.disabled = symbols.length < 2;
  chart.setPath(path);
}

function onKey(event, parts, ask) {
  const into = event.target;
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  // Keys pressed in here are meant for here: the notebook would take `d d` for deleting the cell.
  event.stopPropagation();
  const typing = into.matches("input:not([type=range]), select, textarea");
  const pressing = into.matches("button, summary, input[type=range]");
  if (typing) return;
  const slide = into.matches("input[type=range]"); // has arrows, pages and Home of its own
  const speeds = [...parts.speed.options].map((option) => option.value);
  const faster = (by) => {
    const next = speeds[speeds.indexOf(parts.speed.value) + by];
    if (next !== undefined) ask("speed", next);
  };
  const does = {
    " ": pressing && !slide ? null : () => ask(parts.root.dataset.state === "running" ? "pause" : "play"),
    ArrowRight: slide ? null : () => ask("step", event.shiftKey ? stepCount(parts) : 1),
    ArrowLeft: slide ? null : () => ask("seek-by", -0.01),
    PageUp: slide ? null : () => ask("seek-by", -0.1),
    PageDown: slide ? null : () => ask("seek-by", 0.1),
    Home: slide ? null : () => ask("restart"),
    "+": () => faster(1),
    "=": () => faster(1),
    "-": () => faster(-1),
  }[event.key];
  if (!does) return;
  event.preventDefault();
  does();
}

function stepCount(parts) {
  return Math.min(Math.max(Math.round(Number(parts.count.value)) || 1, 1), 100000);
}

function listen(parts, chart, ask, signal) {
  const on = (element, name, action) => element.addEventListener(name, action, { signal });
  let dragging = false;
  on(parts.play, "click", () => ask(parts.root.dataset.state === "running" ? "pause" : "play"));
  on(parts.restart, "click", () => ask("restart"));
  on(parts.step, "click", () => ask("step", stepCount(parts)));
  on(parts.speed, "change", () => ask("speed", parts.speed.value));
  on(parts.symbol, "change", () => ask("symbol", parts.symbol.value));
  on(parts.window, "change", () => chart.setWindow(parts.window.value));
  on(parts.dismiss, "click", () => ask("dismiss"));
  on(parts.form, "submit", (event) => {
    event.preventDefault();
    if (parts.to.value.trim()) ask("seek", parts.to.value.trim());
  });
  on(parts.slider, "input", () => {
    dragging = true;
    parts.slider.style.setProperty("--hl-fill", `${Number(parts.slider.value) / 10}%`);
  });
  on(parts.slider, "change", () => {
    dragging = false;
    ask("seek", Number(parts.slider.value) / 1000);
  });
  on(parts.root, "keydown", (event) => onKey(event, parts, ask));
  return () => dragging;
}

function start(parts, ask, signal) {
  const chart = new PriceChart(parts.canvas, (fraction) => ask("seek", fraction));
  const isDragging = listen(parts, chart, ask, signal);
  const shows = {
    status: (status) => showStatus(parts, chart, status, isDragging()),
    events: (rows) => showEvents(parts, rows),
    fault: (fault) => {
      showFault(parts, fault);
      parts.to.setAttribute("aria-invalid", String(Boolean(fault && fault.name && fault.about === "seek")));
    },
    path: (path) => showPath(parts, chart, path),
  };
  return { shows, close: () => chart.close() };
}

export default { render: (context) => mount(context, build, start) };
