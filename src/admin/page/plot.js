// Plots as SVG: time on the horizontal axis, a value from zero on the vertical one.

import { clock } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 190;
// Most dots that are drawn.
export const MOST_DOTS = 2000;
const MARGIN = { left: 66, right: 14, top: 12, bottom: 26 };

function shape(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) {
    element.setAttribute(key, value);
  }
  if (text !== undefined) {
    element.textContent = text;
  }
  return element;
}

// Returns round values from 0 to at least `most`, at most six.
export function ticks(most) {
  const rough = most / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((value) => value >= rough * 0.999);
  const last = Math.ceil((most / step) * 0.999);
  return Array.from({ length: last + 1 }, (_, nth) => nth * step);
}

// Returns times of the day for the axis between two times in milliseconds, every `step` seconds.
export function timeTicks(from, to, width) {
  const wanted = Math.max(2, Math.floor(width / 90));
  const steps = [15, 30, 60, 120, 300];
  const step = (steps.find((one) => (to - from) / 1000 / one <= wanted) ?? 600) * 1000;
  const all = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
    all.push(at);
  }
  return { all, withSeconds: step < 60000 };
}

// Returns the path of one series. A point without values, or that is not joined, begins a new line;
// a line of one point is drawn as a short dash.
export function path(points, nth, x, y) {
  let text = "";
  let open = false;
  points.forEach((point, at) => {
    if (point.values === null) {
      open = false;
      return;
    }
    const next = points[at + 1];
    const alone = next === undefined || next.values === null || !next.joined;
    const [left, top] = [x(point.at).toFixed(1), y(point.values[nth]).toFixed(1)];
    if (open && point.joined) {
      text += `L${left} ${top}`;
    } else {
      text += `M${left} ${top}${alone ? "h1" : ""}`;
    }
    open = true;
  });
  return text;
}

// Returns the spans of time without values between `from` and `to`.
export function gaps(points, from, to, longest) {
  const spans = [];
  let end = from;
  for (const { at, joined, values } of points) {
    if (values === null) {
      continue;
    }
    if (at - end > longest || (!joined && at - end > 1500)) {
      spans.push([end, at]);
    }
    end = at;
  }
  if (to - end > longest) {
    spans.push([end, to]);
  }
  return spans;
}

// Returns at most `most` points: all, or the one with the highest value of each group of neighbours.
export function thinned(points, most) {
  const size = Math.ceil(points.length / most);
  if (size <= 1) {
    return points;
  }
  const kept = [];
  for (let at = 0; at < points.length; at += size) {
    const group = points.slice(at, at + size);
    kept.push(group.reduce((high, point) => (point.values[0] > high.values[0] ? point : high)));
  }
  return kept;
}

// A plot with its legend, its axes, and a readout for pointer and keyboard.
//
// `series` are the names of the values of each point. `dots` draws points instead of lines.
export class Plot {
  constructor(parent, { title, series, format, least, dots = false, empty }) {
    Object.assign(this, { title, series, format, least, dots, empty });
    this.points = [];
    this.lines = [];
    this.cursor = null;
    this.figure = document.createElement("figure");
    this.figure.className = "plot";
    const caption = document.createElement("figcaption");
    const name = document.createElement("strong");
    name.textContent = title;
    this.readout = document.createElement("span");
    this.readout.className = "readout";
    caption.append(name, this.readout);
    this.frame = document.createElement("div");
    this.frame.className = "frame";
    this.frame.tabIndex = 0;
    this.frame.setAttribute("role", "application");
    this.frame.setAttribute("aria-roledescription", "plot");
    this.frame.setAttribute("aria-label", `${title}. Left and right arrow keys read the values.`);
    this.svg = shape("svg", { height: HEIGHT, "aria-hidden": "true" });
    this.frame.append(this.svg);
    this.figure.append(caption, this.frame);
    parent.append(this.figure);
    this.listen();
  }

  listen() {
    this.frame.addEventListener("pointermove", (event) => {
      const left = event.clientX - this.svg.getBoundingClientRect().left;
      this.move(this.nearest(left), false);
    });
    this.frame.addEventListener("pointerleave", () => this.move(null, false));
    this.frame.addEventListener("blur", () => this.move(null, false));
    this.frame.addEventListener("keydown", (event) => this.press(event));
    new ResizeObserver(() => this.draw()).observe(this.frame);
  }

  press(event) {
    const shown = this.visible();
    if (event.altKey || event.ctrlKey || event.metaKey) {
      return;
    }
    if (event.key === "Escape" && this.cursor !== null) {
      event.preventDefault();
      this.move(null, true);
      return;
    }
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined || shown.length === 0) {
      return;
    }
    event.preventDefault();
    const now = shown.findIndex((point) => point.at === this.cursor);
    const begin = now < 0 ? shown.length : now;
    const next = Math.min(shown.length - 1, Math.max(0, begin + step));
    this.move(shown[next].at, true);
  }

  // Sets the time of the readout; by keyboard, screen readers speak it.
  move(at, spoken) {
    this.cursor = at;
    this.readout.setAttribute("aria-live", spoken ? "polite" : "off");
    this.draw();
  }

  visible() {
    return this.points.filter((point) => point.values !== null && point.at >= this.from);
  }

  nearest(left) {
    let [found, distance] = [null, Infinity];
    for (const point of this.visible()) {
      const away = Math.abs(this.x(point.at) - left);
      if (away <= distance) {
        [found, distance] = [point.at, away];
      }
    }
    return found;
  }

  // Sets the values. `lines` are horizontal lines with a label.
  update({ points, from, to, longest, lines = [] }) {
    Object.assign(this, { points, from, to, longest, lines });
    this.readout.setAttribute("aria-live", "off"); // Only a key speaks, not each second.
    if (this.cursor !== null && this.cursor < from) {
      this.cursor = null;
    }
    this.draw();
  }

  x(at) {
    const width = this.width - MARGIN.left - MARGIN.right;
    return MARGIN.left + ((at - this.from) / (this.to - this.from)) * width;
  }

  draw() {
    this.width = this.frame.clientWidth;
    if (this.from === undefined || this.width < 100) {
      return;
    }
    const shown = this.visible();
    const values = [...shown.flatMap((point) => point.values), ...this.lines.map((line) => line.value)];
    const marks = ticks(values.reduce((most, value) => Math.max(most, value), this.least));
    const top = marks[marks.length - 1];
    const bottom = HEIGHT - MARGIN.bottom;
    const y = (value) => bottom - (value / top) * (bottom - MARGIN.top);
    const x = (at) => this.x(at);
    const parts = [];
    if (this.longest !== undefined) {
      for (const [begin, end] of gaps(shown, this.from, this.to, this.longest)) {
        const left = x(begin);
        parts.push(shape("rect", {
          class: "gap", x: left, y: MARGIN.top, width: Math.max(0, x(end) - left), height: bottom - MARGIN.top,
        }));
        if (x(end) - left > 90 && shown.length > 0) {
          const middle = (left + x(end)) / 2;
          parts.push(shape("text", { class: "empty", x: middle, y: HEIGHT / 2 }, "no readings"));
        }
      }
    }
    this.axes(parts, marks, bottom, y);
    this.lines.forEach((line, nth) => {
      const at = y(line.value);
      parts.push(shape("line", {
        class: `level level${nth}`, x1: MARGIN.left, x2: this.width - MARGIN.right, y1: at, y2: at,
      }));
    });
    if (this.dots) {
      for (const point of thinned(shown, MOST_DOTS)) {
        parts.push(shape("circle", { class: "dot", cx: x(point.at), cy: y(point.values[0]), r: 2.5 }));
      }
    } else {
      this.series.forEach((_, nth) => {
        parts.push(shape("path", { class: `series series${nth}`, d: path(shown, nth, x, y) }));
      });
    }
    if (shown.length === 0) {
      const middle = (this.width + MARGIN.left) / 2;
      parts.push(shape("text", { class: "empty", x: middle, y: HEIGHT / 2 }, this.empty));
    }
    this.mark(parts, shown, { x, y, bottom });
    this.svg.setAttribute("width", this.width);
    this.svg.replaceChildren(...parts);
  }

  axes(parts, marks, bottom, y) {
    const right = this.width - MARGIN.right;
    for (const mark of marks) {
      const at = y(mark);
      parts.push(shape("line", { class: "grid", x1: MARGIN.left, x2: right, y1: at, y2: at }));
      parts.push(shape("text", { class: "left", x: MARGIN.left - 8, y: at + 4 }, this.format(mark)));
    }
    const times = timeTicks(this.from, this.to, this.width - MARGIN.left - MARGIN.right);
    for (const time of times.all) {
      const at = this.x(time);
      parts.push(shape("line", { class: "tick", x1: at, x2: at, y1: bottom, y2: bottom + 4 }));
      if (at - MARGIN.left > 14 && right - at > 14) {
        parts.push(shape("text", { class: "below", x: at, y: HEIGHT - 8 }, clock(time, times.withSeconds)));
      }
    }
  }

  // Draws the cursor, and writes the values at it or the last ones.
  mark(parts, shown, { x, y, bottom }) {
    const chosen = shown.find((point) => point.at === this.cursor);
    const point = chosen ?? (this.dots ? undefined : shown[shown.length - 1]);
    const words = [];
    const push = (className, label, value) => {
      const key = document.createElement("span");
      key.className = `key ${className}`;
      const text = document.createElement("span");
      text.textContent = `${label} ${value}`;
      words.push(key, text);
    };
    if (chosen !== undefined) {
      const at = x(chosen.at);
      parts.push(shape("line", { class: "cursor", x1: at, x2: at, y1: MARGIN.top, y2: bottom }));
      chosen.values.forEach((value, nth) => {
        parts.push(shape("circle", { class: `mark series${nth}`, cx: at, cy: y(value), r: 4 }));
      });
      const time = document.createElement("time");
      time.textContent = clock(chosen.at);
      words.push(time);
    }
    this.series.forEach((label, nth) => {
      const value = point === undefined ? "" : this.format(point.values[nth]);
      push(`series${nth}${this.dots ? " dots" : ""}`, chosen?.label ?? label, value);
    });
    this.lines.forEach((line, nth) => push(`level${nth}`, line.label, this.format(line.value)));
    this.readout.replaceChildren(...words);
  }
}
