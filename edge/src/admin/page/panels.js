// What stands above the tables: savings, tunnels with their links, history and load.

import { byId, element, keyed, setAttribute, setFigure, setText } from "./dom.js";
import * as format from "./format.js";

const KINDS = [
  ["copied", "seen before"],
  ["compressed", "new"],
  ["raw", "already small or encrypted"],
];

// A bar of how bytes travelled, with the same as text. `long` explains the words.
export function why(container, codec, long = false) {
  const total = codec.copied + codec.compressed + codec.raw;
  if (!container.bar) {
    container.bar = element("div", { class: "bar", "aria-hidden": "true" });
    container.legend = element(long ? "ul" : "p", { class: long ? "legend" : "legend short" });
    container.parts = KINDS.map(([kind, meaning]) => {
      const segment = element("span", { class: `segment ${kind}` });
      const figure = element("data", { "data-kind": kind });
      const share = element("span", { class: "share" });
      const name = element("span", { class: "kind" }, element("span", { class: `swatch ${kind}`, "aria-hidden": "true" }), kind);
      const part = element(long ? "li" : "span", { class: "part" }, name, " ", share, long ? " " : "", figure);
      if (long) part.append(element("span", { class: "meaning" }, meaning));
      container.bar.append(segment);
      container.legend.append(part, long ? "" : " ");
      return { kind, segment, figure, share, part };
    });
    container.append(container.bar, container.legend);
  }
  for (const { kind, segment, figure, share, part } of container.parts) {
    const fraction = total ? codec[kind] / total : 0;
    segment.hidden = fraction === 0;
    segment.style.flexGrow = fraction;
    part.hidden = !long && fraction === 0;
    setText(share, total ? format.percent(fraction) : "–");
    setFigure(figure, codec[kind], long ? format.bytes(codec[kind]) : "");
  }
  setAttribute(container, "data-empty", total ? null : "");
}

// What was sent and what was received, by how it travelled.
export function both({ codec: sent, codec_received: received }) {
  const sum = (kind) => sent[kind] + (received?.[kind] ?? 0);
  return { copied: sum("copied"), compressed: sum("compressed"), raw: sum("raw") };
}

export function savings(status) {
  const { lan_bytes: lan, wan_bytes: wan, ratio } = status.savings;
  setFigure(byId("ratio"), ratio, format.ratio(ratio));
  setFigure(byId("lan-bytes"), lan, format.bytes(lan));
  setFigure(byId("wan-bytes"), wan, format.bytes(wan));
  const saved = lan - wan;
  const text =
    lan + wan === 0
      ? "Nothing has been carried yet."
      : saved > 0
        ? `${format.bytes(saved)} did not have to travel: ${format.percent(saved / lan)} of all.`
        : "So far the tunnel itself has cost more than it has saved.";
  setText(byId("savings-text"), text);
  why(byId("why"), both(status), true);
}

const STATES = {
  up: "up",
  detached: "line lost, waiting for it",
  draining: "draining: no new streams",
  connecting: "no tunnel, connecting",
  down: "ended",
};

function fact(name) {
  const figure = element("data", {});
  return { block: element("div", {}, element("dt", {}, name), element("dd", {}, figure)), figure };
}

function makeTunnel() {
  const item = element("li", { class: "tunnel" });
  const facts = ["LAN", "WAN", "ratio", "resumed"].map(fact);
  item.parts = {
    peer: element("h3", { class: "peer" }),
    state: element("span", { class: "state-text" }),
    since: element("span", { class: "since" }),
    error: element("p", { class: "note", "data-tone": "warning" }),
    links: element("tbody", {}),
    facts: facts.map(({ figure }) => figure),
    why: element("div", { class: "why" }),
  };
  const { peer, state, since, error, links, why: bar } = item.parts;
  const head = ["Link", "Round trip", "Sent", "Received"].map((name, index) => element("th", { scope: "col", class: index ? "number" : null }, name));
  item.parts.table = element(
    "div",
    { class: "scroll" },
    element("table", { class: "links" }, element("caption", { class: "hidden" }, "Links"), element("thead", {}, element("tr", {}, ...head)), links),
  );
  item.append(
    element("div", { class: "tunnel-head" }, peer, element("p", { class: "state" }, element("span", { class: "mark", "aria-hidden": "true" }), state, " ", since)),
    error,
    item.parts.table,
    element("dl", { class: "facts" }, ...facts.map(({ block }) => block)),
    bar,
  );
  return item;
}

function updateTunnel(item, { tunnel, now }) {
  const { peer, state, since, error, links, facts, table, why: bar } = item.parts;
  setText(peer, tunnel.peer);
  setAttribute(item, "data-state", tunnel.state);
  setAttribute(item, "data-peer", tunnel.peer);
  setText(state, STATES[tunnel.state] ?? tunnel.state);
  const began = tunnel.since_unix_seconds;
  setText(since, began === null ? "" : `since ${format.moment(began * 1000)} (${format.duration(now / 1000 - began)})`);
  error.hidden = !tunnel.error;
  setText(error, tunnel.error ? `The last attempt: ${tunnel.error}` : "");
  table.hidden = tunnel.links.length === 0;
  keyed(links, numbered(tunnel.links, "address"), ({ key }) => key, makeLink, updateLink);
  const ratio = tunnel.wan_bytes > 0 ? tunnel.lan_bytes / tunnel.wan_bytes : null;
  setFigure(facts[0], tunnel.lan_bytes, format.bytes(tunnel.lan_bytes));
  setFigure(facts[1], tunnel.wan_bytes, format.bytes(tunnel.wan_bytes));
  setFigure(facts[2], ratio, format.ratio(ratio));
  setFigure(facts[3], tunnel.resumes, tunnel.resumes === 0 ? "never" : tunnel.resumes === 1 ? "once" : `${format.count(tunnel.resumes)} times`);
  why(bar, both(tunnel));
}

function makeLink() {
  return element("tr", {}, element("th", { scope: "row" }), ...[0, 1, 2].map(() => element("td", { class: "number" }, element("data"))));
}

function updateLink(row, { item: link }) {
  const [address, ...cells] = row.children;
  setText(address, link.address);
  const figures = cells.map((cell) => cell.firstElementChild);
  setFigure(figures[0], link.rtt_ms, format.milliseconds(link.rtt_ms));
  setFigure(figures[1], link.sent_bytes, format.bytes(link.sent_bytes));
  setFigure(figures[2], link.received_bytes, format.bytes(link.received_bytes));
}

// Things that may share a name, each with a key of its own.
function numbered(items, name) {
  const seen = new Map();
  return items.map((item) => {
    const times = (seen.get(item[name]) ?? 0) + 1;
    seen.set(item[name], times);
    return { item, key: `${times} ${item[name]}` };
  });
}

export function tunnels(status, now) {
  const container = byId("tunnels");
  if (!container.list) {
    container.list = element("ul", { class: "tunnels" });
    container.empty = element("p", { class: "empty" }, "No client has a tunnel here at present.");
    container.append(container.empty, container.list);
  }
  container.empty.hidden = status.tunnels.length > 0;
  const items = numbered(status.tunnels, "peer").map(({ item, key }) => ({ tunnel: item, key, now }));
  keyed(container.list, items, ({ key }) => key, makeTunnel, updateTunnel);
}

// A meter with its figures as text.
function meter(container, name, label, part, text) {
  const known = container.meters ?? (container.meters = new Map());
  if (!known.has(name)) {
    const fill = element("span", { class: "fill" });
    const track = element("div", { class: "track", role: "meter", "aria-label": label, "aria-valuemin": "0", "aria-valuemax": "100" }, fill);
    const figure = element("span", { class: "figure" });
    container.append(element("div", { class: "meter" }, element("p", { class: "meter-head" }, element("span", {}, label), " ", figure), track));
    known.set(name, { fill, track, figure });
  }
  const { fill, track, figure } = known.get(name);
  const shown = Math.min(1, Math.max(0, part || 0));
  fill.style.width = `${(shown * 100).toFixed(2)}%`;
  setAttribute(track, "aria-valuenow", Math.round(shown * 100));
  setAttribute(track, "aria-valuetext", text);
  setText(figure, text);
}

function facts(container, values) {
  if (!container.facts) {
    container.facts = values.map(([name]) => fact(name));
    container.append(element("dl", { class: "facts" }, ...container.facts.map(({ block }) => block)));
  }
  values.forEach(([, value, text], index) => setFigure(container.facts[index].figure, value, text));
}

function note(container, lines) {
  container.note ??= container.appendChild(element("ul", { class: "notes" }));
  container.note.hidden = lines.length === 0;
  keyed(container.note, lines, (line) => line, () => element("li", { class: "note", "data-tone": "warning" }), setText);
}

export function history(status) {
  const container = byId("history");
  const now = status.history;
  const of = `${format.bytes(now.bytes)} of ${format.bytes(now.capacity_bytes)}`;
  meter(container, "fill", now.directory ? "Filled, on disk" : "Filled, in memory", now.capacity_bytes ? now.bytes / now.capacity_bytes : 0, of);
  const hits = now.hit_rate;
  meter(container, "hits", "Look-ups that led to a copy", hits, hits === null ? "none yet" : format.percent(hits));
  facts(container, [
    ["index", now.index_bytes, format.bytes(now.index_bytes)],
    ["not on disk yet", now.unwritten_bytes, format.bytes(now.unwritten_bytes)],
  ]);
  const lines = [];
  if (now.excuse) lines.push(`In memory, because ${now.excuse}`);
  if (now.read_only) lines.push("The disk takes nothing at present, so nothing new is remembered; the log says why.");
  if (now.loading) lines.push("The index is still being filled after the start.");
  if (now.damaged_pages > 0) lines.push(`${format.count(now.damaged_pages)} pages could not be read and are forgotten.`);
  note(container, lines);
}

function pools(container, present) {
  if (!container.pools) {
    const head = ["Pool", "Busy", "Waiting"].map((name, index) => element("th", { scope: "col", class: index ? "number" : null }, name));
    container.pools = element("tbody", {});
    const caption = element("caption", { class: "hidden" }, "Pools of threads");
    container.append(element("table", { class: "pools" }, caption, element("thead", {}, element("tr", {}, ...head)), container.pools));
  }
  const make = () => element("tr", {}, element("th", { scope: "row" }), element("td", { class: "number" }), element("td", { class: "number" }));
  keyed(container.pools, present, (pool) => pool.name, make, (row, pool) => {
    const [name, busy, waiting] = row.children;
    setText(name, pool.name);
    setText(busy, `${pool.running} of ${pool.threads}`);
    setText(waiting, format.count(pool.queued));
  });
}

export function load(status) {
  const container = byId("load");
  const open = status.services.reduce((sum, service) => sum + service.open, 0);
  const { used_bytes: used, budget_bytes: budget, resident_bytes: resident } = status.memory;
  facts(container, [
    ["open streams", open, format.count(open)],
    ["memory of the process", resident, resident === null ? "–" : format.bytes(resident)],
    ["up for", Math.floor(status.uptime_seconds), format.duration(status.uptime_seconds)],
  ]);
  meter(container, "budget", "Memory budget of streams", budget ? used / budget : 0, `${format.bytes(used)} of ${format.bytes(budget)}`);
  pools(container, status.pools);
  note(
    container,
    status.jobs.filter((job) => job.total_bytes !== undefined).map((job) => `Job ${job.token}: ${job.why}, ${job.state}, ${format.bytes(job.done_bytes)} of ${format.bytes(job.total_bytes)}`),
  );
}
