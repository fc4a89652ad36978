// The dashboard: listens to /api/events and draws what it says.

import { Chart } from "./chart.js";
import { byId, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";
import * as panels from "./panels.js";
import { Events, Services, minutes } from "./tables.js";

const SPAN_MS = 600_000;
// A tick comes each second. After this long without one the figures are old; after the second, the connection is thought dead.
const LATE_MS = 4_000;
const DEAD_MS = 15_000;
const RETRY_MS = [1_000, 2_000, 5_000];

const chart = new Chart(byId("chart"));
const services = new Services();
const events = new Events();

// Everything that is known.
const known = { status: null, samples: [], seen: null, clock: 0 };
let source = null;
let opened = 0;
let retries = 0;
let waiting = null;

// The edge's clock, in milliseconds, from this machine's.
const edgeNow = () => Date.now() + known.clock;

function connect() {
  source?.close();
  waiting = null;
  opened = Date.now();
  source = new EventSource("/api/events");
  source.addEventListener("snapshot", ({ data }) => takeSnapshot(JSON.parse(data)));
  source.addEventListener("tick", ({ data }) => takeTick(JSON.parse(data)));
  source.addEventListener("event", ({ data }) => events.add(JSON.parse(data)));
  source.addEventListener("error", () => {
    drawConnection();
    // The browser tries again by itself, but not after an answer that was a refusal.
    if (source.readyState === EventSource.CLOSED) retry();
  });
}

function retry() {
  if (waiting !== null) return;
  source.close();
  const pause = RETRY_MS[Math.min(retries, RETRY_MS.length - 1)];
  retries += 1;
  waiting = setTimeout(async () => {
    try {
      const answer = await fetch("/api/status", { method: "HEAD" });
      if (answer.status === 401) {
        location.assign("/login");
        return;
      }
    } catch {
      // Nobody is there; the next attempt will show.
    }
    connect();
  }, pause);
}

function takeSnapshot(snapshot) {
  const isSame = known.status && known.status.name === snapshot.status.name;
  // An edge that was restarted knows nothing of what was before; this page does.
  const first = snapshot.samples.length > 0 ? snapshot.samples[0][0] : snapshot.now_ms;
  const before = isSame ? known.samples.filter(([time]) => time < first) : [];
  known.samples = before.concat(snapshot.samples);
  events.replace(snapshot.events);
  take(snapshot);
}

function takeTick(tick) {
  if (tick.sample && (known.samples.at(-1)?.[0] ?? 0) < tick.sample[0]) known.samples.push(tick.sample);
  take(tick);
}

function take({ status, now_ms: now }) {
  known.status = status;
  known.clock = now - Date.now();
  known.seen = Date.now();
  retries = 0;
  draw();
}

function draw() {
  if (document.hidden || !known.status) return;
  const { status } = known;
  const now = edgeNow();
  known.samples = known.samples.filter(([time]) => time >= now - SPAN_MS - 2_000);
  setText(byId("edge-name"), status.name);
  setText(byId("edge-about"), `${status.edge} edge, version ${status.version}, up ${format.duration(status.uptime_seconds)}`);
  document.title = `${format.ratio(status.savings.ratio)} : 1 · ${status.name} · wanproxy`;
  panels.savings(status);
  panels.tunnels(status, now);
  panels.history(status);
  panels.load(status);
  services.show(status);
  drawChart(now);
  drawConnection();
  setAttribute(byId("main"), "data-uptime", status.uptime_seconds);
}

function drawChart(now) {
  chart.show(known.samples, now);
  const [time, lan, wan] = known.samples.at(-1) ?? [0, 0, 0];
  const isFresh = now - time < LATE_MS;
  setText(byId("lan-rate"), isFresh ? format.rate(lan) : "–");
  setText(byId("wan-rate"), isFresh ? format.rate(wan) : "–");
  const peak = (index) => format.rate(known.samples.reduce((peak, sample) => Math.max(peak, sample[index]), 0));
  setAttribute(
    byId("chart"),
    "aria-label",
    `Throughput of the last ten minutes. LAN: now ${format.rate(lan)}, at most ${peak(1)}. WAN: now ${format.rate(wan)}, at most ${peak(2)}. The table below has the figures by minute.`,
  );
  if (byId("minutes").closest("details").open) minutes(known.samples, now);
}

// Is the page in touch with the edge, and the edge with the other one? Says so once when it changes, and shows since when.
function drawConnection() {
  const silence = known.seen === null ? null : Date.now() - known.seen;
  const isLive = silence !== null && silence < LATE_MS && source?.readyState !== EventSource.CLOSED;
  setAttribute(byId("connection"), "data-state", isLive ? "live" : known.seen === null ? "waiting" : "lost");
  setText(byId("connection-text"), isLive ? "live" : known.seen === null ? "connecting …" : `no connection, last seen ${format.moment(known.seen)}`);
  document.body.classList.toggle("stale", known.seen !== null && !isLive);
  if (known.seen === null) return;
  const trouble = isLive ? lineTrouble(known.status) : edgeTrouble(silence);
  const banner = byId("banner");
  banner.hidden = trouble === null;
  setAttribute(banner, "data-kind", trouble?.kind ?? null);
  setAttribute(banner, "data-tone", trouble?.tone ?? null);
  setText(byId("banner-title"), trouble?.title ?? "");
  setText(byId("banner-text"), trouble?.text ?? "");
  announce(trouble?.title ?? (isLive ? "All is well." : ""));
}

let announced = "All is well.";
function announce(text) {
  if (text === announced) return;
  announced = text;
  setText(byId("announce"), text);
}

function edgeTrouble(silence) {
  return {
    kind: "edge",
    tone: "error",
    title: "This page has no connection to the edge.",
    text: `Last seen ${format.moment(known.seen)}, ${format.duration(silence / 1000)} ago. It tries again by itself; the figures below are those of then.`,
  };
}

function lineTrouble(status) {
  const lost = status.tunnels.filter((tunnel) => tunnel.state === "detached" || tunnel.state === "connecting");
  if (lost.length === 0) return null;
  const [first] = lost;
  const began = first.since_unix_seconds;
  const since = began === null ? "" : `Since ${format.moment(began * 1000)} (${format.duration(edgeNow() / 1000 - began)}). `;
  if (first.state === "connecting") {
    return { kind: "line", tone: "error", title: `There is no tunnel to ${first.peer}.`, text: `${since}New connections wait a little and are refused then. ${first.error ?? ""}` };
  }
  const title = lost.length === 1 ? `The line to ${first.peer} is lost.` : `${lost.length} of ${status.tunnels.length} tunnels have lost their line.`;
  return { kind: "line", tone: "warning", title, text: `${since}Open connections wait and go on when it is back.` };
}

// Without ticks time passes all the same.
setInterval(() => {
  if (known.seen !== null && Date.now() - known.seen >= LATE_MS && !document.hidden) {
    drawChart(edgeNow());
    drawConnection();
  }
  const quiet = Date.now() - Math.max(known.seen ?? 0, opened);
  if (quiet > DEAD_MS && waiting === null) connect();
}, 1_000);

document.addEventListener("visibilitychange", draw);
byId("minutes").closest("details").addEventListener("toggle", () => minutes(known.samples, edgeNow()));
connect();
