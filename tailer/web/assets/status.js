// Asks for status.json again and again and shows what it says. Nothing is sent anywhere else.

import { Plot } from "./status-plots.js";
import { TraceList } from "./status-traces.js";
import { element, inNumbers, inSeconds, nameOf, setText, timeOfDay } from "./status-words.js";

const EVERY_MILLISECONDS = 2000;
const PATIENCE_MILLISECONDS = 5000;

const find = (id) => document.getElementById(id);
const perMinute = (value) => (value === null ? "not known" : `${inNumbers(value)} /min`);

const plots = [
  new Plot(find("lag"), {
    title: "Lag",
    series: [
      { name: "reading", key: "read_lag_seconds" },
      { name: "sending", key: "export_lag_seconds" },
    ],
    shape: "lines",
    least: 5,
    show: inSeconds,
    empty: "No lag is known yet: no stream is being read.",
  }),
  new Plot(find("traces-rate"), {
    title: "Traces acknowledged per minute",
    series: [{ name: "traces per minute", key: "traces_per_minute" }],
    shape: "bars",
    least: 5,
    show: inNumbers,
    empty: "Nothing is known yet: a rate needs two looks, five seconds apart.",
  }),
  new Plot(find("events-rate"), {
    title: "Changes read per minute",
    series: [{ name: "changes per minute", key: "events_per_minute" }],
    shape: "bars",
    least: 5,
    show: inNumbers,
    empty: "Nothing is known yet: a rate needs two looks, five seconds apart.",
  }),
];
const traceList = new TraceList(find("traces-list"));

const sum = (counts) => Object.values(counts).reduce((total, count) => total + count, 0);
// A step that has just begun has no sample yet.
const latest = (values) => values.slice(-3).findLast((value) => value !== null) ?? null;

// What is late by more than this is marked; the daemon's own judgement stands under "Needs attention".
const isLate = (seconds) => seconds !== null && seconds > 60;

function tilesOf(report) {
  const letters = report.dead_letters.kept ?? sum(report.dead_letters.since_start);
  const headroom = report.oplog.headroom_seconds;
  return [
    ["Read lag", inSeconds(report.lag.read_seconds), "change events not read yet", isLate(report.lag.read_seconds)],
    ["Export lag", inSeconds(report.lag.export_seconds), "oldest turn not acknowledged", isLate(report.lag.export_seconds)],
    ["Throughput", perMinute(latest(report.course.traces_per_minute)), `${inNumbers(report.traces_total)} traces since start`, false],
    ["Open turns", Object.keys(report.open_turns).length ? inNumbers(sum(report.open_turns)) : "not known", `oldest ${inSeconds(report.oldest_open_seconds)}`, false],
    ["Dead letters", inNumbers(letters), report.dead_letters.kept === null ? "since start" : "kept", letters > 0],
    ["Checkpoint", inSeconds(report.checkpoint_age_seconds), "since the position was stored", isLate(report.checkpoint_age_seconds)],
    ["Oplog headroom", inSeconds(headroom), headroom === null ? "MongoDB does not say" : `of ${inSeconds(Math.max(headroom, report.oplog.window_seconds))} that MongoDB keeps`, false],
  ];
}

// Rows are filled in place: nothing jumps, and a screen reader keeps its place.
function showTiles(tiles) {
  const list = find("tiles");
  tiles.forEach(([name, value, note, isBad], index) => {
    if (!list.children[index]) {
      list.append(element("div", { class: "tile" }, element("dt", {}, name), element("dd", { class: "value" }), element("dd", { class: "quiet" })));
    }
    const [, shown, below] = list.children[index].children;
    setText(shown, value);
    setText(below, note);
    shown.classList.toggle("unknown", value.startsWith("not known"));
    list.children[index].classList.toggle("bad", isBad);
  });
}

function showTable(place, label, heads, rows, nothing) {
  if (!rows.length) {
    if (place.firstElementChild?.tagName !== "P") place.replaceChildren(element("p", { class: "quiet" }));
    return setText(place.firstElementChild, nothing);
  }
  if (place.firstElementChild?.tagName !== "TABLE") {
    const head = element("tr", {}, ...heads.map((text, index) => element("th", { scope: "col", class: index ? "number" : null }, text)));
    place.replaceChildren(element("table", { "aria-label": label }, element("thead", {}, head), element("tbody")));
  }
  const body = place.firstElementChild.tBodies[0];
  while (body.rows.length > rows.length) body.lastElementChild.remove();
  rows.forEach((cells, index) => {
    if (!body.rows[index]) {
      body.append(element("tr", {}, ...cells.map((_, column) => element(column ? "td" : "th", column ? { class: "number" } : { scope: "row" }))));
    }
    cells.forEach((text, column) => setText(body.rows[index].cells[column], text));
  });
  return undefined;
}

function showList(list, lines) {
  while (list.children.length > lines.length) list.lastElementChild.remove();
  lines.forEach((line, index) => {
    if (!list.children[index]) list.append(element("li"));
    setText(list.children[index], line);
  });
}

const counted = (counts) => Object.entries(counts).map(([name, count]) => [nameOf(name), inNumbers(count)]);

// What a destination does with what is sent to it.
function stateOf(one) {
  if (one.refuses) return "refuses the keys";
  if (one.away === null) return "not known";
  return one.away ? "accepts nothing" : "accepts";
}

function show(report) {
  setText(find("version"), report.version);
  setText(find("state"), report.state);
  find("state").dataset.tone = report.tone;
  setText(find("sentence"), report.sentence);
  setText(find("as-of"), `As of ${timeOfDay(report.now)}, running for ${inSeconds(report.uptime_seconds)}`);
  document.title = `${report.state}${report.attention.length ? " (!)" : ""} – librechat-tailer`;
  find("attention").hidden = report.attention.length === 0;
  find("attention").dataset.tone = report.tone;
  showList(find("attention-list"), report.attention);
  showTiles(tilesOf(report));
  for (const plot of plots) plot.update(report.course);
  const open = counted(report.open_turns);
  showTable(find("open"), "Open turns by kind", ["waiting for", "turns"], open, "Not known: no stream is being read.");
  showTable(find("turns"), "Turns since start by outcome", ["outcome", "turns"], counted(report.turns), "None yet.");
  const errors = report.errors.map((one) => [`${nameOf(one.kind)} (${one.level})`, inNumbers(one.count), `${inSeconds(Math.max(0, report.now - one.last_at))} ago`]);
  showTable(find("errors"), "Warnings and errors by kind", ["kind", "times", "last"], errors, "None.");
  const streams = Object.entries(report.streams).map(([name, one]) => [
    name,
    one.connected === null ? "not known" : one.connected ? "answers" : "does not answer",
    inSeconds(one.lag_seconds),
    one.checkpoint_age_seconds === null ? "not yet" : `${inSeconds(one.checkpoint_age_seconds)} ago`,
  ]);
  showTable(find("streams"), "Streams", ["collection", "state", "lag", "stored"], streams, "No stream is being read.");
  const destinations = Object.entries(report.destinations);
  // With one destination the figures above say the same.
  find("destinations-section").hidden = destinations.length < 2;
  showTable(
    find("destinations"),
    "Destinations",
    ["destination", "state", "lag", "kept", "traces"],
    destinations.map(([name, one]) => [
      name,
      stateOf(one),
      inSeconds(one.lag_seconds),
      one.owed === null ? "not known" : inNumbers(one.owed),
      one.traces_total === null ? "not known" : inNumbers(one.traces_total),
    ]),
    "Nothing is being sent.",
  );
  find("traces").hidden = report.traces_shown === "none";
  setText(
    find("traces-note"),
    report.traces.length
      ? "Newest first. Times inside a turn are shown only where LibreChat stores them. ~ marks an estimate."
      : "No trace has been acknowledged yet. Ask something in LibreChat.",
  );
  traceList.update(report.traces);
}

let announced = null;

// Said to screen readers when the state changes, and not with every look.
function announce(text) {
  if (text !== announced) {
    announced = text;
    setText(find("announcement"), text);
  }
}

let lastAnswer = null;
let isPaused = false;

function hear(report) {
  lastAnswer = Date.now() / 1000;
  find("silent").hidden = true;
  document.body.classList.remove("is-silent");
  show(report);
  announce(`${report.state}: ${report.sentence}`);
}

function missAnswer() {
  const since = lastAnswer === null ? "" : ` since ${timeOfDay(lastAnswer)}; what is shown is from then`;
  const text = `The daemon does not answer${since}. Trying again every ${EVERY_MILLISECONDS / 1000} seconds.`;
  setText(find("silent"), text);
  find("silent").hidden = false;
  document.body.classList.add("is-silent");
  setText(find("state"), "no answer");
  find("state").dataset.tone = "bad";
  setText(find("sentence"), "");
  document.title = "no answer – librechat-tailer";
  announce(text);
}

async function look() {
  try {
    const answer = await fetch("status.json", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MILLISECONDS) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    hear(await answer.json());
  } catch {
    missAnswer();
  }
}

async function watch() {
  for (;;) {
    if (!isPaused && !document.hidden) await look();
    await new Promise((done) => {
      setTimeout(done, EVERY_MILLISECONDS);
    });
  }
}

find("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  find("pause").setAttribute("aria-pressed", String(isPaused));
  document.body.classList.toggle("is-paused", isPaused);
  if (!isPaused) look();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !isPaused) look();
});
setText(find("state"), "loading");
watch();
