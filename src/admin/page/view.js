// The parts of the page, each filled from the last document.

import { Table, command, copyButton, make, reconcile, say, set } from "./dom.js";
import { identities, listed } from "./model.js";
import { age, bytes, clock, count, pieces, rate, shell, took } from "./words.js";

// Most rows of the table of connections; a filter finds the others.
const MOST_ROWS = 200;
// Errors that are shown before the button for more.
const FIRST_ERRORS = 3;
// Seconds before the expiry of credentials at which the page warns.
const SOON = 600;

const STATES = {
  ready: ["good", "✓", "a tunnel is open"],
  idle: ["plain", "○", "no tunnel is open, because none is needed"],
  starting: ["warn", "…", "a tunnel is starting"],
  looking: ["warn", "…", "pgiam is looking up the database"],
  interrupted: ["bad", "!", "the tunnel is interrupted; pgiam resumes it"],
  failing: ["bad", "✗", "new connections are expected to fail"],
  stopped: ["plain", "■", "stopped by its owner"],
  up: ["good", "✓", "open"],
  leaving: ["plain", "→", "ends with its last connection"],
  open: ["plain", "", "after the login"],
  login: ["warn", "…", "logging in"],
};

// Shows a state as a badge that does not depend on colour.
export function badge(element, state) {
  const [tone, mark, title] = STATES[state] ?? ["plain", "", ""];
  set(element, "class", `badge ${tone}`);
  set(element, "title", title);
  say(element, `${mark} ${state}`.trim());
}

function child(cell, name, properties = {}) {
  const found = cell.querySelector(`:scope > [data-part="${name}"]`);
  if (found !== null) {
    return found;
  }
  const element = make(properties.tag ?? "span", { ...properties, "data-part": name });
  element.removeAttribute("tag");
  cell.append(element);
  return element;
}

// Returns the command that connects to a target.
export function connectCommand(target, all) {
  const shared = all.filter((other) => other.port === target.port).length > 1;
  return `psql -h localhost -p ${target.port}${shared ? ` -d ${shell(target.name)}` : ""}`;
}

// Returns the command that renews an identity.
function loginCommand({ source }) {
  const profile = /^profile (\S+)/.exec(source);
  return profile === null ? "pgiam login" : `pgiam login ${shell(profile[1])}`;
}

// All parts below the heading, except the plots. `announce` tells screen readers, `explain` opens
// the explanation of an error.
export class View {
  constructor({ announce, explain, refresh }) {
    Object.assign(this, { announce, explain, refresh });
    this.sorted = { column: "rate", descending: true };
    this.words = "";
    this.allErrors = false;
    this.part = (id) => document.getElementById(id);
    this.targets = this.targetTable();
    this.connections = this.connectionTable();
    this.sessions = this.sessionTable();
    this.more = make("button", { type: "button", on: { click: () => {
      this.allErrors = !this.allErrors;
      this.refresh();
    } } });
    this.errors = make("div");
    this.noErrors = make("p", { class: "muted", text: "No errors." });
    this.part("errors").append(this.errors, this.more, this.noErrors);
  }

  show(process, rates) {
    this.rates = rates;
    this.showNotices(process);
    this.showTiles(process);
    this.targets.show(process.targets.map((target) => ({ target, all: process.targets })));
    this.showErrors(process.recent_errors ?? []);
    this.showConnections(process);
    const sessions = process.targets.flatMap((target) =>
      target.sessions.map((session, nth) => ({ ...session, target: target.name, nth })));
    this.sessions.show(sessions);
  }

  showTiles({ targets, open_connections: open, max_connections: most }) {
    const served = targets.filter((target) => target.state !== "stopped").length;
    const ready = targets.filter((target) => target.ready).length;
    const sum = (direction) => [...this.rates.targets.values()].reduce((all, one) => all + one[direction], 0);
    const known = this.rates.targets.size > 0;
    const tiles = [
      ["Targets ready", `${ready} of ${served}`, ready < served ? "bad" : ""],
      ["Connections", `${open} of ${most}`, open >= most ? "bad" : ""],
      ["Received", known ? rate(sum("down")) : "–", ""],
      ["Sent", known ? rate(sum("up")) : "–", ""],
    ];
    reconcile(this.part("tiles"), tiles, {
      key: ([name]) => name,
      create: ([name]) => make("li", {}, make("span", { text: name }), make("strong")),
      update: (tile, [, value, tone]) => {
        set(tile, "class", tone);
        say(tile.lastChild, value);
      },
    });
  }

  showNotices(process) {
    const notices = identities(process).map((identity) => this.identity(identity, process));
    for (const [nth, reason] of process.left_out.entries()) {
      notices.push({ key: `left ${nth} ${reason}`, tone: "bad", text: `Not served: ${reason}` });
    }
    if (process.change_unused) {
      notices.push({ key: "change", tone: "bad", text: `Configuration not reloaded: ${process.change_unused}` });
    }
    if (process.state === "draining") {
      const open = count(process.open_connections, "open connection");
      notices.unshift({ key: "draining", tone: "warn", text: `pgiam is stopping, and waits for ${open}` });
    }
    reconcile(this.part("notices"), notices, {
      key: (notice) => notice.key,
      create: () => make("div", {}, make("p", { dir: "auto" })),
      update: (element, { tone, text, run }) => {
        set(element, "class", `notice ${tone}`);
        say(element.firstChild, text);
        const shown = element.children[1]?.firstChild.textContent;
        if (shown !== run) {
          element.children[1]?.remove();
          if (run !== undefined) {
            element.append(command(run, this.announce));
          }
        }
      },
    });
  }

  identity(identity, process) {
    const { source, reason, expires_in_seconds: left, targets } = identity;
    const of = targets.length === process.targets.length ? "" : ` for ${targets.join(", ")}`;
    const known = left !== null && left !== undefined;
    const ended = known && left <= 0;
    const soon = known && left < SOON;
    const end = known ? clock(Date.now() + left * 1000, false) : "";
    let until = known ? `, expires at ${end} (in ${age(left)})` : ", no expiry";
    until = ended ? ", expired" : until;
    return {
      key: `identity ${source} ${reason}`,
      tone: ended ? "bad" : soon ? "warn" : "plain",
      text: `AWS identity${of}: ${source}${until}. Chosen by: ${reason}`,
      run: soon ? loginCommand(identity) : undefined,
    };
  }

  targetTable() {
    const columns = [
      { name: "target", label: "Target" },
      { name: "state", label: "State" },
      { name: "open", label: "Connections", number: true },
      { name: "flow", label: "Throughput", number: true },
      { name: "login", label: "Login p50 / p99", number: true },
      { name: "trip", label: "Round trip", number: true },
      { name: "used", label: "Sessions", number: true },
    ];
    return new Table(this.part("targets"), {
      label: "Targets",
      columns,
      key: ({ target }) => target.name,
      fill: (cells, item) => this.fillTarget(cells, item),
      empty: "No target is served.",
    });
  }

  fillTarget([name, state, open, flow, login, trip, used], { target, all }) {
    say(child(name, "name", { tag: "strong", dir: "auto" }), target.name);
    const line = child(name, "connect", { tag: "span", class: "connect" });
    const text = connectCommand(target, all);
    if (line.firstChild?.textContent !== text) {
      line.replaceChildren(make("code", { text }), copyButton(text, this.announce));
    }
    const place = child(name, "place", { class: "muted" });
    say(child(place, "endpoint", { dir: "auto" }), target.endpoint);
    say(child(place, "via", { dir: "auto" }), target.via === "ssm" ? `via ${target.bastion}` : target.via);
    badge(child(state, "state"), target.state);
    this.idButton(state, target.failing);
    const { connection_limit: limit } = target;
    say(open, `${target.connections.length}${limit === null || limit === undefined ? "" : ` of ${limit}`}`);
    const { up, down } = this.rates.targets.get(target.name) ?? {};
    say(child(flow, "down", { title: "from the database" }), `↓ ${rate(down)}`);
    say(child(flow, "up", { title: "to the database" }), `↑ ${rate(up)}`);
    const { p50_seconds: p50, p99_seconds: p99, recent } = target.logins ?? {};
    say(login, `${took(p50)} / ${took(p99)}`);
    set(login, "title", `of ${count(recent ?? 0, "login")} in the last 15 minutes`);
    say(trip, took(target.round_trip_seconds));
    const sessions = target.sessions.length;
    const most = target.max_sessions;
    say(used, most === null || most === undefined ? "–" : `${sessions} of ${most}`);
  }

  idButton(cell, id) {
    const found = cell.querySelector("button");
    if ((found?.textContent ?? null) === (id ?? null)) {
      return;
    }
    found?.remove();
    if (id) {
      cell.append(this.explainButton(id));
    }
  }

  explainButton(id) {
    return make("button", {
      type: "button", class: "id", text: id, "aria-haspopup": "dialog", title: "Explain this error",
      on: { click: () => this.explain(id) },
    });
  }

  showErrors(errors) {
    const shown = this.allErrors ? errors : errors.slice(0, FIRST_ERRORS);
    this.noErrors.hidden = errors.length > 0;
    this.more.hidden = errors.length <= FIRST_ERRORS;
    say(this.more, this.allErrors ? "Show fewer" : `Show ${errors.length - FIRST_ERRORS} more`);
    set(this.more, "aria-expanded", String(this.allErrors));
    reconcile(this.errors, shown, {
      key: ({ target, id, message }) => JSON.stringify([target, id, message]),
      create: (error) => this.error(error),
      update: (element, error) => this.fillError(element, error),
    });
  }

  error({ id, target }) {
    const head = make("p", { class: "error-head" }, this.explainButton(id));
    if (target) {
      head.append(make("strong", { text: target, dir: "auto" }));
    }
    head.append(make("span", { class: "muted" }));
    return make("article", { class: "error" }, head, make("p", { class: "message", dir: "auto" }), make("div"));
  }

  fillError(element, { message, detail, hint, at, age_seconds: since, count: times, sqlstate }) {
    const [head, text, more] = element.children;
    const often = times > 1 ? `${times} times, last ` : "";
    const state = sqlstate ? `, SQLSTATE ${sqlstate}` : "";
    say(head.lastChild, `${often}${clock(Date.parse(at))} (${age(since)} ago)${state}`);
    say(text, message);
    const rest = JSON.stringify([detail, hint]);
    if (more.dataset.text === rest) {
      return;
    }
    more.dataset.text = rest;
    more.replaceChildren();
    if (detail) {
      more.append(make("p", { class: "muted", text: detail, dir: "auto" }));
    }
    for (const piece of pieces(hint ?? "")) {
      more.append(piece.command ? command(piece.text, this.announce) : make("p", { text: piece.text, dir: "auto" }));
    }
  }

  connectionTable() {
    const columns = [
      { name: "program", label: "Program", sort: "program" },
      { name: "user", label: "Role", sort: "user" },
      { name: "database", label: "Database", sort: "database" },
      { name: "target", label: "Target", sort: "target" },
      { name: "peer", label: "Client", sort: "peer" },
      { name: "rate", label: "Throughput", sort: "rate", number: true },
      { name: "down", label: "Received", sort: "bytes_down", number: true },
      { name: "up", label: "Sent", sort: "bytes_up", number: true },
      { name: "age", label: "Open for", sort: "age_seconds", number: true },
    ];
    return new Table(this.part("connections"), {
      label: "Connections",
      columns,
      key: ({ id }) => id,
      fill: (cells, item) => this.fillConnection(cells, item),
      empty: "",
      sort: (column) => this.sortBy(column),
    });
  }

  fillConnection([program, user, database, target, peer, flow, received, sent, old], item) {
    const texts = [[program, item.program], [user, item.user], [database, item.database], [target, item.target]];
    for (const [cell, text] of texts) {
      set(cell, "dir", "auto");
      say(cell, text || "–");
    }
    say(peer, item.peer);
    if (item.state === "login") {
      say(flow, "… login");
      say(received, "–");
      say(sent, "–");
    } else {
      say(flow, rate(item.rate));
      say(received, bytes(item.bytes_down));
      say(sent, bytes(item.bytes_up));
    }
    say(old, age(item.age_seconds));
  }

  sortBy(column) {
    const same = this.sorted.column === column;
    const text = ["program", "user", "database", "target", "peer"].includes(column);
    this.sorted = { column, descending: same ? !this.sorted.descending : !text };
    this.refresh();
  }

  showConnections(process) {
    const { all, shown } = listed(process, this.rates, { words: this.words, ...this.sorted });
    const rows = shown.slice(0, MOST_ROWS);
    say(this.connections.empty, all === 0 ? "No open connections." : "No connection matches the filter.");
    this.connections.show(rows, this.sorted);
    const hidden = shown.length - rows.length;
    const more = hidden > 0 ? `; ${hidden} more, use the filter` : "";
    say(this.part("filtered"), this.words === "" ? `${all}${more}` : `${shown.length} of ${all}${more}`);
  }

  sessionTable() {
    const columns = [
      { name: "session", label: "Session" },
      { name: "target", label: "Target" },
      { name: "bastion", label: "Bastion" },
      { name: "state", label: "State" },
      { name: "streams", label: "Connections", number: true },
      { name: "trip", label: "Round trip", number: true },
      { name: "down", label: "Received", number: true },
      { name: "up", label: "Sent", number: true },
      { name: "resumes", label: "Resumed", number: true },
      { name: "age", label: "Open for", number: true },
    ];
    return new Table(this.part("sessions"), {
      label: "Sessions of Session Manager",
      columns,
      key: ({ id, target, nth }) => id ?? `${target} ${nth}`,
      fill: (cells, item) => this.fillSession(cells, item),
      empty: "No session is open.",
    });
  }

  fillSession([id, target, bastion, state, streams, trip, down, up, resumes, old], item) {
    say(id, item.id ?? "–");
    say(target, item.target);
    set(target, "dir", "auto");
    say(bastion, item.bastion ?? "–");
    badge(child(state, "state"), item.state);
    const ready = item.ready ? `${item.streams} + ${item.ready} ready` : String(item.streams);
    say(streams, item.to_relay ? "relay" : ready);
    say(trip, took(item.round_trip_seconds));
    say(down, bytes(item.bytes_down));
    say(up, bytes(item.bytes_up));
    say(resumes, String(item.resumes));
    say(old, age(item.age_seconds));
  }
}
