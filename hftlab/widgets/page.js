// What the views of all widgets share: elements, the box of errors, the table of events, and who is looking. Joined in
// front of a view's own file. Text is always put in as text. The kernel decides everything; a view knows no more than it
// was told.

const RENEW_MS = 2000;
const ICONS = {
  restart: "M3 3h2v10H3z M13 3v10L6 8z",
  play: "M4 2.5v11l9-5.5z",
  pause: "M4 3h3v10H4z M9 3h3v10H9z",
  step: "M3 3v10l7-5z M11 3h2v10h-2z",
};
const EVENT_HEADS = ["Received", "Event", "Symbol", "Price", "Size", "Side", "Bid", "Ask", "Detail"];
const EVENT_NUMBERS = [3, 4, 6, 7];

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

// Title, state and clock: the top line of a widget of a replay.
function headParts() {
  const parts = {
    title: make("span", { class: "hl-session" }),
    state: make("span", { class: "hl-state", role: "status" }),
    date: make("span", { class: "hl-date" }),
    clock: make("span", { class: "hl-time" }),
    fraction: make("span", { class: "hl-fraction" }),
  };
  parts.time = make("span", { class: "hl-clock" }, parts.date, parts.clock, parts.fraction,
    make("span", { class: "hl-zone" }, "UTC"));
  return parts;
}

function showHead(parts, title, status) {
  put(parts.title, title);
  put(parts.state, status.label);
  parts.root.dataset.state = status.state;
  put(parts.date, status.date);
  put(parts.clock, status.clock);
  put(parts.fraction, status.fraction);
}

function keysHelp(keys) {
  return make("details", { class: "hl-keys" }, make("summary", {}, "Keys"),
    make("div", {}, ...keys.flatMap(([key, what]) => [make("b", {}, key), make("span", {}, what)])));
}

function showCounts(element, counts) {
  const shown = JSON.stringify(counts);
  if (element.dataset.shown === shown) return;
  element.dataset.shown = shown;
  element.replaceChildren(...counts.map(([name, figure, kind]) =>
    make("span", { class: kind ? `hl-${kind}` : "" }, `${name} `, make("b", {}, figure))));
}

// Badges: kind, text, and what it means.
function badge([kind, text, title]) {
  return make("span", { class: "hl-badge", "data-kind": kind, title }, text);
}

function showBadges(element, badges) {
  const shown = JSON.stringify(badges);
  if (element.dataset.shown === shown) return;
  element.dataset.shown = shown;
  element.replaceChildren(...badges.map(badge));
}

// The box in which errors are shown until they are dismissed.
function faultParts() {
  const parts = {
    errorName: make("b"),
    errorText: make("span", { class: "hl-message" }),
    errorTrace: make("pre"),
    dismiss: make("button", { type: "button", class: "hl-dismiss", title: "Dismiss", "aria-label": "Dismiss" }, "×"),
  };
  parts.errorMore = make("details", {}, make("summary", {}, "Traceback"), parts.errorTrace);
  parts.error = make("div", { class: "hl-error", role: "alert", hidden: true }, parts.dismiss,
    make("div", {}, parts.errorName, " ", parts.errorText), parts.errorMore);
  return parts;
}

function showFault(parts, fault) {
  const none = !fault || !fault.name;
  parts.error.hidden = none;
  put(parts.errorName, none ? "" : fault.name);
  put(parts.errorText, none ? "" : fault.message);
  put(parts.errorTrace, none ? "" : fault.traceback);
  parts.errorMore.hidden = none || !fault.traceback;
}

// A table of events; `before` are heads of columns in front of the usual ones.
function eventTable(label, rows, before = []) {
  const usual = EVENT_HEADS.map((text, i) =>
    make("th", { scope: "col", class: `hl-c${i}${EVENT_NUMBERS.includes(i) ? " hl-n" : ""}` }, text));
  const first = before.map((text) => make("th", { scope: "col", class: "hl-first" }, text));
  return make("table", { class: "hl-events", "aria-label": label }, make("thead", {}, make("tr", {}, ...first, ...usual)), rows);
}

// One event into a line: texts of the columns, and last whether it was emitted. `before` columns stand in front.
function fillEvent(line, row, before = 0) {
  while (line.cells.length < row.length - 1) {
    const i = line.cells.length - before;
    const kind = i < 0 ? "hl-first" : `hl-c${i}${EVENT_NUMBERS.includes(i) ? " hl-n" : ""}`;
    line.append(make("td", { class: kind }));
  }
  line.dataset.event = row[before + 1];
  line.dataset.side = row[before + 5];
  line.dataset.origin = row[row.length - 1];
  for (let i = 0; i < row.length - 1; i += 1) put(line.cells[i], row[i]);
  // What may be cut off for want of room.
  for (const i of [before + 2, before + 8]) if (line.cells[i].title !== row[i]) line.cells[i].title = row[i];
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

// Puts a view on the page: `build` gives its parts, `start` (with the parts, and what asks the kernel) what shows each
// trait, and what ends it.
function mount({ model, el }, build, start) {
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
  const { shows, close } = start(parts, ask, aborter.signal);
  const listeners = Object.entries(shows).map(([name, show]) => [`change:${name}`, () => show(model.get(name))]);
  for (const [name, listener] of listeners) {
    listener();
    model.on(name, listener);
  }
  el.append(parts.root);
  const leave = attend(parts.root, ask, aborter.signal);
  return () => {
    leave();
    aborter.abort();
    close();
    for (const [name, listener] of listeners) model.off(name, listener);
  };
}
