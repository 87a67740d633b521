// The player's view: builds the page's elements once, fills them from the model's state, and sends what is pressed.
// Text is always put in as text. The kernel decides everything; the view knows no more than it was told. Joined behind
// chart.js, whose names it uses.

const RENEW_MS = 2000;
const ICONS = {
  restart: "M3 3h2v10H3z M13 3v10L6 8z",
  play: "M4 2.5v11l9-5.5z",
  pause: "M4 3h3v10H4z M9 3h3v10H9z",
  step: "M3 3v10l7-5z M11 3h2v10h-2z",
};
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

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") element.className = value;
    else if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const path = document.createElementNS(space, "path");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

function button(name, text, title) {
  const label = make("span", { class: "hl-label" }, text);
  return make("button", { type: "button", class: `hl-${name}`, title, "aria-label": text }, icon(name), label);
}

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function fillSelect(select, choices, value) {
  const key = JSON.stringify(choices);
  if (select.dataset.choices !== key) {
    select.dataset.choices = key;
    select.replaceChildren(...choices.map(([choice, label]) => make("option", { value: choice }, label)));
  }
  if (select.value !== value) select.value = value;
}

function labelled(text, control) {
  return make("label", { class: "hl-field" }, make("span", { class: "hl-label" }, text), control);
}

function build() {
  const parts = {
    session: make("span", { class: "hl-session" }),
    state: make("span", { class: "hl-state", role: "status" }),
    date: make("span", { class: "hl-date" }),
    clock: make("span", { class: "hl-time" }),
    fraction: make("span", { class: "hl-fraction" }),
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
    errorName: make("b"),
    errorText: make("span", { class: "hl-message" }),
    errorTrace: make("pre"),
    dismiss: make("button", { type: "button", class: "hl-dismiss", title: "Dismiss", "aria-label": "Dismiss" }, "×"),
  };
  parts.errorMore = make("details", {}, make("summary", {}, "Traceback"), parts.errorTrace);
  parts.error = make("div", { class: "hl-error", role: "alert", hidden: true }, parts.dismiss,
    make("div", {}, parts.errorName, " ", parts.errorText), parts.errorMore);
  parts.form = make("form", { class: "hl-group" }, labelled("Go to", parts.to), parts.go);
  fillSelect(parts.window, WINDOWS, "run");
  const heads = [["Received", ""], ["Event", ""], ["Symbol", ""], ["Price", "hl-n"], ["Size", "hl-n"], ["Side", ""],
    ["Bid", "hl-n"], ["Ask", "hl-n"], ["Detail", ""]];
  const head = make("tr", {}, ...heads.map(([text, name], i) => make("th", { scope: "col", class: `hl-c${i} ${name}` }, text)));
  parts.table = make("table", { class: "hl-events", "aria-label": "Latest events, newest first" }, make("thead", {}, head),
    parts.rows);
  const keys = make("details", { class: "hl-keys" }, make("summary", {}, "Keys"),
    make("div", {}, ...KEYS.flatMap(([key, what]) => [make("b", {}, key), make("span", {}, what)])));
  parts.root = make("section", { class: "hl-player", "aria-label": "Replay player" },
    make("header", { class: "hl-head" }, parts.session, parts.state,
      make("span", { class: "hl-clock" }, parts.date, parts.clock, parts.fraction, make("span", { class: "hl-zone" }, "UTC"))),
    make("div", { class: "hl-bar" },
      make("div", { class: "hl-group" }, parts.restart, parts.play),
      make("div", { class: "hl-group" }, parts.step, parts.count),
      labelled("Speed", parts.speed), parts.form, keys),
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
  put(parts.session, status.session);
  put(parts.state, status.label);
  parts.root.dataset.state = status.state;
  put(parts.date, status.date);
  put(parts.clock, status.clock);
  put(parts.fraction, status.fraction);
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
  const shown = JSON.stringify(status.counts);
  if (parts.counts.dataset.shown !== shown) {
    parts.counts.dataset.shown = shown;
    parts.counts.replaceChildren(...status.counts.map(([name, figure, kind]) =>
      make("span", { class: kind ? `hl-${kind}` : "" }, `${name} `, make("b", {}, figure))));
  }
}

// Rows are reused, so that ten updates a second make no garbage and keep a selection.
function showEvents(parts, rows) {
  const body = parts.rows;
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((row, index) => {
    let line = body.rows[index];
    if (!line) {
      line = body.insertRow();
      for (let i = 0; i < row.length - 1; i += 1) {
        line.append(make("td", { class: `hl-c${i}${[3, 4, 6, 7].includes(i) ? " hl-n" : ""}` }));
      }
    }
    line.dataset.event = row[1];
    line.dataset.side = row[5];
    line.dataset.origin = row[row.length - 1];
    for (let i = 0; i < row.length - 1; i += 1) put(line.cells[i], row[i]);
    // What may be cut off for want of room.
    for (const i of [2, 8]) if (line.cells[i].title !== row[i]) line.cells[i].title = row[i];
  });
}

function showFault(parts, fault) {
  const none = !fault || !fault.name;
  parts.error.hidden = none;
  put(parts.errorName, none ? "" : fault.name);
  put(parts.errorText, none ? "" : fault.message);
  put(parts.errorTrace, none ? "" : fault.traceback);
  parts.errorMore.hidden = none || !fault.traceback;
  const seek = !none && fault.about === "seek";
  parts.to.setAttribute("aria-invalid", String(seek));
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

// Tells the kernel every two seconds that somebody looks, and at once when nobody does any more.
function attend(root, ask, signal) {
  const view = Math.random().toString(36).slice(2);
  let [inSight, told] = [false, false];
  const tell = () => {
    const looking = inSight && !document.hidden;
    if (looking) ask("heard", view);
    else if (told) ask("left", view);
    told = looking;
  };
  const sight = new IntersectionObserver((entries) => {
    const now = entries[entries.length - 1].isIntersecting;
    if (now !== inSight) {
      inSight = now;
      tell();
    }
  });
  sight.observe(root);
  const timer = setInterval(() => { if (told) tell(); }, RENEW_MS);
  document.addEventListener("visibilitychange", tell, { signal });
  return () => {
    clearInterval(timer);
    sight.disconnect();
    if (told) ask("left", view);
  };
}

function render({ model, el }) {
  const parts = build();
  const aborter = new AbortController();
  const ask = (what, value = null) => {
    // The comm of a kernel that was restarted or ended refuses: what the view shows then is of the past.
    try {
      model.send({ do: what, value });
    } catch (error) {
      console.debug("hftlab: not sent", what, error);
      parts.root.dataset.state = "lost";
      put(parts.state, "Its kernel is gone: run the cell again");
    }
  };
  const chart = new PriceChart(parts.canvas, (fraction) => ask("seek", fraction));
  const isDragging = listen(parts, chart, ask, aborter.signal);
  const shows = {
    status: () => showStatus(parts, chart, model.get("status"), isDragging()),
    events: () => showEvents(parts, model.get("events")),
    fault: () => showFault(parts, model.get("fault")),
    path: () => showPath(parts, chart, model.get("path")),
  };
  for (const [name, show] of Object.entries(shows)) {
    show();
    model.on(`change:${name}`, show);
  }
  el.append(parts.root);
  const leave = attend(parts.root, ask, aborter.signal);
  return () => {
    leave();
    aborter.abort();
    chart.close();
    for (const [name, show] of Object.entries(shows)) model.off(`change:${name}`, show);
  };
}

export default { render };
