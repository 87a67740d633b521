// The gap inspector's view. The list is as long as there are gaps, and holds the rows of which the kernel sent the texts:
// those around what is in sight. Joined behind page.js, canvas.js and timeline.js, whose names it uses.

const ROW = 22;
const AHEAD = 30; // rows beyond what is in sight that should be there before they are
Object.assign(ICONS, {
  lost: "M3 4.4 4.4 3 8 6.6 11.6 3 13 4.4 9.4 8l3.6 3.6-1.4 1.4L8 9.4 4.4 13 3 11.6 6.6 8z",
  open: "M4 2.5v11l9-5.5z",
  filled: "M8 2a6 6 0 1 0 0 12A6 6 0 1 0 8 2zM8 4a4 4 0 1 1 0 8 4 4 0 1 1 0-8z",
  before: "M3 3h2v10H3z M13 3v10L6 8z",
  after: "M3 3v10l7-5z M11 3h2v10h-2z",
});
const GAP_KEYS = [
  ["↑ ↓", "the gap before, after"],
  ["Page Up, Page Down", "ten gaps at a time"],
  ["Home, End", "the first, the last gap"],
  ["Enter", "jump before the gap"],
  ["Shift Enter", "jump after it"],
  ["+ − 0", "zoom the timeline in, out, to the whole"],
  ["Escape", "select nothing"],
];
const COLUMNS = [["opened", "Opened"], ["source", "Source"], ["first", "Numbers"], ["numbers", "Missing"], ["state", "State"],
  ["duration", "Open for"]];

function buildInspector() {
  const parts = {
    ...headParts(),
    ...faultParts(),
    earlier: make("span", { class: "hl-earlier-runs" }),
    source: make("select", { class: "hl-source", "aria-label": "Source" }),
    everything: make("button", { type: "button", class: "hl-everything" }, "Show all"),
    listed: make("span", { class: "hl-listed", role: "status" }),
    canvas: make("canvas", { class: "hl-lanes", tabIndex: 0, role: "application", "aria-roledescription": "timeline of gaps",
      "aria-label": "Gaps by source over time. Arrows select, Enter jumps before the gap, Shift Enter after it." }),
    note: make("div", { class: "hl-note" }),
    narrower: make("button", { type: "button", title: "Zoom in (+)", "aria-label": "Zoom in" }, "+"),
    wider: make("button", { type: "button", title: "Zoom out (−)", "aria-label": "Zoom out" }, "−"),
    whole: make("button", { type: "button", title: "The whole range (0, or a double click)" }, "Whole"),
    above: make("tr", { "aria-hidden": "true" }, make("td", { colSpan: COLUMNS.length })),
    below: make("tr", { "aria-hidden": "true" }, make("td", { colSpan: COLUMNS.length })),
    counts: make("div", { class: "hl-counts" }),
    details: make("div", { class: "hl-details", "aria-live": "polite" }),
  };
  parts.states = Object.fromEntries(["lost", "open", "filled"].map((state) => [state, make("button", { type: "button",
    class: "hl-chip", "data-gap": state, title: `Show or hide ${state} gaps` }, icon(state), make("span", {}, state), make("b"))]));
  parts.heads = COLUMNS.map(([word, text]) => make("button", { type: "button", "data-order": word, title: "Order by this" }, text));
  parts.rows = make("tbody", {}, parts.above, parts.below);
  const head = make("tr", {}, ...parts.heads.map((button, i) => make("th", { scope: "col", class: `hl-g${i}` }, button)));
  parts.table = make("table", { class: "hl-gaps", role: "grid", "aria-label": "Gaps" }, make("thead", {}, head), parts.rows);
  parts.scroll = make("div", { class: "hl-scroll", tabIndex: 0, role: "region", "aria-label": "List of gaps" }, parts.table);
  buildDetails(parts);
  parts.root = make("section", { class: "hl-widget hl-inspector", "aria-label": "Gap inspector" },
    make("header", { class: "hl-head" }, parts.title, parts.state, parts.earlier, parts.time),
    make("div", { class: "hl-bar" },
      make("div", { class: "hl-group", role: "group", "aria-label": "States" }, ...Object.values(parts.states)),
      labelled("Source", parts.source), parts.everything, parts.listed,
      make("div", { class: "hl-group hl-zoom", role: "group", "aria-label": "Zoom" }, parts.wider, parts.narrower, parts.whole),
      keysHelp(GAP_KEYS)),
    parts.error, parts.canvas, parts.note,
    make("div", { class: "hl-columns" }, parts.scroll, parts.details),
    parts.counts);
  return parts;
}

function buildDetails(parts) {
  Object.assign(parts, {
    hint: make("div", { class: "hl-hint" }, "Select a gap in the list or on the timeline."),
    what: make("h3", { class: "hl-what" }),
    where: make("span", { class: "hl-where" }),
    why: make("div", { class: "hl-why" }),
    facts: make("div", { class: "hl-facts" }),
    before: button("before", "Jump before", "To the last event before the gap (Enter)"),
    after: button("after", "Jump after", "To the event that revealed the gap (Shift Enter)"),
    reason: make("div", { class: "hl-reason" }),
    events: make("tbody"),
    missing: make("tr", { class: "hl-missing" }, make("td", { colSpan: EVENT_HEADS.length + 1 })),
    cut: make("div", { class: "hl-note" }),
  });
  parts.around = make("div", { class: "hl-table" }, eventTable("Recorded events around the gap, oldest first", parts.events, ["Number"]));
  parts.gap = make("div", { hidden: true }, make("div", { class: "hl-gap-head" }, make("div", { class: "hl-name" }, parts.what, parts.where),
    make("div", { class: "hl-group hl-jumps" }, parts.before, parts.after)), parts.why, parts.facts, parts.reason, parts.around, parts.cut);
  parts.details.append(parts.hint, parts.gap);
}

function showFilters(parts, filters) {
  for (const [state, count, on] of filters.states) {
    const chip = parts.states[state];
    put(chip.lastChild, count);
    chip.setAttribute("aria-pressed", String(on));
  }
  fillSelect(parts.source, filters.sources, filters.source);
  parts.source.disabled = filters.sources.length < 3 && !filters.source;
  const all = filters.states.every(([, , on]) => on) && !filters.source;
  parts.everything.hidden = all;
  put(parts.listed, all ? "" : `${filters.listed.toLocaleString("en-US")} of ${filters.known.toLocaleString("en-US")} gaps`);
  for (const head of parts.heads) {
    const sorted = head.dataset.order === filters.order;
    const order = sorted ? (filters.descending ? "descending" : "ascending") : "none";
    head.parentElement.setAttribute("aria-sort", order);
  }
}

function showPage(parts, page, chosen) {
  const { rows: body, above, below } = parts;
  const lines = body.rows.length - 2;
  for (let i = lines; i > page.rows.length; i -= 1) body.deleteRow(1);
  for (let i = lines; i < page.rows.length; i += 1) below.before(gapLine());
  // One element may be 33 million pixels high in a browser: 1.5 million gaps.
  above.firstChild.style.height = `${page.offset * ROW}px`;
  below.firstChild.style.height = `${Math.max(page.total - page.offset - page.rows.length, 0) * ROW}px`;
  above.hidden = !page.offset;
  below.hidden = page.total <= page.offset + page.rows.length;
  parts.table.setAttribute("aria-rowcount", String(page.total + 1));
  page.rows.forEach(([key, opened, source, numbers, missing, state, reason, duration, earlier], i) => {
    const line = body.rows[i + 1];
    line.dataset.key = key;
    line.setAttribute("aria-rowindex", String(page.offset + i + 2));
    line.dataset.gap = state;
    line.dataset.run = earlier;
    const cells = line.cells;
    [opened, source, numbers, missing].forEach((text, at) => put(cells[at], text));
    const sign = cells[4].firstChild;
    if (sign.dataset.sign !== state) {
      sign.dataset.sign = state;
      sign.firstChild.setAttribute("d", ICONS[state]);
    }
    const full = reason ? `${state}, ${reason}` : state;
    put(cells[4].lastChild, earlier ? `${state} · earlier` : full);
    put(cells[5], duration);
    for (const [at, text] of [[1, source], [2, numbers], [4, earlier ? `${full} (found by an earlier run)` : full]]) {
      if (cells[at].title !== text) cells[at].title = text; // what may be cut off for want of room
    }
  });
  showChosen(parts, chosen);
}

function gapLine() {
  const cells = COLUMNS.map((_, i) => make("td", { class: `hl-g${i}` }));
  cells[4].append(icon("lost"), make("span"));
  return make("tr", {}, ...cells);
}

function showChosen(parts, chosen) {
  for (const line of parts.rows.rows) {
    if (line.dataset.key) line.setAttribute("aria-selected", String(line.dataset.key === chosen));
  }
}

// Brings a place of the list into sight.
function reveal(parts, place) {
  const { scroll } = parts;
  const head = scroll.querySelector("thead").offsetHeight;
  const [top, room] = [place * ROW, scroll.clientHeight - head];
  if (top < scroll.scrollTop) scroll.scrollTop = top;
  else if (top + ROW > scroll.scrollTop + room) scroll.scrollTop = top + ROW - room;
}

function showSelected(parts, gap) {
  const none = !gap.key;
  parts.hint.hidden = !none;
  parts.gap.hidden = none;
  if (none) return;
  parts.gap.dataset.gap = gap.state;
  parts.what.replaceChildren(icon(gap.state), `${gap.numbers} ${gap.state}`);
  put(parts.where, gap.source);
  put(parts.why, [gap.why && `Given up because ${gap.why}.`, gap.earlier && "Found by an earlier run; this one has not come to it.",
    gap.place < 0 && "The filter hides it in the list."].filter(Boolean).join(" "));
  parts.facts.replaceChildren(...gap.facts.map(([name, text]) => make("span", {}, `${name} `, make("b", {}, text))));
  for (const side of ["before", "after"]) parts[side].disabled = Boolean(gap[side]);
  put(parts.reason, [...new Set([gap.before, gap.after].filter(Boolean))].join(". "));
  put(parts.missing.firstChild, `${gap.numbers} ${gap.state === "filled" ? "came after all" : "missing"}`);
}

function showAround(parts, around) {
  parts.around.hidden = around.state !== "ready" || !around.rows.length;
  const told = { loading: "Reading the events around it …", failed: around.fault && `${around.fault.name}: ${around.fault.message}` };
  put(parts.cut, told[around.state] ?? (around.cut ?? []).filter(Boolean).join("; "));
  parts.cut.dataset.kind = around.state === "failed" ? "bad" : "";
  if (parts.around.hidden) return;
  const [first, last] = [BigInt(around.first), BigInt(around.last)];
  const lines = around.rows.map((row) => {
    const line = make("tr");
    fillEvent(line, row, 1);
    // What was missing and came after all stands where it arrived.
    line.dataset.late = String(Boolean(row[0]) && BigInt(row[0]) >= first && BigInt(row[0]) <= last);
    return line;
  });
  lines.splice(around.split, 0, parts.missing);
  parts.events.replaceChildren(...lines);
  const { missing, around: box } = parts;
  box.scrollTop = missing.offsetTop - box.clientHeight / 2 + missing.offsetHeight / 2;
}

function showTimeline(parts, chart, timeline) {
  chart.setTimeline(timeline);
  const count = (number) => number.toLocaleString("en-US");
  const told = [];
  if (timeline.drawn < timeline.gaps) {
    told.push(`${count(timeline.drawn)} of ${count(timeline.gaps)} gaps drawn, the longest of each ${timeline.stretch}: drag to zoom in`);
  }
  if (timeline.more_sources) told.push(`${count(timeline.more_sources)} more sources: choose one above`);
  put(parts.note, told.join(" · "));
  parts.note.hidden = !told.length;
  parts.whole.disabled = !timeline.zoomed;
}

function onGapKey(event, parts, chart, ask) {
  const into = event.target;
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  // Keys pressed in here are meant for here: the notebook would take `d d` for deleting the cell.
  event.stopPropagation();
  const pressing = into.matches("button, summary");
  if (into.matches("input, select, textarea")) return;
  const does = {
    ArrowDown: () => ask("move", 1),
    ArrowRight: () => ask("move", 1),
    ArrowUp: () => ask("move", -1),
    ArrowLeft: () => ask("move", -1),
    PageDown: () => ask("move", 10),
    PageUp: () => ask("move", -10),
    End: () => ask("move", 1e9),
    Home: () => ask("move", -1e9),
    Enter: pressing ? null : () => parts[event.shiftKey ? "after" : "before"].click(),
    "+": () => chart.zoomBy(0.4),
    "=": () => chart.zoomBy(0.4),
    "-": () => chart.zoomBy(2.5),
    0: () => ask("zoom", null),
    Escape: () => ask("select", null),
  }[event.key];
  if (!does) return;
  event.preventDefault();
  does();
}

// Asks for other rows when what is in sight, and a little more, is not there. One question at a time.
function scroller(parts, state, ask) {
  return () => {
    const { offset, total, rows } = state.page;
    const first = Math.floor(parts.scroll.scrollTop / ROW);
    const last = first + Math.ceil(parts.scroll.clientHeight / ROW);
    const enough = (first - AHEAD >= offset || offset === 0) && (last + AHEAD <= offset + rows.length || offset + rows.length >= total);
    const wanted = Math.max(Math.round((first + last) / 2 - rows.length / 2), 0);
    if (enough || state.asked === wanted) return;
    state.asked = wanted;
    ask("page", wanted);
  };
}

function startInspector(parts, ask, signal) {
  const state = { page: { offset: 0, total: 0, rows: [] }, chosen: "", asked: null };
  const on = (element, name, action) => element.addEventListener(name, action, { signal });
  const choose = (key) => {
    state.chosen = key; // at once: the rest follows from the kernel
    showChosen(parts, key);
    chart.setSelected(key);
    ask("select", key);
  };
  const chart = new GapTimeline(parts.canvas, {
    onSelect: choose,
    onZoom: (range) => ask("zoom", range),
    onLane: (lane) => ask("source", parts.source.value === lane ? "" : lane),
  });
  const scrolled = scroller(parts, state, ask);
  for (const [word, chip] of Object.entries(parts.states)) on(chip, "click", () => ask("state", word));
  for (const head of parts.heads) on(head, "click", () => ask("order", head.dataset.order));
  for (const side of ["before", "after"]) on(parts[side], "click", () => ask("jump", side));
  on(parts.source, "change", () => ask("source", parts.source.value));
  on(parts.everything, "click", () => ask("everything"));
  on(parts.dismiss, "click", () => ask("dismiss"));
  on(parts.narrower, "click", () => chart.zoomBy(0.4));
  on(parts.wider, "click", () => chart.zoomBy(2.5));
  on(parts.whole, "click", () => ask("zoom", null));
  on(parts.scroll, "scroll", scrolled);
  on(parts.rows, "click", (event) => {
    const line = event.target.closest("tr[data-key]");
    if (line) choose(line.dataset.key);
  });
  on(parts.root, "keydown", (event) => onGapKey(event, parts, chart, ask));
  const shows = {
    status: (status) => {
      showHead(parts, status.title, status);
      parts.time.hidden = !status.clock;
      parts.state.hidden = !status.label;
      put(parts.earlier, status.earlier);
      parts.counts.dataset.run = status.earlier ? "this" : "";
      chart.setPosition(status.position_ns);
    },
    filters: (filters) => showFilters(parts, filters),
    page: (page) => {
      state.page = page;
      state.asked = null;
      showPage(parts, page, state.chosen);
      scrolled();
    },
    timeline: (timeline) => showTimeline(parts, chart, timeline),
    selected: (gap) => {
      const key = gap.key ?? "";
      const another = key !== state.shown;
      state.shown = state.chosen = key;
      showChosen(parts, key);
      chart.setSelected(key, gap.mark);
      showSelected(parts, gap);
      if (another && gap.place >= 0) reveal(parts, gap.place);
    },
    around: (around) => showAround(parts, around),
    counts: (counts) => showCounts(parts.counts, counts),
    fault: (fault) => showFault(parts, fault),
  };
  return { shows, close: () => chart.close() };
}

export default { render: (context) => mount(context, buildInspector, startInspector) };
