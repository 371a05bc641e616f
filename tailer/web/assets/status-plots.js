// Plots of the last minutes, each with a table that says the same.

import { element, setText } from "./status-words.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 170;
const LEFT = 46;
const RIGHT = 10;
const TOP = 12;
const BOTTOM = 26;

function svg(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// The least 1, 2 or 5 times a power of ten that is not below a value.
function niceTop(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  const factor = [1, 2, 5, 10].find((candidate) => candidate * power >= value * 0.999);
  return factor * power;
}

function ago(seconds) {
  if (seconds < 1) return "now";
  return Math.round(seconds) < 60 ? `${Math.round(seconds)} s ago` : `${Math.round(seconds / 60)} min ago`;
}

// `series` are {name, key, unit}; `shape` is "lines" or "bars"; `show` turns a value into words.
export class Plot {
  constructor(figure, { title, series, shape, least, show, empty }) {
    Object.assign(this, { figure, title, series, shape, least, show, empty });
    this.caption = element("figcaption", {}, element("span", { class: "plot-title" }, title));
    this.readout = element("span", { class: "readout quiet" });
    if (series.length > 1) {
      const legend = element("span", { class: "legend" });
      series.forEach((one, index) => legend.append(this.key(one, index)));
      this.caption.append(legend);
    }
    this.caption.append(this.readout);
    this.canvas = svg("svg", { role: "img", class: "canvas", height: HEIGHT });
    this.nothing = element("p", { class: "nothing quiet" }, empty);
    this.table = element("details", { class: "table" }, element("summary", {}, "As a table"));
    this.body = element("tbody");
    const heads = ["Ended", ...series.map((one) => one.name)];
    this.table.append(
      element(
        "div",
        { class: "scroll", tabindex: "0", role: "region", "aria-label": `${title}, as a table` },
        element(
          "table",
          {},
          element("caption", { class: "unseen" }, title),
          element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
          this.body,
        ),
      ),
    );
    figure.append(this.caption, this.nothing, this.canvas, this.table);
    this.table.addEventListener("toggle", () => this.fillTable());
    this.canvas.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.canvas.addEventListener("pointerleave", () => this.point(null));
    new ResizeObserver(() => this.draw()).observe(figure);
  }

  key(one, index) {
    const line = svg("line", { x1: 1, x2: 21, y1: 6, y2: 6, class: `line series-${index}` });
    return element("span", { class: "key" }, svg("svg", { width: 22, height: 12, "aria-hidden": "true" }, line), one.name);
  }

  update(course) {
    this.course = course;
    this.draw();
    this.fillTable();
  }

  draw() {
    if (!this.course) return;
    const values = this.series.map((one) => this.course[one.key]);
    const known = values.flat().filter((value) => value !== null);
    this.nothing.hidden = known.length > 0;
    this.canvas.classList.toggle("gone", known.length === 0);
    if (known.length === 0) return;
    const width = Math.max(220, this.figure.clientWidth - 2);
    const top = niceTop(Math.max(this.least, ...known));
    this.scale = {
      width,
      steps: values[0].length,
      x: (index) => LEFT + ((width - LEFT - RIGHT) * index) / values[0].length,
      y: (value) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * value) / top,
    };
    this.canvas.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.canvas.setAttribute("width", width);
    this.canvas.setAttribute("aria-label", this.inWords(values));
    const shapes = this.shape === "bars" ? this.bars(values[0]) : values.flatMap((one, index) => this.line(one, index));
    this.cursor = svg("line", { y1: TOP, y2: HEIGHT - BOTTOM, class: "cursor gone" });
    this.canvas.replaceChildren(...this.axes(top), ...shapes, this.cursor);
  }

  axes(top) {
    const { x, y, width, steps } = this.scale;
    const drawn = [];
    for (const value of [0, top / 2, top]) {
      drawn.push(svg("line", { x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value), class: value ? "grid" : "axis" }));
      const label = svg("text", { x: LEFT - 6, y: y(value) + 4, class: "end" });
      label.textContent = this.show(value);
      drawn.push(label);
    }
    const span = this.course.span_seconds;
    for (const [share, side] of [[0, "start"], [0.4, "middle"], [0.8, "middle"], [1, "end"]]) {
      const at = x(steps * share);
      drawn.push(svg("line", { x1: at, x2: at, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM + 4, class: "axis" }));
      const label = svg("text", { x: at, y: HEIGHT - 6, class: side });
      label.textContent = ago(span * (1 - share));
      drawn.push(label);
    }
    return drawn;
  }

  bars(values) {
    const { x, y } = this.scale;
    const size = Math.max(1, x(1) - x(0) - 1.5);
    return values.flatMap((value, index) => {
      if (!value) return [];
      const high = Math.min(y(value), y(0) - 1);
      return [svg("rect", { x: x(index) + 0.75, y: high, width: size, height: y(0) - high, class: "bar" })];
    });
  }

  // One path for each stretch of known values: what is not known is a hole.
  line(values, number) {
    const { x, y } = this.scale;
    const paths = [];
    let path = "";
    const finish = () => {
      if (path) paths.push(svg("path", { d: path, class: `line series-${number}` }));
      path = "";
    };
    values.forEach((value, index) => {
      if (value === null) return finish();
      path += `${path ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}H${x(index + 1).toFixed(1)}`;
    });
    finish();
    return paths;
  }

  endOf(index) {
    return (this.course.span_seconds / this.scale.steps) * (this.scale.steps - 1 - index);
  }

  point(offset) {
    if (!this.scale || !this.cursor) return;
    const { x, width, steps } = this.scale;
    const index = offset === null ? -1 : Math.floor(((offset - LEFT) / (width - LEFT - RIGHT)) * steps);
    const inside = index >= 0 && index < steps;
    this.cursor.classList.toggle("gone", !inside);
    if (!inside) return setText(this.readout, "");
    const middle = (x(index) + x(index + 1)) / 2;
    this.cursor.setAttribute("x1", middle);
    this.cursor.setAttribute("x2", middle);
    const said = this.series.map((one) => {
      const value = this.course[one.key][index];
      const words = value === null ? "not known" : this.show(value);
      return this.series.length > 1 ? `${one.name} ${words}` : words;
    });
    return setText(this.readout, `${ago(this.endOf(index))}: ${said.join(", ")}`);
  }

  inWords(values) {
    const said = this.series.map((one, index) => {
      const known = values[index].filter((value) => value !== null);
      if (!known.length) return `${one.name} not known`;
      return `${one.name} ${this.show(known.at(-1))} now, at most ${this.show(Math.max(...known))}`;
    });
    return `${this.title}, last ${Math.round(this.course.span_seconds / 60)} minutes: ${said.join("; ")}. The table below has every value.`;
  }

  fillTable() {
    if (!this.table.open || !this.course) return;
    const columns = this.series.map((one) => this.course[one.key]);
    const step = this.course.step_seconds;
    const rows = columns[0].map((_, index) => {
      const cells = columns.map((column) => element("td", {}, column[index] === null ? "not known" : this.show(column[index])));
      return element("tr", {}, element("th", { scope: "row" }, ago((columns[0].length - 1 - index) * step)), ...cells);
    });
    this.body.replaceChildren(...rows.reverse());
  }
}
