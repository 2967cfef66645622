"use strict";

const MARKS = { online: "●", lagging: "◐", draining: "◌", excluded: "▲", down: "✕", unknown: "?" };
const HISTORY = 60;
const history = new Map();
const byId = (id) => document.getElementById(id);

function cell(label, ...children) {
  const td = document.createElement("td");
  td.dataset.label = label;
  td.append(...children);
  return td;
}

function sparkline(values) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${HISTORY} 20`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  const top = Math.max(1, ...values);
  const start = HISTORY - values.length;
  line.setAttribute("points", values.map((v, at) => `${start + at},${19 - (18 * v) / top}`).join(" "));
  svg.append(line);
  return svg;
}

function remember(server, now) {
  const known = history.get(server.name) || { statements: server.statements, at: now, rate: 0, rates: [], lags: [] };
  if (now > known.at) {
    known.rate = Math.max(0, ((server.statements - known.statements) * 1000) / (now - known.at));
    known.statements = server.statements;
    known.at = now;
    known.rates = [...known.rates, known.rate].slice(-HISTORY);
    known.lags = [...known.lags, server.lag_ms ?? 0].slice(-HISTORY);
  }
  history.set(server.name, known);
  return known;
}

function lag(server) {
  if (server.role === "primary") return "–";
  if (server.lag_ms === null) return "?";
  return server.lag_ms < 1000 ? `${server.lag_ms} ms` : `${(server.lag_ms / 1000).toFixed(1)} s`;
}

function row(server, now) {
  const past = remember(server, now);
  const state = document.createElement("span");
  state.className = server.state;
  state.textContent = `${MARKS[server.state] ?? "?"} ${server.state}`;
  const tr = document.createElement("tr");
  tr.title = server.address;
  tr.append(
    cell("server", server.name),
    cell("role", server.role),
    cell("state", state),
    cell("lag", `${lag(server)} `, sparkline(past.lags)),
    cell("statements/s", `${past.rate.toFixed(past.rate < 10 ? 1 : 0)} `, sparkline(past.rates)),
    cell("connections", String(server.connections)),
    cell("version", server.version || "?"),
  );
  return tr;
}

function show(status) {
  const now = performance.now();
  byId("cluster").textContent = status.cluster;
  const headline = byId("headline");
  headline.className = status.primary ? "" : "bad";
  headline.textContent = status.primary
    ? `primary ${status.primary} · epoch ${status.epoch} · ${status.durability}`
    : `no primary: ${status.no_primary_reason}`;
  byId("servers").replaceChildren(...status.servers.map((server) => row(server, now)));
  const notes = status.servers.filter((server) => server.reason).map((server) => {
    const li = document.createElement("li");
    li.textContent = `${server.name} is ${server.state}: ${server.reason}`;
    return li;
  });
  byId("notes").replaceChildren(...notes);
  byId("process").textContent = `${status.phase} · ${status.clients} clients`;
}

const events = new EventSource("api/v1/events");
events.onmessage = (event) => show(JSON.parse(event.data));
events.onerror = () => {
  byId("headline").className = "bad";
  byId("headline").textContent = "no answer from the proxy; trying again …";
};
