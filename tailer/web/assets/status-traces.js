// The last traces as trees. A trace never changes once it is shown, so it is made once and keeps its focus and its folds.

import { element, inDollars, inSeconds, inTokens, nameOf, timeOfDay } from "./status-words.js";

const TEXTS = { status: "status", input: "input", output: "output" };

export class TraceList {
  constructor(list) {
    this.list = list;
    this.items = new Map();
  }

  update(traces) {
    const shown = new Set(traces.map((trace) => trace.id));
    for (const [id, item] of this.items) {
      if (!shown.has(id)) {
        item.remove();
        this.items.delete(id);
      }
    }
    const isFirst = this.items.size === 0;
    for (const trace of [...traces].reverse()) {
      if (this.items.has(trace.id)) continue;
      const item = makeItem(trace);
      this.items.set(trace.id, item);
      this.list.prepend(item);
    }
    if (isFirst && this.list.firstElementChild) this.list.firstElementChild.firstElementChild.open = true;
  }
}

function makeItem(trace) {
  const outcome = trace.outcome ?? "title";
  const title = trace.root.input ?? trace.root.output ?? trace.name;
  const facts = [
    trace.models.length ? trace.models.join(", ") : "model unknown",
    inTokens(trace.input_tokens, trace.output_tokens, trace.tokens_estimated),
    inDollars(trace.cost_usd, trace.cost_estimated),
    trace.duration_seconds === null ? null : inSeconds(trace.duration_seconds),
  ];
  const when = element("time", { datetime: new Date(trace.ended_at * 1000).toISOString() }, timeOfDay(trace.ended_at));
  const summary = element(
    "summary",
    {},
    element("span", { class: "trace-head" }, when, " ", element("span", { class: "outcome", "data-outcome": outcome }, outcome)),
    element("span", { class: "trace-title" }, title.replaceAll(/\s+/g, " ").slice(0, 140)),
    element("span", { class: "trace-facts quiet" }, facts.filter(Boolean).join(" · ")),
  );
  const body = element("div", { class: "trace-body" }, element("ul", { class: "tree" }, makeNode(trace.root)));
  if (trace.observations_left_out) {
    body.append(element("p", { class: "quiet" }, `${trace.observations_left_out} more observations are not shown here.`));
  }
  body.append(element("p", { class: "quiet id" }, "Trace id ", element("code", {}, trace.trace_id)));
  return element("li", {}, element("details", {}, summary, body));
}

function makeNode(observation) {
  const isCall = observation.type === "generation";
  const facts = [
    observation.model && observation.model !== observation.name ? observation.model : null,
    isCall ? inTokens(observation.input_tokens, observation.output_tokens, observation.tokens_estimated) : null,
    isCall ? inDollars(observation.cost_usd, observation.cost_estimated) : null,
    observation.duration_seconds === null ? null : inSeconds(observation.duration_seconds),
  ].filter(Boolean);
  const level = observation.level === "DEFAULT" ? null : element("span", { class: "level", "data-level": observation.level }, nameOf(observation.level.toLowerCase()));
  const line = element(
    "div",
    { class: "node" },
    element("span", { class: "type", "data-type": observation.type }, observation.type),
    element("span", { class: "node-name" }, observation.name),
    level,
    facts.length ? element("span", { class: "quiet" }, facts.join(" · ")) : null,
  );
  const node = element("li", {}, line);
  const texts = Object.entries(TEXTS).filter(([key]) => observation[key]);
  if (texts.length) {
    const list = element("dl", { class: "texts" });
    for (const [key, word] of texts) list.append(element("dt", {}, word), element("dd", {}, observation[key]));
    node.append(list);
  }
  if (observation.children.length) node.append(element("ul", {}, ...observation.children.map(makeNode)));
  return node;
}
