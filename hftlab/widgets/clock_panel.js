// The clock panel's view: the reading in words, the clock over time, and the servers. Joined behind page.js, canvas.js and
// clock_chart.js.

const CLOCK_KEYS = [
  ["Tab", "to the picture, to the servers"],
  ["← →", "read the picture's values"],
  ["Shift ← →", "ten steps at a time"],
  ["Home, End", "the oldest, the latest"],
  ["Escape", "stop reading"],
];

function buildClock() {
  const parts = {
    title: make("span", { class: "hl-session" }),
    state: make("span", { class: "hl-state", role: "status" }),
    badges: make("span", { class: "hl-badges" }),
    reading: make("div", { class: "hl-reading", role: "status" }),
    meaning: make("div", { class: "hl-meaning" }),
    advice: make("code", { class: "hl-advice" }),
    window: make("select", { "aria-label": "How far back" }),
    canvas: make("canvas", { class: "hl-clock-chart", tabIndex: 0, role: "slider", "aria-roledescription": "chart",
      "aria-label": "What is missing to UTC, its bound, the state, drift and slew, over time. Arrow keys read it.",
      "aria-valuemin": "0", "aria-valuemax": "1", "aria-valuenow": "0", "aria-valuetext": "now" }),
    head: make("tr"),
    rows: make("tbody"),
    more: make("div", { class: "hl-note" }),
    ...faultParts(),
  };
  parts.table = make("table", { class: "hl-figures hl-servers", "aria-label": "NTP servers" }, make("thead", {}, parts.head), parts.rows);
  parts.scroll = make("div", { class: "hl-scroll", tabIndex: 0, role: "region", "aria-label": "NTP servers" }, parts.table);
  const key = (name, text) => make("span", { "data-key": name }, text);
  parts.keys = make("div", { class: "hl-legend" }, key("offset", "UTC − clock, with its bound"), key("SYNCED", "synced"),
    key("HOLDOVER", "holdover"), key("UNSYNCED", "unsynced"), key("drift", "drift"), key("slew", "slew"), labelled("Show", parts.window));
  parts.root = make("section", { class: "hl-widget hl-clock-panel", "aria-label": "Clock panel" },
    make("header", { class: "hl-head" }, parts.title, parts.state, parts.badges, keysHelp(CLOCK_KEYS)),
    parts.error, parts.reading, parts.meaning, parts.advice, parts.keys, parts.canvas, parts.scroll, parts.more);
  return parts;
}

function showClockStatus(parts, status) {
  put(parts.title, status.title);
  put(parts.state, status.label);
  parts.root.dataset.state = status.state;
  parts.root.dataset.clock = status.clock;
  showBadges(parts.badges, status.badges);
  put(parts.reading, status.reading);
  put(parts.meaning, status.meaning);
  put(parts.advice, status.advice);
  parts.advice.hidden = !status.advice;
}

function showServers(parts, servers) {
  const shown = JSON.stringify(servers.heads);
  if (parts.head.dataset.shown !== shown) {
    parts.head.dataset.shown = shown;
    parts.head.replaceChildren(...servers.heads.map(([text, kind, title]) => make("th", { scope: "col", class: kind ? `hl-${kind}` : "", title }, text)));
  }
  const { rows: body } = parts;
  while (body.rows.length > servers.rows.length) body.deleteRow(-1);
  servers.rows.forEach(([kind, note, ...texts], index) => {
    const line = body.rows[index] ?? addServer(body, servers.heads);
    line.dataset.kind = kind;
    const [name, why] = line.cells[0].children;
    put(name, texts[0]);
    put(why, note);
    why.hidden = !note;
    const title = note ? `${texts[0]}: ${note}` : texts[0];
    if (line.cells[0].title !== title) line.cells[0].title = title;
    const sign = line.cells[1].firstChild;
    put(sign, texts[1]);
    sign.dataset.kind = kind;
    for (let i = 2; i < texts.length; i += 1) put(line.cells[i], texts[i]);
  });
  parts.scroll.hidden = !servers.rows.length;
  put(parts.more, servers.more);
  parts.more.hidden = !servers.more;
}

function addServer(body, heads) {
  const line = body.insertRow();
  for (const [, kind] of heads) line.append(make("td", { class: kind ? `hl-${kind}` : "" }));
  line.cells[0].append(make("span", { class: "hl-server" }), make("span", { class: "hl-why" }));
  line.cells[1].append(make("span", { class: "hl-badge" }));
  return line;
}

function startClock(parts, ask, signal) {
  const on = (element, name, action) => element.addEventListener(name, action, { signal });
  const chart = new ClockChart(parts.canvas);
  on(parts.dismiss, "click", () => ask("dismiss"));
  on(parts.window, "change", () => ask("window", parts.window.value));
  on(parts.root, "keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    // Keys pressed in here are meant for here: the notebook would take `d d` for deleting the cell.
    event.stopPropagation();
    if (event.target !== parts.canvas || !chart.move(event.key, event.shiftKey)) return;
    event.preventDefault();
    parts.canvas.setAttribute("aria-valuemax", String(chart.series.count - 1));
    parts.canvas.setAttribute("aria-valuenow", String(chart.at ?? chart.series.count - 1));
  });
  const shows = {
    status: (status) => showClockStatus(parts, status),
    chart: (shown) => {
      fillSelect(parts.window, shown.windows, shown.window);
      chart.setChart(shown);
      // Nothing to draw: what there is to say stands above.
      parts.canvas.hidden = parts.keys.hidden = !chart.series.count;
    },
    servers: (servers) => showServers(parts, servers),
    fault: (fault) => showFault(parts, fault),
  };
  return { shows, close: () => chart.close() };
}

export default { render: (context) => mount(context, buildClock, startClock) };
