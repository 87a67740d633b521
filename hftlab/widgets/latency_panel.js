// The latency panel's view: two pictures, the stages stacked, and a table from which both are chosen. Elements are made once
// and reused, so that ten updates a second keep a selection. Joined behind page.js, canvas.js and latency_charts.js.

const LATENCY_KEYS = [
  ["↑ ↓", "the row before, after"],
  ["← →", "read a picture's values"],
  ["Shift ← →", "ten steps at a time"],
  ["Home, End", "a picture's, or the table's ends"],
  ["G", "list by the next: stages, types …"],
  ["K", "keep what is measured, to compare"],
  ["W", "stack with exchange → received"],
  ["Escape", "stop reading; all rows"],
];

function latencyCanvas(name, label) {
  return make("canvas", { class: `hl-picture hl-${name}`, tabIndex: 0, role: "slider", "aria-roledescription": "chart",
    "aria-label": `${label}. Arrow keys read it.`, "aria-valuemin": "0", "aria-valuemax": "1", "aria-valuenow": "0",
    "aria-valuetext": "nothing is read" });
}

function buildLatency() {
  const parts = {
    title: make("span", { class: "hl-session" }),
    state: make("span", { class: "hl-state", role: "status" }),
    badges: make("span", { class: "hl-badges" }),
    by: make("div", { class: "hl-group hl-by", role: "group", "aria-label": "List by" }),
    stage: make("select", { class: "hl-stage", "aria-label": "Stage" }),
    row: make("button", { type: "button", class: "hl-row", title: "Back to all of them (Escape)" }),
    keep: make("button", { type: "button", class: "hl-keep", title: "Freeze what has been measured so far, and compare with it (K)" }, "Keep"),
    drop: make("button", { type: "button", class: "hl-drop", title: "Compare no more" }),
    notes: make("div", { class: "hl-notes", role: "status" }),
    runs: make("span", { class: "hl-runs" }),
    words: make("b", { class: "hl-words" }),
    distribution: latencyCanvas("distribution", "Distribution of the latencies: how many of them are how long"),
    percentiles: latencyCanvas("percentiles", "Percentiles: what most latencies do not exceed"),
    wire: make("button", { type: "button", class: "hl-wire", title: "With exchange → received, which is mostly longer than all the rest (W)" }, "with exchange → received"),
    bars: make("div", { class: "hl-bars" }),
    legend: make("div", { class: "hl-legend" }),
    stackNote: make("div", { class: "hl-note" }),
    head: make("tr"),
    rows: make("tbody"),
    more: make("div", { class: "hl-note" }),
    ...faultParts(),
  };
  parts.table = make("table", { class: "hl-figures", role: "grid", "aria-label": "Latencies" }, make("thead", {}, parts.head), parts.rows);
  parts.scroll = make("div", { class: "hl-scroll", tabIndex: 0, role: "region", "aria-label": "Latencies, listed" }, parts.table);
  const chart = (head, canvas) => make("figure", {}, make("figcaption", {}, head), canvas);
  parts.root = make("section", { class: "hl-widget hl-latency", "aria-label": "Latency panel" },
    make("header", { class: "hl-head" }, parts.title, parts.state, parts.badges, keysHelp(LATENCY_KEYS)),
    make("div", { class: "hl-bar" }, parts.by, labelled("Stage", parts.stage), parts.row,
      make("div", { class: "hl-group hl-compare" }, parts.drop, parts.keep)),
    parts.error, parts.notes,
    make("div", { class: "hl-what" }, parts.words, parts.runs),
    make("div", { class: "hl-charts" }, chart("How many are how long, in % of all", parts.distribution), chart("How long, by percentile", parts.percentiles)),
    make("div", { class: "hl-stack" }, make("div", { class: "hl-stack-head" }, make("span", {}, "Stage by stage"), parts.legend, parts.wire),
      parts.bars, parts.stackNote),
    parts.scroll, parts.more);
  return parts;
}

function showLatencyStatus(parts, status) {
  put(parts.title, status.title);
  if (parts.title.title !== status.title) parts.title.title = status.title;
  put(parts.state, status.label);
  if (parts.root.dataset.state !== status.state) parts.root.dataset.state = status.state;
  showBadges(parts.badges, status.badges);
  showLines(parts.notes, status.notes);
}

function showLines(element, lines) {
  const shown = JSON.stringify(lines);
  if (element.dataset.shown === shown) return;
  element.dataset.shown = shown;
  element.hidden = !lines.length;
  element.replaceChildren(...lines.map((line) => make("div", {}, line)));
}

function showChoice(parts, choice, ask) {
  const { by } = parts;
  if (!by.children.length) {
    by.append(...choice.bys.map(([word, text]) => make("button", { type: "button", "data-by": word, onclick: () => ask("by", word) }, text)));
  }
  for (const one of by.children) one.setAttribute("aria-pressed", String(one.dataset.by === choice.by));
  fillSelect(parts.stage, choice.stages, choice.stage);
  parts.stage.disabled = choice.stages.length < 2;
  parts.row.hidden = !choice.row;
  put(parts.row, `${choice.name} ×`);
  parts.row.title = `${choice.row}: back to all of them (Escape)`;
  put(parts.words, choice.words);
  parts.words.title = choice.words;
  const [run, kept] = choice.runs;
  parts.drop.hidden = !kept;
  put(parts.drop, `Compared with ${kept} ×`);
  const shown = JSON.stringify(choice.runs);
  if (parts.runs.dataset.shown !== shown) {
    parts.runs.dataset.shown = shown;
    parts.runs.replaceChildren(...(kept ? [make("span", { class: "hl-run", "data-run": "now" }, run), make("span", { class: "hl-run", "data-run": "kept" }, kept)] : []));
  }
}

function showStack(parts, stack) {
  const { bars } = parts;
  while (bars.children.length > stack.bars.length) bars.lastChild.remove();
  while (bars.children.length < stack.bars.length) {
    bars.append(make("div", { class: "hl-bar-line" }, make("span", { class: "hl-bar-name" }),
      make("span", { class: "hl-segments", role: "img" }), make("b", { class: "hl-sum" })));
  }
  stack.bars.forEach(([label, sum, segments, place], i) => {
    const [name, line, total] = bars.children[i].children;
    bars.children[i].dataset.place = place;
    put(name, label);
    if (name.title !== label) name.title = label;
    put(total, sum);
    line.setAttribute("aria-label", `${label}: ${segments.map((segment) => segment[3]).join("; ")}`);
    while (line.children.length > segments.length) line.lastChild.remove();
    while (line.children.length < segments.length) line.append(make("span", { class: "hl-segment" }, make("span")));
    segments.forEach(([stage, part, text, told], at) => {
      const segment = line.children[at];
      segment.dataset.stage = stage;
      segment.style.flexGrow = String(1000 * part); // a sum below 1 would leave room
      if (segment.title !== told) segment.title = told;
      put(segment.firstChild, text);
    });
    // What the longest bar of this percentile has more.
    line.style.setProperty("--hl-part", `${100 * segments.reduce((all, segment) => all + segment[1], 0)}%`);
  });
  const legend = JSON.stringify(stack.legend);
  if (parts.legend.dataset.shown !== legend) {
    parts.legend.dataset.shown = legend;
    parts.legend.replaceChildren(...stack.legend.map(([stage, words]) => make("span", { "data-stage": stage }, words)));
  }
  parts.wire.hidden = !stack.has_wire;
  parts.wire.setAttribute("aria-pressed", String(stack.wire));
  put(parts.stackNote, stack.nothing || stack.note);
}

function showLatencyTable(parts, table) {
  const shown = JSON.stringify(table.heads);
  if (parts.head.dataset.shown !== shown) {
    parts.head.dataset.shown = shown;
    parts.head.replaceChildren(...table.heads.map((text, i) => make("th", { scope: "col", class: i ? "hl-n" : "" }, text)));
    parts.rows.replaceChildren();
  }
  const { rows: body } = parts;
  while (body.rows.length > table.rows.length) body.deleteRow(-1);
  table.rows.forEach(([key, ...texts], index) => {
    const line = body.rows[index] ?? addFigures(body, texts.length);
    line.dataset.key = key;
    line.dataset.stage = table.by === "stage" ? key : "";
    line.setAttribute("aria-selected", String(key === table.chosen));
    texts.forEach((text, i) => put(line.cells[i].firstChild, text));
    const title = table.by === "stage" ? texts[0] : key;
    if (line.cells[0].title !== title) line.cells[0].title = title;
    line.cells[texts.length > 8 ? 7 : texts.length - 1].dataset.kind = texts[7] ? "warn" : "";
  });
  put(parts.more, table.nothing || table.more);
  parts.more.hidden = !parts.more.textContent;
}

function addFigures(body, columns) {
  const line = body.insertRow();
  for (let i = 0; i < columns; i += 1) line.append(make("td", { class: i ? "hl-n" : "" }, make("span")));
  return line;
}

function nextGrouping(parts) {
  const all = [...parts.by.children];
  const at = all.findIndex((one) => one.getAttribute("aria-pressed") === "true");
  all[(at + 1) % all.length]?.click();
}

function onLatencyKey(event, parts, charts, ask) {
  const into = event.target;
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  // Keys pressed in here are meant for here: the notebook would take `d d` for deleting the cell.
  event.stopPropagation();
  if (into.matches("select, input, textarea")) return;
  const chart = charts.find((one) => one.canvas === into);
  if (chart && chart.move(event.key, event.shiftKey)) {
    into.setAttribute("aria-valuemax", String(chart.places - 1));
    into.setAttribute("aria-valuenow", String(chart.at ?? 0));
    event.preventDefault();
    return;
  }
  const does = {
    ArrowDown: () => ask("move", 1),
    ArrowUp: () => ask("move", -1),
    Home: () => ask("move", -1e9),
    End: () => ask("move", 1e9),
    g: () => nextGrouping(parts),
    k: () => ask("keep"),
    w: () => { if (!parts.wire.hidden) ask("wire"); },
    Escape: () => ask("row", ""),
  }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!does) return;
  event.preventDefault();
  does();
}

function startLatency(parts, ask, signal) {
  const on = (element, name, action) => element.addEventListener(name, action, { signal });
  const charts = [new DistributionChart(parts.distribution), new PercentileChart(parts.percentiles)];
  on(parts.dismiss, "click", () => ask("dismiss"));
  on(parts.stage, "change", () => ask("stage", parts.stage.value));
  on(parts.row, "click", () => ask("row", ""));
  on(parts.keep, "click", () => ask("keep"));
  on(parts.drop, "click", () => ask("drop"));
  on(parts.wire, "click", () => ask("wire"));
  on(parts.rows, "click", (event) => {
    const line = event.target.closest("tr[data-key]");
    if (line) ask("row", line.dataset.key);
  });
  on(parts.root, "keydown", (event) => onLatencyKey(event, parts, charts, ask));
  const shows = {
    status: (status) => showLatencyStatus(parts, status),
    choice: (choice) => showChoice(parts, choice, ask),
    picture: (picture) => charts.forEach((chart) => chart.setPicture(picture)),
    stack: (stack) => showStack(parts, stack),
    table: (table) => showLatencyTable(parts, table),
    fault: (fault) => showFault(parts, fault),
  };
  return { shows, close: () => charts.forEach((chart) => chart.close()) };
}

export default { render: (context) => mount(context, buildLatency, startLatency) };
