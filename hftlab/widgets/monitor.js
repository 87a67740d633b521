// The bus monitor's view: a line a lane, the books, and the handlers. Elements are made once and reused, so that ten updates
// a second make no garbage and keep a selection. Joined behind page.js, canvas.js and lane_strip.js, whose names it uses.

const LANE_NAMES = ["CRITICAL", "HIGH", "NORMAL", "LOW"];
const MONITOR_KEYS = [
  ["Tab", "from strip to strip, to the handlers"],
  ["← →", "read a strip's values, all lanes at once"],
  ["Shift ← →", "ten steps at a time"],
  ["Home, End", "the oldest, the latest"],
  ["Escape", "stop reading"],
];
const NUMBERS_FROM = 2; // columns of the handlers' table that hold numbers
const BREAKER = 11;

function buildLane(name) {
  const lane = {
    badges: make("span", { class: "hl-badges" }),
    rate: make("b", { class: "hl-rate", title: "Handled a second" }),
    handled: make("span", { class: "hl-handled" }),
    fill: make("span", { class: "hl-fill" }),
    peak: make("span", { class: "hl-peak" }),
    high: make("span", { class: "hl-mark" }),
    low: make("span", { class: "hl-mark" }),
    waiting: make("span", { class: "hl-waiting" }),
    share: make("b", { class: "hl-share" }),
    most: make("span", { class: "hl-most", title: "The most that was seen waiting in the last minute" }),
    gave: make("div", { class: "hl-gave" }),
    facts: make("div", { class: "hl-facts" }),
    canvas: make("canvas", { class: "hl-strip", tabIndex: 0, role: "slider", "aria-roledescription": "strip chart",
      "aria-label": `${name}, the last minute: waiting upwards, gave way downwards. Arrow keys read it.`,
      "aria-valuemin": "0", "aria-valuemax": "299", "aria-valuenow": "299", "aria-valuetext": "now" }),
  };
  lane.depth = make("div", { class: "hl-depth", role: "meter", "aria-label": `${name} waiting`, "aria-valuemin": "0",
    "aria-valuemax": "100" }, lane.fill, lane.high, lane.low, lane.peak);
  lane.root = make("div", { class: "hl-lane", role: "group", "aria-label": `Lane ${name}`, "data-lane": name },
    make("div", { class: "hl-who" }, make("b", { class: "hl-lane-name" }, name), lane.rate, lane.handled, lane.badges),
    make("div", { class: "hl-queue" }, lane.depth,
      make("div", { class: "hl-amounts" }, lane.share, lane.waiting, lane.most), lane.gave),
    lane.facts, lane.canvas);
  return lane;
}

function buildMonitor() {
  const parts = {
    title: make("span", { class: "hl-session" }),
    state: make("span", { class: "hl-state", role: "status" }),
    badges: make("span", { class: "hl-badges", role: "status", "aria-live": "polite" }),
    throughput: make("b", { class: "hl-throughput" }),
    failing: make("b", { class: "hl-failing" }),
    failed: make("span"),
    published: make("b"),
    terms: make("span", { class: "hl-terms" }),
    balance: make("span", { class: "hl-balance" }),
    head: make("tr"),
    rows: make("tbody"),
    more: make("div", { class: "hl-note" }),
    ...faultParts(),
  };
  parts.lanes = LANE_NAMES.map(buildLane);
  const columns = [["", "Lane, events/s"], ["", "Waiting, of the lane's capacity"], ["", "How long events waited"],
    ["", "Last minute: waiting ▴ gave way ▾"]];
  const axis = ["60 s ago", "45", "30", "15", "now"].map((text) => make("span", {}, text));
  parts.table = make("table", { class: "hl-handlers", "aria-label": "Handlers" }, make("thead", {}, parts.head), parts.rows);
  parts.scroll = make("div", { class: "hl-scroll", tabIndex: 0, role: "region", "aria-label": "Handlers" }, parts.table);
  parts.root = make("section", { class: "hl-widget hl-monitor", "aria-label": "Bus monitor" },
    make("header", { class: "hl-head" }, parts.title, parts.state, parts.badges,
      make("span", { class: "hl-rates" }, make("span", {}, parts.throughput, " handled"),
        make("span", {}, parts.failing, " failed calls", parts.failed)),
      keysHelp(MONITOR_KEYS)),
    parts.error,
    make("div", { class: "hl-lanes-list" },
      make("div", { class: "hl-lane-heads", "aria-hidden": "true" }, ...columns.map(([, text]) => make("span", {}, text))),
      ...parts.lanes.map((lane) => lane.root), make("div", { class: "hl-axis", "aria-hidden": "true" }, ...axis)),
    make("div", { class: "hl-books", title: "Every event that was published is in one of these, at every moment" },
      make("span", { class: "hl-sum" }, "published ", parts.published, " ="), parts.terms, parts.balance),
    parts.scroll, parts.more);
  return parts;
}

function showMonitorStatus(parts, status) {
  put(parts.title, status.title);
  put(parts.state, status.label);
  if (parts.root.dataset.state !== status.state) parts.root.dataset.state = status.state;
  showBadges(parts.badges, status.badges);
  put(parts.throughput, status.throughput);
  put(parts.failing, status.failures);
  put(parts.failed, ` (${status.failed} in all)`);
  parts.failing.dataset.kind = status.failing ? "bad" : "";
}

function showLane(lane, shown) {
  const percent = (part) => `${part * 100}%`;
  lane.fill.style.width = percent(shown.depth);
  lane.peak.style.left = percent(shown.peak);
  lane.peak.hidden = !shown.peak;
  [lane.high, lane.low].forEach((mark, i) => { mark.style.left = percent(shown.marks[i]); });
  lane.depth.setAttribute("aria-valuenow", String(Math.round(shown.depth * 100)));
  lane.depth.setAttribute("aria-valuetext", shown.told);
  lane.depth.title = shown.told;
  put(lane.share, shown.share);
  put(lane.waiting, shown.waiting);
  put(lane.most, shown.peak_text);
  put(lane.rate, shown.rate);
  put(lane.handled, `${shown.handled} in all`);
  lane.root.dataset.busy = String(shown.busy);
  lane.root.dataset.giving = String(shown.giving_way);
  showBadges(lane.badges, shown.badges);
  showFacts(lane.facts, shown.facts);
  showGaveWay(lane.gave, shown);
}

function showFacts(element, facts) {
  while (element.children.length < facts.length) {
    element.append(make("div", {}, make("span"), make("b")));
  }
  facts.forEach(([name, text, title], i) => {
    const item = element.children[i];
    put(item.firstChild, name);
    put(item.lastChild, text);
    if (item.title !== title) item.title = title;
  });
}

function showGaveWay(element, { gave_way: total, reasons }) {
  const shown = JSON.stringify(reasons);
  if (element.dataset.shown === shown) return;
  element.dataset.shown = shown;
  if (!reasons.length) {
    element.replaceChildren(make("span", { class: "hl-none" }, "nothing gave way"));
    return;
  }
  const told = reasons.map(([reason, count, rate]) =>
    make("span", { class: "hl-reason", title: `${count} gave way: ${reason}` }, `${reason} `, make("b", {}, count),
      rate ? make("i", {}, ` ${rate}`) : ""));
  const sum = reasons.length > 1 ? [make("span", { class: "hl-reason" }, "gave way ", make("b", {}, total))] : [];
  element.replaceChildren(...sum, ...told);
}

function showBooks(parts, books) {
  put(parts.published, books.published);
  const { terms } = parts;
  while (terms.children.length < books.terms.length) {
    terms.append(make("span", { class: "hl-term" }, make("b"), make("span")));
  }
  books.terms.forEach(([name, figure, kind, title], i) => {
    const term = terms.children[i];
    term.dataset.kind = kind;
    put(term.firstChild, figure);
    put(term.lastChild, ` ${name}`);
    if (term.title !== title) term.title = title;
  });
  put(parts.balance, books.off ? `✗ off by ${books.off}` : "✓ balances");
  parts.balance.dataset.kind = books.off ? "bad" : "good";
}

function showHandlers(parts, table, ask) {
  if (!parts.head.cells.length) {
    parts.head.append(...table.heads.map(([word, text], i) => make("th", { scope: "col", class: `hl-h${i}` },
      make("button", { type: "button", title: "Order by this", "data-order": word, onclick: () => ask("order", word) }, text))));
  }
  for (const head of parts.head.cells) {
    const ordered = head.firstChild.dataset.order === table.order && table.order !== "called";
    head.setAttribute("aria-sort", ordered ? "other" : "none");
  }
  const { rows: body } = parts;
  while (body.rows.length > table.rows.length) body.deleteRow(-1);
  table.rows.forEach((row, index) => fillHandler(body.rows[index] ?? addHandler(body, table.heads.length), row, table.heads.length));
  put(parts.more, table.rows.length ? table.more : "no handler is subscribed");
  parts.more.hidden = !parts.more.textContent;
}

function addHandler(body, columns) {
  const line = body.insertRow();
  for (let i = 0; i < columns; i += 1) line.append(make("td", { class: `hl-h${i}${i >= NUMBERS_FROM && i !== BREAKER ? " hl-n" : ""}` }));
  line.cells[0].append(make("span", { class: "hl-handler" }), make("span", { class: "hl-why" }));
  line.cells[BREAKER].append(make("span", { class: "hl-badge" }));
  return line;
}

function fillHandler(line, row, columns) {
  const [full, mark, note] = row.slice(columns);
  line.dataset.mark = mark;
  const [name, why] = line.cells[0].children;
  put(name, row[0]);
  put(why, note);
  why.hidden = !note;
  const title = note ? `${full}: ${note}` : full;
  if (line.cells[0].title !== title) line.cells[0].title = title;
  for (let i = 1; i < columns; i += 1) if (i !== BREAKER) put(line.cells[i], row[i]);
  const state = line.cells[BREAKER].firstChild;
  put(state, row[BREAKER]);
  state.hidden = !row[BREAKER];
  state.dataset.kind = { closed: "good", open: "bad" }[row[BREAKER]] ?? "warn";
}

function showStrip(strips, strip) {
  const view = strip.points;
  if (!view) return;
  const points = new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  const lanes = strip.lanes.length;
  const count = points.length / (2 * lanes);
  for (const one of strips) {
    const at = strip.lanes.indexOf(one.lane);
    if (at < 0) continue;
    const series = (kind) => points.subarray((kind * lanes + at) * count, (kind * lanes + at + 1) * count);
    one.setSeries(series(0), series(1), strip.bucket_s);
  }
}

function onMonitorKey(event, strips, point) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  // Keys pressed in here are meant for here: the notebook would take `d d` for deleting the cell.
  event.stopPropagation();
  const strip = strips.find((one) => one.canvas === event.target);
  if (!strip) return;
  const count = strip.waiting.length;
  const at = strip.at ?? count;
  const by = event.shiftKey ? 10 : 1;
  const to = { ArrowLeft: at - by, ArrowRight: at + by, Home: 0, End: count - 1, Escape: null }[event.key];
  if (to === undefined || !count) return;
  event.preventDefault();
  point(to === null ? null : Math.min(Math.max(to, 0), count - 1), strip);
}

function startMonitor(parts, ask, signal) {
  const on = (element, name, action) => element.addEventListener(name, action, { signal });
  const point = (at, by = null) => {
    for (const strip of strips) {
      strip.setPointed(at, strip === by);
      strip.canvas.setAttribute("aria-valuenow", String(at ?? strip.waiting.length - 1));
      if (at === null) strip.canvas.setAttribute("aria-valuetext", "now");
    }
  };
  const strips = parts.lanes.map((lane, i) => new LaneStrip(lane.canvas, LANE_NAMES[i], point));
  on(parts.dismiss, "click", () => ask("dismiss"));
  on(parts.root, "keydown", (event) => onMonitorKey(event, strips, point));
  for (const lane of parts.lanes) on(lane.canvas, "blur", () => point(null));
  const shows = {
    status: (status) => showMonitorStatus(parts, status),
    lanes: (lanes) => lanes.forEach((shown) => {
      const at = LANE_NAMES.indexOf(shown.lane);
      if (at >= 0) showLane(parts.lanes[at], shown);
    }),
    strip: (strip) => showStrip(strips, strip),
    books: (books) => showBooks(parts, books),
    handlers: (table) => showHandlers(parts, table, ask),
    fault: (fault) => showFault(parts, fault),
  };
  return { shows, close: () => strips.forEach((strip) => strip.close()) };
}

export default { render: (context) => mount(context, buildMonitor, startMonitor) };
