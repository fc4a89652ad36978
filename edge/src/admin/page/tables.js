// Services, events, and the throughput by minute.

import { byId, element, keyed, setAttribute, setFigure, setText } from "./dom.js";
import * as format from "./format.js";
import { both, why } from "./panels.js";

// Rows that are shown before somebody asks for all, and from how many services on there is something to filter.
const ROWS = 25;
const FILTER_FROM = 13;
const EVENTS = 12;

const lan = (service) => service.lan_bytes_to_wan + service.lan_bytes_from_wan;
const wan = (service) => service.wan_bytes_to_wan + service.wan_bytes_from_wan;
const ratio = (service) => (wan(service) > 0 ? lan(service) / wan(service) : null);

// Name, class, value to sort by, text.
const COLUMNS = [
  ["Service", "name", (service) => service.name, null],
  ["Open", "number", (service) => service.open, format.count],
  ["Total", "number extra", (service) => service.total, format.count],
  ["LAN", "number", lan, format.bytes],
  ["WAN", "number", wan, format.bytes],
  ["Ratio", "number", ratio, format.ratio],
];

export class Services {
  constructor() {
    this.all = false;
    this.sort = { column: 3, down: true };
    this.status = null;
    this.buttons = COLUMNS.map(([name], index) => {
      // Beside the name where the column ends, so that names stand above their figures.
      const arrow = element("span", { class: "arrow", "aria-hidden": "true" });
      const button = element("button", { type: "button" }, ...(index > 0 ? [arrow, name] : [name, arrow]));
      button.addEventListener("click", () => this.sortBy(index));
      return button;
    });
    this.heads = COLUMNS.map(([, kind], index) => element("th", { role: "columnheader", scope: "col", class: kind }, this.buttons[index]));
    byId("services").tHead.append(element("tr", { role: "row" }, ...this.heads, element("th", { role: "columnheader", scope: "col", class: "why" }, "Why")));
    byId("services-filter").addEventListener("input", () => this.draw());
    byId("services-more").addEventListener("click", () => {
      this.all = !this.all;
      this.draw();
    });
  }

  sortBy(column) {
    const down = this.sort.column === column ? !this.sort.down : column > 0;
    this.sort = { column, down };
    this.draw();
  }

  show(status) {
    this.status = status;
    this.draw();
  }

  draw() {
    if (!this.status) return;
    const services = this.status.services;
    const tools = byId("services-tools");
    tools.hidden = services.length < FILTER_FROM;
    const wanted = tools.hidden ? "" : byId("services-filter").value.trim().toLowerCase();
    const found = services.filter((service) => !wanted || `${service.name} ${service.kind} ${service.bind}`.toLowerCase().includes(wanted));
    const [, , value] = COLUMNS[this.sort.column];
    const order = this.sort.down ? -1 : 1;
    found.sort((a, b) => order * compare(value(a), value(b)) || compare(a.name, b.name));
    const shown = this.all ? found : found.slice(0, ROWS);
    keyed(byId("services").tBodies[0], shown, (service) => service.name, makeRow, updateRow);
    this.heads.forEach((head, index) => {
      setAttribute(head, "aria-sort", index === this.sort.column ? (this.sort.down ? "descending" : "ascending") : null);
    });
    setText(byId("services-count"), services.length > 0 ? format.count(services.length) : "");
    const empty = byId("services-empty");
    empty.hidden = found.length > 0;
    setText(empty, services.length > 0 ? "No service has that in its name." : this.status.edge === "server" ? "No client has opened a stream yet." : "There is no [[listen]] section, so there is nothing to connect to.");
    byId("services").hidden = found.length === 0;
    const more = byId("services-more");
    more.hidden = found.length <= ROWS;
    setText(more, this.all ? `Show the first ${ROWS} only` : `Show all ${format.count(found.length)}`);
  }
}

function compare(a, b) {
  if (a === b) return 0;
  if (a === null) return -1;
  if (b === null) return 1;
  return a < b ? -1 : 1;
}

function makeRow() {
  const name = element("span", { class: "service-name" });
  const place = element("span", { class: "place" });
  // On a phone a row is laid out as a block, which must not cost it what it is.
  const cells = COLUMNS.slice(1).map(([label, kind]) => element("td", { role: "cell", class: kind, "data-label": label }, element("data")));
  const bar = element("td", { role: "cell", class: "why" });
  const row = element("tr", { role: "row" }, element("th", { role: "rowheader", scope: "row", class: "name" }, name, place), ...cells, bar);
  row.parts = { name, place, figures: cells.map((cell) => cell.firstElementChild), bar };
  return row;
}

function updateRow(row, service) {
  const { name, place, figures, bar } = row.parts;
  setAttribute(row, "data-service", service.name);
  setText(name, service.name);
  setText(place, service.bind ? `${service.kind}, ${service.bind}` : "of the other edge");
  COLUMNS.slice(1).forEach(([, , value, text], index) => setFigure(figures[index], value(service), text(value(service))));
  why(bar, both(service));
}

const SEVERITIES = { good: "good", info: "note", warning: "warning", error: "error" };

export class Events {
  constructor() {
    this.known = new Map();
    this.all = false;
    byId("events-more").addEventListener("click", () => {
      this.all = !this.all;
      this.draw();
    });
  }

  replace(events) {
    this.known = new Map(events.map((event) => [event.id, event]));
    this.draw();
  }

  add(event) {
    this.known.set(event.id, event);
    // As many as an edge keeps.
    if (this.known.size > 200) this.known.delete(this.known.keys().next().value);
    this.draw();
  }

  draw() {
    const events = [...this.known.values()].sort((a, b) => b.time_ms - a.time_ms || b.id - a.id);
    byId("events-empty").hidden = events.length > 0;
    keyed(byId("events"), this.all ? events : events.slice(0, EVENTS), (event) => event.id, makeEvent, updateEvent);
    const more = byId("events-more");
    more.hidden = events.length <= EVENTS;
    setText(more, this.all ? `Show the newest ${EVENTS} only` : `Show all ${events.length}`);
  }
}

function makeEvent() {
  const parts = {
    time: element("time", {}),
    severity: element("span", { class: "severity-text" }),
    text: element("span", { class: "event-text" }),
    subject: element("span", { class: "subject" }),
    times: element("span", { class: "times" }),
    detail: element("span", { class: "detail" }),
  };
  const item = element(
    "li",
    {},
    parts.time,
    element("span", { class: "severity" }, element("span", { class: "mark", "aria-hidden": "true" }), parts.severity),
    element("p", {}, parts.text, " ", parts.subject, " ", parts.times, " ", parts.detail),
  );
  item.parts = parts;
  return item;
}

function updateEvent(item, event) {
  const { time, severity, text, subject, times, detail } = item.parts;
  setAttribute(item, "data-kind", event.kind);
  setAttribute(item, "data-severity", event.severity);
  setAttribute(time, "datetime", new Date(event.time_ms).toISOString());
  setText(time, format.moment(event.time_ms));
  setText(severity, SEVERITIES[event.severity] ?? event.severity);
  setText(text, event.text);
  setText(subject, event.subject);
  setText(times, event.count > 1 ? `${format.count(event.count)} times` : "");
  setText(detail, event.detail);
}

// Means by minute, the newest first: what the chart shows, for those who do not see it.
export function minutes(samples, now) {
  const body = byId("minutes").tBodies[0];
  const rows = [];
  for (let ago = 0; ago < 10; ago += 1) {
    const within = samples.filter(([time]) => time <= now - ago * 60_000 && time > now - (ago + 1) * 60_000);
    if (within.length === 0) continue;
    const mean = (index) => within.reduce((sum, sample) => sum + sample[index], 0) / within.length;
    rows.push({ ago, lan: mean(1), wan: mean(2) });
  }
  const make = () => element("tr", {}, element("th", { scope: "row" }), element("td", { class: "number" }), element("td", { class: "number" }));
  keyed(body, rows, (row) => row.ago, make, (row, { ago, lan, wan }) => {
    setText(row.children[0], ago === 0 ? "the last minute" : `${ago} to ${ago + 1} minutes ago`);
    setText(row.children[1], format.rate(lan));
    setText(row.children[2], format.rate(wan));
  });
}
