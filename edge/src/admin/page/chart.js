// Ten minutes of throughput: the LAN as a line over a light area, the WAN as a solid area under its line. What lies between them is what was saved.

import { element, shape, setAttribute } from "./dom.js";
import { moment, rate } from "./format.js";

const SPAN_MS = 600_000;
// Samples further apart than this are not joined: nothing is known between them.
const GAP_MS = 12_000;
const MARGIN = { top: 10, right: 10, bottom: 24, left: 78 };
const LINES = 4;

// A point of the curve is at least so wide.
const PIXELS = 2.5;

// The lowest scale, in bytes a second: below it there is only noise.
const FLOOR = 1_000 / 8;

// The round number of bits, in bytes, that is the step between lines of the grid.
function step(peak) {
  const wanted = (Math.max(peak, FLOOR) * 8) / LINES;
  const power = 10 ** Math.floor(Math.log10(wanted));
  const factor = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= wanted);
  return (factor * power) / 8;
}

export class Chart {
  constructor(container) {
    this.container = container;
    this.samples = [];
    this.svg = shape("svg", { "aria-hidden": "true", focusable: "false" });
    this.grid = shape("g", { class: "grid" });
    this.lanArea = shape("path", { class: "lan-area" });
    this.lanLine = shape("path", { class: "lan-line" });
    this.wanArea = shape("path", { class: "wan-area" });
    this.wanLine = shape("path", { class: "wan-line" });
    this.cursor = shape("line", { class: "cursor", visibility: "hidden" });
    this.svg.append(this.grid, this.lanArea, this.lanLine, this.wanArea, this.wanLine, this.cursor);
    this.empty = element("p", { class: "chart-empty" }, "The first figures come within a second.");
    this.tip = element("div", { class: "tip", hidden: "" });
    container.append(this.svg, this.empty, this.tip);
    new ResizeObserver(() => this.draw()).observe(container);
    container.addEventListener("pointermove", (event) => this.point(event));
    container.addEventListener("pointerleave", () => this.point(null));
  }

  // `samples` are [time in ms, LAN, WAN] in bytes a second, the oldest first; `now` is the edge's clock in ms.
  show(samples, now) {
    this.samples = samples;
    this.now = now;
    this.draw();
  }

  draw() {
    const width = this.container.clientWidth;
    const height = this.container.clientHeight;
    if (!width || !height || !this.now) return;
    const start = this.now - SPAN_MS;
    const shown = means(this.samples.filter(([time]) => time >= start - 2_000), Math.max(width - MARGIN.left - MARGIN.right, 1));
    this.empty.hidden = shown.length > 0;
    const peak = shown.reduce((peak, [, lan, wan]) => Math.max(peak, lan, wan), 0);
    const every = step(peak);
    const top = every * Math.max(1, Math.ceil(Math.max(peak, FLOOR) / every));
    const inner = { width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom };
    const x = (time) => MARGIN.left + ((time - start) / SPAN_MS) * inner.width;
    const y = (value) => MARGIN.top + inner.height - (value / top) * inner.height;
    this.scale = { x, start, inner, shown };
    setAttribute(this.svg, "viewBox", `0 0 ${width} ${height}`);
    this.drawGrid(x, y, every, top, inner, width);
    const runs = split(shown.map(([time, ...values]) => [Math.max(time, start), ...values]));
    const line = (run, index) => run.map((s, i) => `${i ? "L" : "M"}${x(s[0]).toFixed(1)} ${y(s[index]).toFixed(1)}`).join("");
    const area = (run, index) => `${line(run, index)}L${x(run.at(-1)[0]).toFixed(1)} ${y(0)}L${x(run[0][0]).toFixed(1)} ${y(0)}Z`;
    setAttribute(this.lanLine, "d", runs.map((run) => line(run, 1)).join(""));
    setAttribute(this.lanArea, "d", runs.map((run) => area(run, 1)).join(""));
    setAttribute(this.wanLine, "d", runs.map((run) => line(run, 2)).join(""));
    setAttribute(this.wanArea, "d", runs.map((run) => area(run, 2)).join(""));
  }

  drawGrid(x, y, every, top, inner, width) {
    const marks = [];
    for (let value = 0; value <= top * 1.001; value += every) {
      const at = Math.round(y(value)) + 0.5;
      marks.push(shape("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at, class: value ? "rule" : "base" }));
      marks.push(shape("text", { x: MARGIN.left - 8, y: at + 4, class: "y-label" }, value ? rate(value) : "0"));
    }
    const minutes = inner.width < 420 ? 5 : 2;
    for (let ago = 10; ago >= 0; ago -= minutes) {
      const at = x(this.now - ago * 60_000);
      const side = ago === 10 ? "start" : ago === 0 ? "end" : "middle";
      marks.push(shape("text", { x: at, y: MARGIN.top + inner.height + 18, "text-anchor": side }, ago ? `−${ago} min` : "now"));
    }
    this.grid.replaceChildren(...marks);
  }

  // The figures under the pointer.
  point(event) {
    const scale = this.scale;
    const hide = !event || !scale || scale.shown.length === 0;
    this.tip.hidden = hide;
    setAttribute(this.cursor, "visibility", hide ? "hidden" : "visible");
    if (hide) return;
    const box = this.container.getBoundingClientRect();
    const at = scale.start + ((event.clientX - box.left - MARGIN.left) / scale.inner.width) * SPAN_MS;
    const near = scale.shown.reduce((best, sample) => (Math.abs(sample[0] - at) < Math.abs(best[0] - at) ? sample : best));
    const x = scale.x(Math.max(near[0], scale.start));
    for (const [name, value] of [["x1", x], ["x2", x], ["y1", MARGIN.top], ["y2", MARGIN.top + scale.inner.height]]) {
      setAttribute(this.cursor, name, value);
    }
    this.tip.replaceChildren(
      element("strong", {}, moment(near[0])),
      element("span", { class: "key-lan" }, element("span", { class: "key" }), `LAN ${rate(near[1])}`),
      element("span", { class: "key-wan" }, element("span", { class: "key" }), `WAN ${rate(near[2])}`),
    );
    const left = Math.min(Math.max(0, x - this.tip.offsetWidth / 2), box.width - this.tip.offsetWidth);
    this.tip.style.transform = `translate(${left}px, 0)`;
  }
}

// Means over as many seconds as a few pixels are wide. They are cut at fixed times, so that the curve moves and does not change its form.
function means(samples, width) {
  const every = Math.max(1, Math.ceil((PIXELS * SPAN_MS) / width / 1_000)) * 1_000;
  if (every === 1_000) return samples;
  const sums = [];
  for (const [time, lan, wan] of samples) {
    const bucket = Math.floor(time / every);
    let sum = sums.at(-1);
    if (sum?.bucket !== bucket) sums.push((sum = { bucket, count: 0, time: 0, lan: 0, wan: 0 }));
    sum.count += 1;
    sum.time = time;
    sum.lan += lan;
    sum.wan += wan;
  }
  return sums.map(({ count, time, lan, wan }) => [time, lan / count, wan / count]);
}

// Runs of samples without a gap between them.
function split(samples) {
  const runs = [];
  let before = -Infinity;
  for (const sample of samples) {
    if (sample[0] - before > GAP_MS) runs.push([]);
    runs.at(-1).push(sample);
    before = sample[0];
  }
  return runs;
}
