// Elements from Markdown, in the subset of docs/errors.md: paragraphs, lists, tables, fenced blocks,
// and inline code, emphasis and links. Links become their text, because the documents are not here.

import { copyButton, make } from "./dom.js";

const ITEM = /^(?:[-*]|\d+\.) +/;
const FENCE = /^```(\w*)/;

// Returns the elements of a text.
export function render(text, announce) {
  return blocks(text.split("\n"), announce);
}

function blocks(lines, announce) {
  const elements = [];
  let at = 0;
  const run = (holds) => {
    const begin = at;
    while (at < lines.length && holds(lines[at])) {
      at += 1;
    }
    return lines.slice(begin, at);
  };
  const begins = (line) => line.trim() === "" || FENCE.test(line) || ITEM.test(line) || line.startsWith("|");
  while (at < lines.length) {
    const line = lines[at];
    if (line.trim() === "") {
      at += 1;
    } else if (FENCE.test(line)) {
      at += 1;
      elements.push(fenced(FENCE.exec(line)[1], run((inner) => !inner.startsWith("```")), announce));
      at += 1;
    } else if (line.startsWith("|")) {
      elements.push(table(run((row) => row.startsWith("|"))));
    } else if (ITEM.test(line)) {
      const ordered = /^\d/.test(line);
      const list = make(ordered ? "ol" : "ul");
      while (at < lines.length && ITEM.test(lines[at]) && /^\d/.test(lines[at]) === ordered) {
        list.append(item(run, lines, () => { at += 1; }, lines[at], announce));
      }
      elements.push(list);
    } else {
      at += 1;
      const rest = run((next) => !begins(next));
      elements.push(make("p", {}, ...inline([line, ...rest].join(" "))));
    }
  }
  return elements;
}

// Reads an item: its first line, and the lines that are indented below it.
function item(run, lines, skip, first, announce) {
  skip();
  const indented = run((line) => line.trim() === "" || line.startsWith("  "));
  const inner = indented.map((line) => line.replace(/^ {2,3}/, ""));
  const content = blocks([first.replace(ITEM, ""), ...inner], announce);
  const paragraph = content[0]?.tagName === "P" ? content.shift() : null;
  return make("li", {}, ...(paragraph?.childNodes ?? []), ...content);
}

function fenced(language, lines, announce) {
  const text = lines.join("\n");
  const block = make("div", { class: "command" }, make("code", { text }));
  if (language !== "") {
    block.append(copyButton(text, announce));
  }
  return block;
}

function table(rows) {
  const cells = (row) => row.replace(/^\|\s*|\s*\|$/g, "").split(/\s*\|\s*/);
  const [head, , ...body] = rows;
  const row = (name) => (text) => make("tr", {}, ...cells(text).map((cell) => make(name, {}, ...inline(cell))));
  return make("table", {}, make("thead", {}, row("th")(head)), make("tbody", {}, ...body.map(row("td"))));
}

// Returns the nodes of a paragraph.
function inline(text) {
  const nodes = [];
  const marks = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*|\[([^\]]+)\]\(([^)]+)\)/g;
  let end = 0;
  for (const found of text.matchAll(marks)) {
    const [whole, code, strong, emphasis, label] = found;
    nodes.push(text.slice(end, found.index));
    end = found.index + whole.length;
    if (code !== undefined) {
      nodes.push(make("code", { text: code }));
    } else if (label !== undefined) {
      nodes.push(...inline(label));
    } else {
      nodes.push(make(strong !== undefined ? "strong" : "em", {}, ...inline(strong ?? emphasis)));
    }
  }
  nodes.push(text.slice(end));
  return nodes.filter((node) => node !== "");
}
