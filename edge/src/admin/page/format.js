// Figures as people read them.

const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const BIT_UNITS = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"];

// The separator of numbers and units: they stay on one line.
const GLUE = "\u00a0";

function digits(value) {
  return value >= 100 || Number.isInteger(value) ? 0 : value >= 10 ? 1 : 2;
}

function scaled(value, step, units) {
  let unit = 0;
  while (value >= step && unit < units.length - 1) {
    value /= step;
    unit += 1;
  }
  return value.toFixed(unit === 0 ? 0 : digits(value)) + GLUE + units[unit];
}

export const bytes = (count) => scaled(count, 1024, BYTE_UNITS);
export const rate = (bytesPerSecond) => scaled(bytesPerSecond * 8, 1000, BIT_UNITS);
export const count = (number) => number.toLocaleString("en");

// Something that is there is never shown as nothing, nor something that lacks a part as all.
export function percent(part) {
  if (part > 0 && part < 0.001) return "<0.1" + GLUE + "%";
  if (part < 1 && part > 0.999) return ">99.9" + GLUE + "%";
  return (part * 100).toFixed(part > 0 && (part < 0.1 || part > 0.99) && part < 1 ? 1 : 0) + GLUE + "%";
}

// A ratio keeps three digits, so that 1.02 and 2,900 both say what they are.
export function ratio(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 1000) return count(Math.round(value));
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

export function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  return (value < 10 ? value.toFixed(1) : value.toFixed(0)) + GLUE + "ms";
}

export function duration(seconds) {
  seconds = Math.max(0, Math.floor(seconds));
  const parts = [
    [86400, "d"],
    [3600, "h"],
    [60, "min"],
    [1, "s"],
  ];
  const first = parts.findIndex(([size]) => seconds >= size);
  if (first < 0) return "0" + GLUE + "s";
  const [size, name] = parts[first];
  const whole = Math.floor(seconds / size);
  const next = parts[first + 1];
  const rest = next ? Math.floor((seconds % size) / next[0]) : 0;
  return whole + GLUE + name + (next && rest > 0 && whole < 10 ? " " + rest + GLUE + next[1] : "");
}

// The time of day, with the date once it is another day.
export function moment(milliseconds, now = Date.now()) {
  const date = new Date(milliseconds);
  const time = date.toLocaleTimeString("en-GB");
  if (new Date(now).toDateString() === date.toDateString()) return time;
  return date.toLocaleDateString("en-GB", { day: "numeric", month: "short" }) + ", " + time;
}
