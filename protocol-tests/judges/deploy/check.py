#!/usr/bin/env python3
"""Checks the files for operations: that they parse, and ask pgiam for nothing that it does not have.

usage: check.py [PROGRAM]

With PROGRAM, a pgiam that is built, its help says which commands, flags and variables there are.
YAML is looked at where Python has the package "yaml".
"""

import json
import pathlib
import plistlib
import re
import shlex
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
# Variables that are no flags.
VARIABLES = {"PGIAM_LOCAL_PASSWORD"}
WORKFLOWS = sorted((ROOT / ".github").rglob("*.yml"))
FILES = sorted(file for file in (ROOT / "deploy").rglob("*") if file.is_file())
FILES += [ROOT / "Dockerfile", ROOT / "docker-compose.yml", ROOT / "deny.toml"]


def parse(file):
    """The documents in a file; none if it is of no kind that can be parsed here."""
    text = file.read_text(encoding="utf-8")
    kind = file.suffix
    if kind == ".json":
        return [json.loads(text)]
    if kind == ".plist":
        return [plistlib.loads(text.encode())]
    if kind == ".toml" and tomllib:
        return [tomllib.loads(text)]
    if kind in (".yml", ".yaml") and yaml:
        return list(yaml.safe_load_all(text))
    return []


def mappings(value):
    """Every mapping inside a document."""
    if isinstance(value, dict):
        yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in inner:
        yield from mappings(part)


def in_document(document):
    """The command lines of pgiam in a Kubernetes, ECS, Compose or launchd file."""
    for part in mappings(document):
        if part.get("name") == "pgiam" or "pgiam" in str(part.get("container_name", "")):
            yield part.get("args") or part.get("command") or []
        for words in part.values():
            if isinstance(words, list) and all(isinstance(word, str) for word in words):
                words = words[1:] if words[:1] == ["CMD"] else words
                if words and pathlib.PurePosixPath(words[0]).name == "pgiam":
                    yield words[1:]
        if tomllib and "pgiam.toml" in part:
            tomllib.loads(part["pgiam.toml"])


def in_text(file):
    """The command lines of pgiam in a text: a unit, a Dockerfile, Markdown."""
    text = file.read_text(encoding="utf-8")
    if file.name == "Dockerfile":
        for words in re.findall(r"CMD (\[.*\])", text):
            words = json.loads(words)
            yield words[1:] if words[0] == "pgiam" else words
    elif file.suffix == ".service":
        for line in re.findall(r"^Exec\w+=(.*)$", text, re.M):
            words = shlex.split(line)
            if words[0].endswith("/pgiam"):
                yield words[1:]
    elif file.suffix == ".md":
        fenced = re.findall(r"^```.*?^```", text, re.M | re.S)
        lines = re.findall(r"`pgiam ([^`\n]+)`", text)
        lines += [line for block in fenced for line in re.findall(r"^pgiam (.+)$", block, re.M)]
        for line in lines:
            yield shlex.split(line, comments=True)


class Program:
    """What a built pgiam understands, by its own help and its reference."""

    def __init__(self, path):
        self.path = path
        self.known = {}
        commands = self.help().split("Commands:", 1)[-1].split("\n\n", 1)[0]
        self.commands = re.findall(r"^  ([a-z]+)", commands, re.M)
        # The reference is generated from the command line's definition, and a test compares them.
        reference = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
        self.variables = set(VARIABLES) | set(re.findall(r"PGIAM_[A-Z_]+[A-Z]", reference))

    def help(self, *command):
        run = subprocess.run([self.path, *command, "--help"], capture_output=True, text=True, timeout=10)
        if run.returncode:
            sys.exit(f"{self.path} {' '.join(command)} --help: {run.stderr}")
        return run.stdout

    def flags_of(self, command):
        if command not in self.known:
            text = "" if command == "help" else self.help(command)
            self.known[command] = (set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)), text)
        return self.known[command]

    def objections(self, words):
        command = words[0] if words and not words[0].startswith("-") else "serve"
        if command not in self.commands:
            return [f"no command {command}"]
        own = words[: words.index("--")] if "--" in words else words
        flags = {word.split("=")[0] for word in own if word.startswith("--")}
        return [f"pgiam {command} has no {flag}" for flag in sorted(flags - self.flags_of(command)[0])]


def same_compiler():
    """The versions of Rust that are written down outside Cargo.toml."""
    pattern = r"(?:RUST: |RUST=|container: rust:)(\d+\.\d+\.\d+)"
    files = [ROOT / "Dockerfile", *WORKFLOWS]
    versions = {v for file in files for v in re.findall(pattern, file.read_text(encoding="utf-8"))}
    return [] if len(versions) == 1 else [f"several versions of Rust: {', '.join(sorted(versions))}"]


def main():
    program = Program(sys.argv[1]) if len(sys.argv) > 1 and pathlib.Path(sys.argv[1]).exists() else None
    wrong = same_compiler()
    lines = 0
    for file in FILES + WORKFLOWS:
        name = file.relative_to(ROOT)
        try:
            commands = [words for document in parse(file) for words in in_document(document)]
            commands += in_text(file)
        except Exception as error:  # Each parser has a kind of its own.
            wrong.append(f"{name}: {error}")
            continue
        lines += len(commands)
        if not program:
            continue
        for words in commands:
            wrong += [f"{name}: {objection}" for objection in program.objections(words)]
        variables = set(re.findall(r"PGIAM_[A-Z_]+[A-Z]", file.read_text(encoding="utf-8")))
        wrong += [f"{name}: no variable {variable}" for variable in sorted(variables - program.variables)]
    for line in wrong:
        print(f"deploy: {line}", file=sys.stderr)
    if wrong:
        sys.exit(1)
    asked = f"{lines} command lines understood" if program else "command lines not checked: no pgiam is built"
    print(f"deploy: {len(FILES) + len(WORKFLOWS)} files{'' if yaml else ' (not those in YAML)'}, {asked}", file=sys.stderr)


if __name__ == "__main__":
    main()
