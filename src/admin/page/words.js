// Numbers and times as words, in the forms of `pgiam status`.

// Formats a number with a decimal unit, in three digits.
export function bytes(count) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (count < 999.5) {
      return `${unit === "B" || count >= 99.95 ? count.toFixed(0) : count.toFixed(1)} ${unit}`;
    }
    count /= 1000;
  }
  return `${count.toFixed(1)} TB`;
}

// Formats bytes per second; an unknown rate is a dash.
export function rate(perSecond) {
  return perSecond === null || perSecond === undefined ? "–" : `${bytes(perSecond)}/s`;
}

// Formats a measured duration: "84 ms", "1.25 s".
export function took(seconds) {
  if (seconds === null || seconds === undefined) {
    return "–";
  }
  if (seconds < 0.9995) {
    const digits = seconds > 0 && seconds < 0.00995 ? 1 : 0;
    return `${(seconds * 1000).toFixed(digits)} ms`;
  }
  return seconds < 9.995 ? `${seconds.toFixed(2)} s` : `${seconds.toFixed(1)} s`;
}

// Formats a time span as one number.
export function age(seconds) {
  if (seconds < 59.5) {
    return `${seconds.toFixed(0)} s`;
  }
  if (seconds < 3600) {
    return `${Math.floor(seconds / 60)} min`;
  }
  if (seconds < 48 * 3600) {
    return `${Math.floor(seconds / 3600)} h`;
  }
  return `${Math.floor(seconds / 86400)} d`;
}

// Formats a time of the day in the browser's time zone.
export function clock(milliseconds, withSeconds = true) {
  const time = new Date(milliseconds);
  const two = (number) => String(number).padStart(2, "0");
  const text = `${two(time.getHours())}:${two(time.getMinutes())}`;
  return withSeconds ? `${text}:${two(time.getSeconds())}` : text;
}

// Formats a number of things.
export function count(number, thing, things = `${thing}s`) {
  return `${number} ${number === 1 ? thing : things}`;
}

// Quotes a word for a POSIX shell.
export function shell(word) {
  return /^[A-Za-z0-9_.:/@%+=-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

// Beginnings of commands, statements and policies in a remedy, behind a colon.
const PROGRAM = /^(?:(?:aws|brew|createuser|curl|export|nc|nslookup|sudo|sysctl|systemctl|systemd-run|ulimit) \S|(?:psql|ssh|kill) -|pgiam (?:-|(?:check|down|explain|init|list|login|logout|psql|run|serve|service|setup|status|stop|token|tunnel|up|url|wait)\b))/;
const STATEMENT = /^(?:GRANT|REVOKE|ALTER|CREATE|SELECT|AWS IAM) /;

// Returns the length of the command at the beginning of a text; 0 if there is none.
function commandLength(text) {
  if (text.startsWith('{"')) {
    let depth = 0;
    const end = [...text].findIndex((sign) => {
      depth += { "{": 1, "}": -1 }[sign] ?? 0;
      return depth === 0;
    });
    return end < 0 ? text.length : end + 1;
  }
  if (STATEMENT.test(text)) {
    const end = text.indexOf(";");
    return end < 0 ? text.length : end + 1;
  }
  if (!PROGRAM.test(text)) {
    return 0;
  }
  const end = text.search(/\)?; | \(| \[|\)?, [a-z]|\)?\.? [A-Z][a-z]+ |\)?\.$|\)$/);
  return end < 0 ? text.length : end;
}

// Splits a remedy into sentences and commands, so that commands can be copied.
export function pieces(text) {
  const found = [];
  const add = (command, words) => {
    if (words.trim() !== "") {
      found.push({ command, text: words.trim() });
    }
  };
  for (const line of text.split("\n")) {
    if (line.startsWith("  ")) {
      add(true, line);
      continue;
    }
    let [begin, at] = [0, line.indexOf(": ")];
    while (at >= 0) {
      const start = at + 2;
      const length = commandLength(line.slice(start));
      if (length > 0) {
        add(false, line.slice(begin, start));
        add(true, line.slice(start, start + length));
        begin = start + length + /^\)?[.;,]?/.exec(line.slice(start + length))[0].length;
      }
      at = line.indexOf(": ", Math.max(start, begin));
    }
    add(false, line.slice(begin));
  }
  return found;
}
