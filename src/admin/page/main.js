// Reads the status once a second and fills the page.

import { command, make, reconcile, say, set } from "./dom.js";
import { render } from "./markdown.js";
import { GAP, History, loginsOf, percentile } from "./model.js";
import { Plot } from "./plot.js";
import { View } from "./view.js";
import { age, clock, count, rate, took } from "./words.js";

// Milliseconds between two readings, and the longest time between two tries without an answer.
const PERIOD = 1000;
const LONGEST_WAIT = 10000;
// Milliseconds for one answer.
const DEADLINE = 5000;

const part = (id) => document.getElementById(id);
const history = new History();
const view = new View({ announce, explain, refresh: () => show() });
const plots = {
  throughput: new Plot(part("plots"), {
    title: "Throughput",
    series: ["received", "sent"],
    format: rate,
    least: 1000,
    empty: "no readings yet",
  }),
  logins: new Plot(part("plots"), {
    title: "Login time",
    series: ["login"],
    format: took,
    least: 0.01,
    dots: true,
    empty: "no login in this time",
  }),
};

// The state of reading: the last rates and logins, tries without an answer, and the timer.
const reading = { rates: null, logins: [], loginCount: null, failures: 0, timer: null, busy: false, paused: false };

// Tells screen readers. They notice a text only if it changes, so the same one follows an empty one.
function announce(text) {
  say(part("announcement"), "");
  setTimeout(() => say(part("announcement"), text), 50);
}

// A failed request, with the word for the state of pgiam.
class Failure extends Error {
  constructor(state, text) {
    super(text);
    this.state = state;
  }
}

const notPgiam = () => new Failure("not pgiam", `Another program answers on ${location.host}`);

async function fetchText(path) {
  try {
    const answer = await fetch(path, {
      cache: "no-store",
      credentials: "omit",
      signal: AbortSignal.timeout(DEADLINE),
    });
    return { status: answer.status, text: await answer.text() };
  } catch (error) {
    if (error.name === "TimeoutError") {
      throw new Failure("no answer", "pgiam does not answer");
    }
    const stopping = history.last?.process.state === "draining";
    const also = stopping ? "" : `, or does not listen on ${location.host} any more`;
    throw new Failure("not running", `pgiam has ended${also}`);
  }
}

// Returns a document of pgiam; `isOurs` tells it from another program's.
async function fetchJson(path, isOurs) {
  const { status, text } = await fetchText(path);
  if (status !== 200) {
    throw new Failure("refused", status === 403 ? text.split("\n")[0] : `status ${status}`);
  }
  let found = null;
  try {
    found = JSON.parse(text);
  } catch {
    throw notPgiam();
  }
  if (!isOurs(found)) {
    throw notPgiam();
  }
  return found;
}

async function read() {
  clearTimeout(reading.timer);
  if (reading.busy) {
    return;
  }
  reading.busy = true;
  try {
    const process = await fetchJson("/status", (found) => Number.isInteger(found?.pid) && Array.isArray(found.targets));
    await readLogins(process);
    const { version } = history.last?.process ?? process;
    if (version !== process.version) {
      location.reload(); // The scripts belong to the other version.
    }
    const { rates, restarted } = history.add(process, Date.now());
    reading.rates = rates;
    if (restarted) {
      announce("pgiam was restarted");
    } else if (reading.failures > 0) {
      announce("pgiam answers again");
    }
    reading.failures = 0;
    show();
  } catch (error) {
    reading.failures += 1;
    showFailure(error);
  } finally {
    reading.busy = false;
  }
  plan();
}

// Reads the durations of the last logins, after there was another one.
async function readLogins({ targets, pid }) {
  const counted = JSON.stringify([pid, targets.map(({ name, logins }) => [name, logins?.count ?? 0])]);
  if (counted === reading.loginCount) {
    return;
  }
  const now = Date.now();
  const answer = await fetchJson("/logins", (found) => Array.isArray(found?.targets));
  reading.logins = loginsOf(answer.targets, now, reading.logins);
  reading.loginCount = counted;
}

function plan() {
  clearTimeout(reading.timer);
  if (!reading.paused) {
    reading.timer = setTimeout(read, wait());
  }
}

function wait() {
  return Math.min(LONGEST_WAIT, PERIOD * 2 ** Math.max(0, reading.failures - 1));
}

// Fills the page from the last document.
function show() {
  if (history.last === null) {
    return;
  }
  const { process, at } = history.last;
  document.body.classList.toggle("stale", reading.failures > 0);
  say(part("kind"), process.kind);
  if (reading.failures === 0) {
    part("lost")?.remove();
    const tone = { serving: "good", starting: "warn", draining: "warn" }[process.state] ?? "plain";
    set(part("state"), "class", `badge ${tone}`);
    say(part("state"), process.state);
    say(part("updated"), reading.paused ? `paused at ${clock(at)}` : clock(at));
    document.title = title(process);
  }
  const facts = [
    `up ${age(process.uptime_seconds)}`, `process ${process.pid}`, `version ${process.version}`,
    ...(process.config ? [`configuration ${process.config}`] : []),
  ];
  say(part("facts"), facts.join(" · "));
  view.show(process, reading.rates);
  showPlots(process, at);
}

function title({ targets, open_connections: open }) {
  const failing = targets.filter((target) => !target.ready && target.state !== "stopped").length;
  return failing > 0 ? `✗ ${failing} not ready – pgiam` : `${count(open, "connection")} – pgiam`;
}

function showPlots(process, at) {
  const select = part("plot-target");
  reconcile(select, [null, ...process.targets.map(({ name }) => name)], {
    key: (name) => JSON.stringify(name),
    create: (name) => make("option", { value: name === null ? "" : `=${name}`, text: name ?? "All" }),
  });
  const name = select.value === "" ? null : select.value.slice(1);
  const [from, to] = [at - Number(part("plot-span").value) * 1000, at];
  plots.throughput.update({ points: history.throughput(name), from, to, longest: GAP * 1000 });
  const points = reading.logins.filter((login) => name === null || login.target === name);
  const shown = points.filter((login) => login.at >= from).map((login) => login.values[0]);
  const lines = [50, 99].map((percent) => ({ label: `p${percent}`, value: percentile(shown, percent) }));
  plots.logins.update({ points, from, to, lines: shown.length === 0 ? [] : lines });
}

// Shows that there is no answer, and keeps the last values.
function showFailure(error) {
  const [began, text] = explainFailure(error);
  document.body.classList.add("stale");
  set(part("state"), "class", "badge bad");
  say(part("state"), began);
  document.title = `${began} – pgiam`;
  const seconds = Math.round(wait() / 1000);
  const since = history.last === null ? "" : ` The values below are from ${clock(history.last.at)}.`;
  let notice = part("lost");
  if (notice === null) {
    notice = make("div", { id: "lost", class: "notice bad" }, make("p"),
      make("button", { type: "button", text: "Try now", on: { click: () => read() } }));
    document.querySelector("main").prepend(notice);
    announce(`${text}.`);
  }
  say(notice.firstChild, `${text}.${since} Next try in ${seconds} s.`);
}

function explainFailure(error) {
  if (error instanceof Failure) {
    return [error.state, error.message];
  }
  console.error(error);
  return ["error", `This page failed: ${error.message}`];
}

// Opens what docs/errors.md says about an error.
async function explain(id) {
  const [dialog, heading, text] = [part("explanation"), part("explanation-title"), part("explanation-text")];
  say(heading, id);
  const show = (...children) => {
    if (heading.textContent === id) { // No other one was opened in the meantime.
      text.replaceChildren(...children);
    }
  };
  text.replaceChildren(make("p", { class: "muted", text: "loading" }));
  dialog.showModal();
  try {
    const entry = await fetchJson(`/explain/${encodeURIComponent(id)}`, (found) => Array.isArray(found?.answers));
    const answers = entry.answers.map(({ context, messages }) =>
      make("p", { class: "muted", text: `${context}: ${messages.map((message) => `“${message}”`).join(", ")}` }));
    show(make("p", { class: "topic", text: entry.topic }), ...answers,
      ...render(entry.text, announce), ...render(entry.notes, announce));
  } catch (error) {
    show(make("p", { text: explainFailure(error)[1] }), command(`pgiam explain ${id}`, announce));
  }
}

function pause() {
  reading.paused = !reading.paused;
  set(part("pause"), "aria-pressed", String(reading.paused));
  say(part("pause"), reading.paused ? "Go on" : "Pause");
  if (reading.paused) {
    clearTimeout(reading.timer);
    show();
  } else {
    read();
  }
}

function press(event) {
  const { key, target, ctrlKey, altKey, metaKey } = event;
  const filter = part("filter");
  if (ctrlKey || altKey || metaKey || document.querySelector("dialog[open]") !== null) {
    return;
  }
  if (target === filter) {
    if (key === "Escape") {
      event.preventDefault();
      filter.value = "";
      filter.dispatchEvent(new Event("input"));
      filter.blur();
    }
    return;
  }
  const action = { "/": () => filter.focus(), p: pause, "?": () => part("keys").showModal() }[key];
  if (action !== undefined && target.tagName !== "SELECT") {
    event.preventDefault();
    action();
  }
}

part("filter").addEventListener("input", () => {
  view.words = part("filter").value;
  show();
});
for (const id of ["plot-target", "plot-span"]) {
  part(id).addEventListener("change", () => show());
}
part("pause").addEventListener("click", pause);
part("help").addEventListener("click", () => part("keys").showModal());
document.querySelectorAll("dialog .close").forEach((button) =>
  button.addEventListener("click", () => button.closest("dialog").close()));
document.addEventListener("keydown", press);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !reading.paused) {
    read();
  }
});
addEventListener("online", () => {
  if (!reading.paused) {
    read();
  }
});
read();
