#!/usr/bin/env python3
"""Checks that what the documents show can be pasted: examples parse, and "~" stands only where a
shell expands it. Links to files and headings of this repository must lead somewhere.

usage: check.py [FILE...]     all documents when none is named

Neither libpq, nor Node.js, nor a unit of systemd expands "~", and no shell does so within quotes or
behind "--flag=". There the documents write $HOME, %h or a whole path. The keys of pgiam.toml that are
paths may have it, because pgiam expands it there (src/config/home_path.rs).
"""

import json
import pathlib
import re
import subprocess
import sys

try:
    import tomllib
except ImportError:  # Python 3.10 and older
    tomllib = None
try:
    import yaml
except ImportError:
    yaml = None

ROOT = pathlib.Path(__file__).resolve().parents[3]
MARKDOWN = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]
MARKDOWN += [ROOT / "certs/README.md", ROOT / "protocol-tests/README.md", *(ROOT / "src").rglob("*.md")]
# Other texts that people copy from.
TEXTS = [*(ROOT / "deploy").rglob("*"), ROOT / "docker-compose.yml", ROOT / "Dockerfile"]
# The code that expands it, and its tests, hold what is not expanded elsewhere.
OWN = ("tests.rs", "home_path.rs")
TEXTS += [*(file for file in (ROOT / "src").rglob("*.rs") if file.name not in OWN)]
TEXTS += [*(ROOT / "src").rglob("*.yaml"), *(ROOT / "src").rglob("*.tf")]

FENCE = re.compile(r"^(?P<indent> *)```(?P<kind>[\w-]*)\n(?P<text>.*?)^ *```", re.M | re.S)
# pgiam's own.
KEYS = re.compile(r"""\b(?:ca_file|password_file|socket_dir) *= *["']~/""")
# Behind these nobody expands it, but for a shell behind a blank.
GLUED = re.compile(r"""["'=:,]~/""")
QUOTED = re.compile(r"'[^'\n]*~/[^'\n]*'|\"[^\"\n]*~/[^\"\n]*\"")


LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PICTURE = re.compile(r"""\b(?:src|srcset)="([^"]+)\"""")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.M)
ANCHOR = re.compile(r"""<a id="([^"]+)">""")


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def run(command, text):
    result = subprocess.run(command, input=text, capture_output=True, text=True, timeout=20)
    if result.returncode:
        raise ValueError(result.stderr.strip())


def parse(kind, text):
    """Raises what is wrong with an example."""
    if kind in ("sh", "shell"):
        run(["sh", "-n"], text)
    elif kind == "bash":
        run(["bash", "-n"], text)
    elif kind == "toml" and tomllib:
        tomllib.loads(text)
    elif kind == "json":
        json.loads(text)
    elif kind in ("yaml", "yml") and yaml:
        list(yaml.safe_load_all(text))
    elif kind == "python":
        compile(text.replace("await ", ""), "example", "exec")


def tildes(kind, text):
    """Where an example has a "~" that stays as it is."""
    for number, line in enumerate(text.splitlines()):
        if "~/" not in line:
            continue
        comment = "//" if kind in ("js", "rust") else "#"
        code = KEYS.sub("", line.split(comment, 1)[0])
        if kind not in ("sh", "shell", "bash", "") and "~/" in code:
            yield number, "is expanded by a shell only"
        elif GLUED.search(code) or QUOTED.search(code):
            yield number, 'is not expanded in quotes, or behind "="'


def look_at_markdown(file):
    text = file.read_text(encoding="utf-8")
    for block in FENCE.finditer(text):
        start, kind = line_of(text, block.start("text")), block["kind"]
        inner = re.sub(f"^{block['indent']}", "", block["text"], flags=re.M)
        try:
            parse(kind, inner)
        except Exception as wrong:  # Each parser has its own.
            yield start, f"this {kind} does not parse: {wrong}"
        for number, why in tildes(kind, inner):
            yield start + number, f'"~" {why}'
    # Code within a paragraph.
    yield from broken_links(file, text)
    prose = without_fences(text)
    for span in re.finditer(r"`([^`\n]+)`", prose):
        code = KEYS.sub("", span[1])
        if GLUED.search(code) or QUOTED.search(code):
            yield line_of(prose, span.start()), f'"~" is not expanded in {span[0]}'


def without_fences(text):
    """The text with empty lines in place of examples, so that offsets keep their lines."""
    return FENCE.sub(lambda block: "\n" * block[0].count("\n"), text)


def slug(heading):
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(file):
    """The anchors of a document. A repeated heading gets a number."""
    text = without_fences(file.read_text(encoding="utf-8"))
    found = set(ANCHOR.findall(text))
    for heading in HEADING.findall(text):
        name, number = slug(heading), 0
        while (f"{name}-{number}" if number else name) in found:
            number += 1
        found.add(f"{name}-{number}" if number else name)
    return found


def broken_links(file, text):
    """Links of a document, and its pictures, that lead nowhere in this repository."""
    prose = re.sub(r"`[^`\n]*`", lambda span: "`" * len(span[0]), without_fences(text))
    for pattern in (LINK, PICTURE):
        for link in pattern.finditer(prose):
            path, _, anchor = link[1].partition("#")
            if re.match(r"[a-z]+:", path):
                continue
            target = (file.parent / path).resolve() if path else file
            if not target.exists():
                yield line_of(prose, link.start()), f"there is no {path}"
            elif anchor and target.suffix == ".md" and anchor not in anchors(target):
                yield line_of(prose, link.start()), f"{path or 'this document'} has no #{anchor}"


def look_at_text(file):
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    for number, line in enumerate(text.splitlines(), 1):
        # A string that begins with it is a path to show, or what is looked for.
        if file.suffix == ".rs":
            line = re.sub(r'"~/', '" ', line)
        if GLUED.search(KEYS.sub("", line)):
            yield number, f'"~" is not expanded in {line.strip()}'


def missing_regions():
    """Regions whose roots are not built in, by certs/README.md, that README.md does not name."""
    certs = (ROOT / "certs/README.md").read_text(encoding="utf-8")
    missing = certs.split("## Missing regions", 1)[1].split("\n## ", 1)[0]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    regions = set(re.findall(r"\b[a-z]{2}(?:-gov)?-[a-z]+-\d\b", missing))
    yield from sorted(region for region in regions if region not in readme)
    if not regions:
        yield "any region (certs/README.md lists none)"


def main():
    named = [pathlib.Path(name).resolve() for name in sys.argv[1:]]
    files = named or [file for file in [*MARKDOWN, *TEXTS] if file.is_file()]
    found = 0
    for file in sorted(set(files)):
        look_at = look_at_markdown if file.suffix == ".md" else look_at_text
        for line, what in look_at(file):
            print(f"{file.relative_to(ROOT) if file.is_relative_to(ROOT) else file}:{line}: {what}")
            found += 1
    for region in missing_regions():
        print(f"README.md: does not name {region}, whose roots are not built in")
        found += 1
    if found:
        sys.exit(f"documents: {found} to mend")
    print(f"documents: {len(set(files))} files are fine", file=sys.stderr)


main()
