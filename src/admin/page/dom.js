// Elements of the page. All text goes through `textContent`, so that no name becomes markup.

// Creates an element. `properties`: `text`, `class`, `on` (event listeners), or attributes.
export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "text") {
      element.textContent = value;
    } else if (key === "on") {
      Object.entries(value).forEach(([event, listener]) => element.addEventListener(event, listener));
    } else {
      element.setAttribute(key, value);
    }
  }
  element.append(...children);
  return element;
}

// Sets the text of an element if it differs, so that a selection survives.
export function say(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

// Sets an attribute if it differs; `null` removes it.
export function set(element, name, value) {
  if (value === null) {
    element.removeAttribute(name);
  } else if (element.getAttribute(name) !== value) {
    element.setAttribute(name, value);
  }
}

// Makes the children of `parent` one element for each item, in order, and removes all others.
// Elements are kept by key, so that focus and selection stay. `create` returns an element for an item, `update` fills it.
export function reconcile(parent, items, { key, create, update }) {
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const used = new Set();
  let before = null;
  for (const item of items) {
    const name = String(key(item));
    let element = known.get(name);
    known.delete(name);
    if (element === undefined) {
      element = create(item);
      element.dataset.key = name;
    }
    used.add(element);
    update?.(element, item);
    const expected = before === null ? parent.firstElementChild : before.nextElementSibling;
    if (expected !== element) {
      parent.insertBefore(element, expected);
    }
    before = element;
  }
  [...parent.children].filter((element) => !used.has(element)).forEach((element) => element.remove());
  if (focused !== null && focused !== document.activeElement && parent.contains(focused)) {
    focused.focus({ preventScroll: true }); // An element that moves loses the focus.
  }
}

// A button that copies a text. `announce` tells screen readers.
export function copyButton(text, announce) {
  const button = make("button", { type: "button", class: "copy", text: "Copy", "aria-label": `Copy: ${text}` });
  button.addEventListener("click", async () => {
    const copied = await copy(text);
    say(button, copied ? "Copied" : "Not copied");
    announce(copied ? "Copied" : "The browser did not allow copying");
    setTimeout(() => say(button, "Copy"), 2000);
  });
  return button;
}

// The clipboard of the browser exists on localhost and over TLS only; elsewhere a selection serves.
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = make("textarea", { class: "unseen", readonly: "", "aria-hidden": "true" });
    area.value = text;
    const parent = document.querySelector("dialog[open]") ?? document.body;
    const focused = document.activeElement;
    parent.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return copied;
  }
}

// A command with its copy button.
export function command(text, announce) {
  return make("p", { class: "command" }, make("code", { text }), copyButton(text, announce));
}

// A table whose rows become cards on narrow screens. `columns`: `name`, `label`, `number`, and
// `sort` if its heading sorts.
export class Table {
  constructor(parent, { label, columns, key, fill, empty, sort = null, cells = {} }) {
    Object.assign(this, { columns, key, fill, cells });
    const heading = (column) => {
      const { text = column.label } = column;
      const cell = make("th", { scope: "col", role: "columnheader", class: column.number ? "number" : "" });
      if (sort === null || column.sort === undefined) {
        say(cell, text);
      } else {
        cell.append(make("button", { type: "button", text, on: { click: () => sort(column.sort) } }));
      }
      return cell;
    };
    this.headings = columns.map(heading);
    this.body = make("tbody", { role: "rowgroup" });
    // The roles are explicit, because the style of the cards takes the implicit ones away.
    const head = make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...this.headings));
    this.table = make("table", { role: "table", "aria-label": label }, head, this.body);
    this.empty = make("p", { class: "muted", text: empty });
    parent.append(this.table, this.empty);
  }

  show(items, sorted = null) {
    this.table.hidden = items.length === 0;
    this.empty.hidden = items.length !== 0;
    this.columns.forEach((column, nth) => {
      const is = sorted !== null && column.sort === sorted.column;
      set(this.headings[nth], "aria-sort", is ? (sorted.descending ? "descending" : "ascending") : null);
    });
    reconcile(this.body, items, {
      key: this.key,
      create: () => make("tr", { role: "row" }, ...this.columns.map((column) =>
        make("td", {
          role: "cell", class: [column.name, column.number ? "number" : ""].join(" ").trim(), "data-label": column.label,
        }))),
      update: (row, item) => this.fill([...row.children], item, row),
    });
  }
}
