#!/usr/bin/env python3
"""Measures the language of comments, messages and Markdown, and fails above the bounds of today.

usage: words.py [--list] [--self-test]

Prints one line per measure. --list also prints every hit as FILE:LINE: TEXT, --self-test runs the
tests of this script instead. The exit code is 1 if a measure exceeds its bound.

The rules are in CONTRIBUTING.md, section "Language". BOUNDS is a ratchet: when a change lowers a
figure, lower its bound in the same commit. A bound never goes up. Each one ends at its final value.
"""

import argparse
import bisect
import collections
import dataclasses
import pathlib
import re
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[1]

# measure: (bound today, final bound, unit). The last two phrases have plain uses, too.
BOUNDS = {
    "pronouns in comments": (1.0, 1.0, "per 1,000 words"),
    "pronouns in Markdown": (1.0, 1.0, "per 1,000 words"),
    "documentation that opens with a question word": (4.0, 4.0, "% of the blocks"),
    "long lines in Markdown": (0, 0, "lines"),
    '"cannot be meant"': (0, 0, "times"),
    '"its likes"': (0, 0, "times"),
    '"those who"': (0, 0, "times"),
    '"what there is"': (0, 0, "times"),
    '"is told"': (10, 10, "times"),
    '"the way"': (10, 10, "times"),
}
COLUMNS = 100

PRONOUN = re.compile(r"\b(?:who|whom|whose|whoever|somebody|nobody)\b", re.I)
QUESTION = re.compile(r"[\s*_]*(?:What|Who|Whether|How|Where)\b")
PHRASES = {
    '"cannot be meant"': r"\bcannot be meant\b",
    '"its likes"': r"\bits likes?\b",
    '"those who"': r"\bthose who\b",
    '"what there is"': r"\bwhat there is\b",
    '"is told"': r"\b(?:is|are) told\b",
    '"the way"': r"\bthe way\b",
}
PHRASES = {name: re.compile(text.replace(" ", r"\s+"), re.I) for name, text in PHRASES.items()}

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
CODE_SPAN = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)")
URL = re.compile(r"https?://[^\s)>]+")
LINK_TARGET = re.compile(r"\]\([^)\s]*\)")
LINK_DEFINITION = re.compile(r" {0,3}\[[^\]]+\]:\s")
FENCE = re.compile(r"\s*(?:>\s*)?(```+|~~~+)")
TABLE_ROW = re.compile(r"\s*\|")

# Comments and literals of Rust; literals are matched so that a "//" inside one starts no comment.
RUST = re.compile(
    r"""
      (?P<line>//[^\n]*)
    | (?P<block>/\*.*?\*/)
    | (?<!\w)(?:[bc]?r(?P<hashes>\#*)"(?P<raw>.*?)"(?P=hashes))
    | "(?P<string>(?:\\.|[^"\\])*)"
    | '(?:\\.[^'\n]*|[^'\\\n])'
    """,
    re.X | re.S,
)


@dataclasses.dataclass
class Passage:
    """Adjacent lines of text: a comment, a string or a paragraph."""

    file: str
    line: int
    lines: list
    documentation: bool = False


class Figures:
    """Counts per measure, and where the hits are."""

    def __init__(self):
        self.hits = collections.defaultdict(list)
        self.total = collections.Counter()

    def hit(self, measure, file, line, text):
        self.hits[measure].append(f"{file}:{line}: {' '.join(text.split())[:COLUMNS]}")

    def pronouns(self, measure, passage):
        for number, line in enumerate(passage.lines, passage.line):
            line = without_code(line)
            self.total[measure] += len(WORD.findall(line))
            for _ in PRONOUN.finditer(line):
                self.hit(measure, passage.file, number, line)

    def opening(self, measure, passage):
        self.total[measure] += 1
        first = next((line for line in passage.lines if line.strip()), "")
        if QUESTION.match(first):
            self.hit(measure, passage.file, passage.line, first)

    def phrases(self, passage):
        text = "\n".join(CODE_SPAN.sub("", line) for line in passage.lines)
        for measure, pattern in PHRASES.items():
            for found in pattern.finditer(text):
                before = text.count("\n", 0, found.start())
                self.hit(measure, passage.file, passage.line + before, passage.lines[before])

    def value(self, measure):
        count, unit = len(self.hits[measure]), BOUNDS[measure][2]
        share = {"per 1,000 words": 1000, "% of the blocks": 100}.get(unit)
        if share is None:
            return count
        return round(share * count / max(self.total[measure], 1), 2)


def without_code(line):
    """The line without code spans, addresses and targets of links."""
    return URL.sub("", LINK_TARGET.sub("]", CODE_SPAN.sub("", line)))


def marker_of(comment):
    """The marker of a line comment. Four slashes are no documentation in Rust."""
    if comment.startswith("////"):
        return "//"
    return comment[:3] if comment[:3] in ("///", "//!") else "//"


def of_rust(text, file):
    """Yields the comments of a Rust file, one per block of lines, and its string literals."""
    starts = [0] + [found.end() for found in re.finditer("\n", text)]
    block, last = None, (None, 0)
    for token in RUST.finditer(text):
        number = bisect.bisect_right(starts, token.start())
        if token["line"] is not None:
            marker = marker_of(token["line"])
            own = not text[starts[number - 1] : token.start()].strip()
            content = token["line"][len(marker) :]
            if block and own and last == (marker, number - 1):
                block.lines.append(content)
            else:
                if block:
                    yield "comment", block
                block = Passage(file, number, [content], marker != "//")
            # The comment behind a statement does not go on in the line below it.
            last = (marker, number if own else -1)
        elif token["block"] is not None:
            opening = re.match(r"/\*[*!]?", token["block"])[0]
            lines = token["block"][len(opening) : -2].split("\n")
            yield "comment", Passage(file, number, lines, len(opening) == 3)
        else:
            literal = token["raw"] if token["raw"] is not None else token["string"]
            if literal:
                lines = [re.sub(r"\\$", "", line) for line in literal.replace(r"\n", "  ").split("\n")]
                yield "string", Passage(file, number, lines)
    if block:
        yield "comment", block


def prose_of(text):
    """Yields number and text of the lines outside code blocks; code blocks count as empty lines."""
    fence = None
    for number, line in enumerate(text.split("\n"), 1):
        found = FENCE.match(line)
        if fence:
            if found and found[1].startswith(fence) and not line.strip().strip("`~> "):
                fence = None
            yield number, ""
        elif found:
            fence = found[1]
            yield number, ""
        else:
            yield number, line


def is_long(line):
    """Tells whether a line of Markdown has to be wrapped."""
    if len(line) <= COLUMNS or TABLE_ROW.match(line) or LINK_DEFINITION.match(line):
        return False
    return len(URL.sub("", LINK_TARGET.sub("]()", line))) > COLUMNS


def measure_rust(figures, text, file):
    for kind, passage in of_rust(text, file):
        figures.phrases(passage)
        if kind == "comment":
            figures.pronouns("pronouns in comments", passage)
            if passage.documentation:
                figures.opening("documentation that opens with a question word", passage)


def measure_markdown(figures, text, file, pronouns):
    lines = list(prose_of(text))
    passage = Passage(file, 1, [line for _, line in lines])
    figures.phrases(passage)
    if pronouns:
        figures.pronouns("pronouns in Markdown", passage)
    for number, line in lines:
        if is_long(line):
            figures.hit("long lines in Markdown", file, number, f"{len(line)} columns: {line}")


def files_below(folder, suffix):
    for file in sorted(folder.iterdir()):
        if file.is_dir():
            if file.name not in (".git", "target", "node_modules"):
                yield from files_below(file, suffix)
        elif file.suffix == suffix:
            yield file


def measure_tree():
    figures = Figures()
    for folder in ("src", "crates"):
        for file in files_below(ROOT / folder, ".rs"):
            measure_rust(figures, file.read_text(encoding="utf-8"), str(file.relative_to(ROOT)))
    for file in files_below(ROOT, ".md"):
        name = file.relative_to(ROOT).as_posix()
        pronouns = "/" not in name or name.startswith("docs/") or name == "protocol-tests/README.md"
        measure_markdown(figures, file.read_text(encoding="utf-8"), name, pronouns)
    return figures


def report(figures, with_hits):
    """Prints the figures; returns whether all of them are within their bounds."""
    fine = True
    for measure, (today, final, unit) in BOUNDS.items():
        value = figures.value(measure)
        note = ""
        if value > today:
            fine, note = False, "  TOO MANY"
        elif today > max(value, final) and (unit in ("lines", "times") or today - value >= 0.1):
            note = "  lower the bound"
        print(f"{measure:<46} {value:>7} {unit:<16} bound {today}, final {final}{note}")
        if with_hits:
            for hit in figures.hits[measure]:
                print(f"    {hit}")
    return fine


class Tests(unittest.TestCase):
    def rust(self, text):
        figures = Figures()
        measure_rust(figures, text, "a.rs")
        return figures

    def markdown(self, text):
        figures = Figures()
        measure_markdown(figures, text, "a.md", True)
        return figures

    def test_pronouns_count_in_comments_and_not_in_code(self):
        figures = self.rust('let who = "// who"; // Nobody here\nfn f<\'a>(c: char) { c == \'"\' } // whose\n')
        self.assertEqual(len(figures.hits["pronouns in comments"]), 2)
        self.assertEqual(figures.total["pronouns in comments"], 3)
        self.assertEqual(figures.value("pronouns in comments"), 666.67)

    def test_raw_strings_hold_no_comments(self):
        figures = self.rust('let a = r#"a " // who"#; let b = "\\" // who"; /* who */')
        self.assertEqual(len(figures.hits["pronouns in comments"]), 1)

    def test_code_spans_and_links_are_not_words(self):
        figures = self.markdown("See `who am i` and [the list](who.md), https://who.int/nobody\n```\nwho\n```\nwho\n")
        self.assertEqual(figures.hits["pronouns in Markdown"], ["a.md:5: who"])
        self.assertEqual(figures.total["pronouns in Markdown"], 5)

    def test_only_the_first_line_of_documentation_is_its_opening(self):
        text = "//! Parses.\n//! What else.\n\n/// What a port is.\n/// How.\nfn f() {}\n// What is no documentation.\n//// Nor is this.\n"
        figures = self.rust(text)
        measure = "documentation that opens with a question word"
        self.assertEqual(figures.hits[measure], ["a.rs:4: What a port is."])
        self.assertEqual(figures.value(measure), 50.0)

    def test_phrases_are_found_across_lines_and_in_strings(self):
        figures = self.rust('// It cannot\n// be meant.\nlet a = "is\n told";\n')
        self.assertEqual(figures.hits['"cannot be meant"'], ["a.rs:1: It cannot"])
        self.assertEqual(figures.hits['"is told"'], ["a.rs:3: is"])
        self.assertEqual(self.markdown("the\nway, not `the way`\n").value('"the way"'), 1)

    def test_long_lines_are_those_that_can_be_wrapped(self):
        long = "word " * 30
        link = f"[{'a' * 90}]({'b' * 90})"
        text = f"{long}\n| {long} |\n```sh\n{long}\n```\n{link}\n[a]: {long}\n    {long}\nhttps://{'c' * 120}\n"
        hits = self.markdown(text).hits["long lines in Markdown"]
        self.assertEqual([hit.split(":")[1] for hit in hits], ["1", "8"])

    def test_a_comment_behind_code_is_a_block_of_its_own(self):
        comments = [p.lines for kind, p in of_rust("a(); // one\n// two\n// three\n", "a.rs") if kind == "comment"]
        self.assertEqual(comments, [[" one"], [" two", " three"]])

    def test_bounds_are_not_below_the_final_ones(self):
        for measure, (today, final, _) in BOUNDS.items():
            self.assertGreaterEqual(today, final, measure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--list", action="store_true", help="print every hit")
    parser.add_argument("--self-test", action="store_true", help="test this script")
    args = parser.parse_args()
    if args.self_test:
        suite = unittest.defaultTestLoader.loadTestsFromTestCase(Tests)
        sys.exit(not unittest.TextTestRunner(verbosity=0).run(suite).wasSuccessful())
    if not report(measure_tree(), args.list):
        sys.exit("words: a bound is exceeded; ./scripts/words.py --list prints every hit")


if __name__ == "__main__":
    main()
