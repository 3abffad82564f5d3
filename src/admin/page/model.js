// Rates and history, computed from one status document after the other.

// Seconds of history that the plots can show.
export const SPAN = 15 * 60;
// Seconds without a document after which the values before and after are not connected.
export const GAP = 5;

// Keeps the last document and the samples of the plots.
export class History {
  constructor() {
    this.samples = [];
    this.last = null;
  }

  // Adds a document that arrived at a time in milliseconds. Returns the rates since the last one.
  add(process, at) {
    const last = this.last;
    const clockWentBack = last !== null && at < last.at;
    if (clockWentBack) {
      this.samples = [];
    }
    const same = last !== null
      && last.process.pid === process.pid
      && last.process.started === process.started
      && process.uptime_seconds >= last.process.uptime_seconds;
    const elapsed = same ? process.uptime_seconds - last.process.uptime_seconds : null;
    const rates = compare(same ? last.process : null, process, elapsed);
    const joined = same && !clockWentBack && at - last.at <= GAP * 1000;
    if (elapsed !== null && elapsed > 0) {
      this.samples.push({ at, joined, rates: rates.targets });
    }
    while (this.samples.length > 0 && this.samples[0].at < at - SPAN * 1000) {
      this.samples.shift();
    }
    this.last = { process, at };
    return { rates, restarted: last !== null && !same };
  }

  // Returns the throughput of a target, or of all with `null`, as points of both directions. A
  // point that is not joined begins a new line.
  throughput(name) {
    return this.samples.map(({ at, joined, rates }) => {
      const chosen = [...rates].filter(([target]) => name === null || target === name);
      const sum = (direction) => chosen.reduce((all, [, rate]) => all + rate[direction], 0);
      return { at, joined, values: chosen.length === 0 ? null : [sum("down"), sum("up")] };
    });
  }
}

// Returns bytes per second for each target and connection of `process`.
function compare(before, process, elapsed) {
  const known = new Map((before?.targets ?? []).map((target) => [target.name, target]));
  const targets = new Map();
  const connections = new Map();
  for (const target of process.targets) {
    const earlier = known.get(target.name);
    if (earlier !== undefined && elapsed > 0) {
      targets.set(target.name, difference(earlier, target, elapsed));
    }
    const own = new Map((earlier?.connections ?? []).map((one) => [one.id, one]));
    for (const connection of target.connections) {
      const first = own.get(connection.id);
      if (first !== undefined && elapsed > 0) {
        connections.set(connection.id, difference(first, connection, elapsed));
      }
    }
  }
  return { targets, connections };
}

function difference(before, after, elapsed) {
  const of = (key) => Math.max(0, after[key] - before[key]) / elapsed;
  return { up: of("bytes_up"), down: of("bytes_down") };
}

// Returns the connections of all targets with their target and rates, sorted and filtered.
export function listed(process, rates, { words, column, descending }) {
  const all = process.targets.flatMap((target) =>
    target.connections.map((connection) => {
      const { up = null, down = null } = rates.connections.get(connection.id) ?? {};
      const total = up === null ? null : up + down;
      return { ...connection, target: target.name, rate_up: up, rate_down: down, rate: total };
    }));
  const text = ({ program, user, database, target, peer, state }) =>
    [program, user, database, target, peer, state].join(" ").toLowerCase();
  const wanted = words.toLowerCase().split(/\s+/).filter((word) => word !== "");
  const shown = all.filter((one) => wanted.every((word) => text(one).includes(word)));
  const order = (a, b) => {
    const [x, y] = [a[column], b[column]];
    const compared = typeof x === "string" ? x.localeCompare(y) : (x ?? -1) - (y ?? -1);
    return (descending ? -compared : compared) || a.id - b.id;
  };
  return { all: all.length, shown: shown.sort(order) };
}

// Returns the AWS identities with the targets that use them.
export function identities(process) {
  const all = new Map();
  for (const { name, identity } of process.targets) {
    if (identity === null || identity === undefined) {
      continue;
    }
    const key = JSON.stringify([identity.source, identity.reason]);
    const known = all.get(key);
    if (known === undefined) {
      all.set(key, { ...identity, targets: [name] });
    } else {
      known.targets.push(name);
      if ((identity.expires_in_seconds ?? Infinity) < (known.expires_in_seconds ?? Infinity)) {
        known.expires_in_seconds = identity.expires_in_seconds;
      }
    }
  }
  return [...all.values()];
}

// Returns the logins of an answer of `/logins` that arrived at `now`, oldest first. Its ages are those
// of the reading, so a login that is in `before` keeps its time.
export function loginsOf(targets, now, before) {
  const key = (target, seconds) => JSON.stringify([target, seconds]);
  const known = new Map(before.map((login) => [key(login.target, login.values[0]), login.at]));
  const all = targets.flatMap(({ name, logins }) => logins.map(([since, seconds]) => {
    const [read, earlier] = [now - since * 1000, known.get(key(name, seconds))];
    const at = Math.abs(read - earlier) < 1000 ? earlier : read;
    return { at, joined: true, values: [seconds], label: name, target: name };
  }));
  return all.sort((a, b) => a.at - b.at);
}

// Returns a percentile by the nearest rank: a value that was measured.
export function percentile(values, percent) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.ceil((sorted.length * percent) / 100) - 1];
}
