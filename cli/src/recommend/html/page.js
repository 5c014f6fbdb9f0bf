"use strict";
const data = JSON.parse(document.getElementById("data").textContent);

// As units::bytes and units::cores of the command write them.
function bytes(value) {
  const units = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
  let unit = 0;
  while (unit + 1 < units.length && value >= 1023.5) { value /= 1024; unit += 1; }
  const digits = unit === 0 ? 0 : value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  let text = value.toFixed(digits);
  if (text.includes(".")) text = text.replace(/0+$/, "").replace(/\.$/, "");
  return text + units[unit];
}
function cores(millicores) { return millicores % 1000 === 0 ? String(millicores / 1000) : millicores + "m"; }
function percent(share) { return share > 0 && share < 0.0005 ? "<0.1%" : (share * 100).toFixed(1) + "%"; }
function count(number, noun) { return number + " " + noun + (number === 1 ? "" : "s"); }
function duration(millis) {
  if (millis < 1000) return millis + " ms";
  const seconds = Math.round(millis / 1000);
  const parts = [[Math.floor(seconds / 3600), "h"], [Math.floor(seconds / 60) % 60, "min"], [seconds % 60, "s"]];
  return parts.filter(([amount]) => amount > 0).map(([amount, unit]) => amount + " " + unit).join(" ");
}

// The same counts as `snug simulate --memory-limit`.
function memoryOutcome(history, limit) {
  return {
    hours: history.peaks.length,
    above: history.peaks.filter(peak => peak > limit).length,
    kills: history.kills.filter(kill => kill >= limit).length,
  };
}

function show(input, text) {
  input.setAttribute("aria-valuetext", text);
  document.getElementById(input.id + "-out").textContent = text;
}

function tryMemory(input, history) {
  // Steps on a logarithmic scale, in whole MiB where that is fine enough.
  const [low, high] = [Number(input.dataset.low), Number(input.dataset.high)];
  const exact = low * Math.pow(high / low, Number(input.value) / Number(input.max));
  const step = exact > 32 * 1048576 ? 1048576 : 65536;
  const limit = Math.round(exact / step) * step;
  const { hours, above, kills } = memoryOutcome(history, limit);
  input.dataset.limit = limit;
  const seen = kills > 0 ? "; " + count(kills, "OOM kill") + " recorded at this limit or a higher one" : "";
  const outcome = above > 0
    ? "at least " + count(above, "OOM kill") + ": usage above it in " + above + " of " + hours + " hours"
    : "usage never above it in " + hours + " hours";
  show(input, "Memory limit " + bytes(limit) + ": " + outcome + seen + ".");
  const line = input.closest("details").querySelector(".memory line.try");
  if (line) {
    const chart = line.closest("svg");
    const bottom = Number(line.dataset.bottom ?? line.getAttribute("y1"));
    line.dataset.bottom = bottom;
    const y = 12 + (bottom - 12) * (1 - Math.min(1, limit / Number(chart.dataset.top)));
    line.setAttribute("y1", y);
    line.setAttribute("y2", y);
    line.setAttribute("visibility", "visible");
  }
}

function tryCpu(input, history) {
  const outcome = history.quotas[Number(input.value)];
  input.dataset.limit = outcome.quota;
  show(input, "CPU limit " + cores(outcome.quota) + ": " + percent(outcome.periods) + " of CFS periods throttled, "
    + duration(outcome.delayed_millis) + " of CPU time delayed.");
}

for (const input of document.querySelectorAll("input[data-try]")) {
  const history = data.simulations[Number(input.dataset.container)];
  const tried = input.dataset.try === "memory" ? tryMemory : tryCpu;
  input.addEventListener("input", () => tried(input, history));
  tried(input, history);
}

const filter = document.getElementById("filter");
const issue = document.getElementById("issue");
function select() {
  const wanted = filter.value.trim().toLowerCase();
  let shown = 0;
  for (const one of document.querySelectorAll("details.container")) {
    const fits = one.dataset.name.toLowerCase().includes(wanted) && (issue.value === "" || one.dataset.issue === issue.value);
    one.hidden = !fits;
    shown += fits ? 1 : 0;
  }
  document.getElementById("shown").textContent = count(shown, "container") + " shown";
}
filter.addEventListener("input", select);
issue.addEventListener("change", select);

function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.matches("details")) target.open = true;
}
addEventListener("hashchange", reveal);
reveal();
addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details.container")) one.open = true;
});
