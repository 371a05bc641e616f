// Figures in words: durations, numbers and the names that the daemon uses.

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const UNKNOWN = "not known";

const NAMES = {
  awaiting_settle: "waiting for LibreChat's last writes",
  awaiting_response: "questions without an answer yet",
  awaiting_finalise: "answers not finished yet",
  awaiting_approval: "tools that wait for approval",
  build_failed: "could not be built",
  unread_role: "left out: their user's role could not be read",
  unread_group: "left out: their user's groups could not be read",
  unread_tag: "left out: their conversation's tags could not be read",
  not_routed: "for none of the destinations",
  owed: "kept for a destination that is away",
  caught_up: "sent to a destination that was away",
};

export function nameOf(word) {
  return NAMES[word] ?? word.replaceAll("_", " ");
}

export function inNumbers(value) {
  if (value === null || value === undefined) return UNKNOWN;
  return value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });
}

function pair(value, large, small, size) {
  const whole = Math.floor(value / size);
  const rest = Math.floor((value % size) / (size === MINUTE ? 1 : size === HOUR ? MINUTE : HOUR));
  return rest ? `${whole} ${large} ${rest} ${small}` : `${whole} ${large}`;
}

export function inSeconds(value) {
  if (value === null || value === undefined) return UNKNOWN;
  if (value < 10) return `${value.toLocaleString("en", { maximumFractionDigits: 1 })} s`;
  const whole = Math.round(value);
  if (whole < MINUTE) return `${whole} s`;
  if (whole < HOUR) return pair(whole, "min", "s", MINUTE);
  if (whole < DAY) return pair(whole, "h", "min", HOUR);
  return pair(whole, "d", "h", DAY);
}

export function timeOfDay(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

export function inDollars(value, isEstimate) {
  if (value === null || value === undefined) return "cost unknown";
  const digits = value === 0 ? 0 : value < 1 ? 5 : 2;
  return `${isEstimate ? "~" : ""}$${value.toFixed(digits)}`;
}

export function inTokens(input, output, isEstimate) {
  if (input === null && output === null) return "tokens unknown";
  const mark = isEstimate ? "~" : "";
  const show = (count) => (count === null ? "?" : mark + count.toLocaleString("en"));
  return `${show(input)} in, ${show(output)} out`;
}

// Elements without any markup from data: texts become text nodes and nothing else.
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
