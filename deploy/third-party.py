#!/usr/bin/env python3
"""Prints the licences of everything that is linked into pgiam, as their texts ask for.

usage: third-party.py TARGET-TRIPLE

Where a package may be had under the MIT licence among others, that is the one taken.
"""

import json
import pathlib
import re
import subprocess
import sys


def linked(triple):
    """The packages that the program is made of: no build scripts, no tests, none of our own."""
    run = subprocess.run(
        ["cargo", "metadata", "--locked", "--format-version=1", "--filter-platform", triple],
        check=True,
        stdout=subprocess.PIPE,
    )
    metadata = json.loads(run.stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    todo, seen = [metadata["resolve"]["root"]], set()
    while todo:
        package = todo.pop()
        if package in seen:
            continue
        seen.add(package)
        todo += [
            dep["pkg"]
            for dep in nodes[package]["deps"]
            if any(kind["kind"] is None for kind in dep["dep_kinds"])
        ]
    found = [packages[package] for package in seen if packages[package]["source"]]
    return sorted(found, key=lambda package: (package["name"], package["version"]))


def texts(package):
    """The licence files in a package: those of MIT alone where there is a choice, and notices."""
    folder = pathlib.Path(package["manifest_path"]).parent
    # Those with a library in C inside have its licence beside it.
    inside = folder.rglob("*") if package["name"].endswith("-sys") else folder.iterdir()
    files = sorted(
        file
        for file in inside
        if file.is_file() and re.match(r"(?i)(un)?licen[sc]e|copying|notice", file.name)
    )
    mit = [file for file in files if re.search(r"(?i)mit|notice", file.name)]
    said = package["license"] or ""
    if " AND " not in said and re.search(r"(^|OR |/ ?)MIT\b(?!-)", said) and mit:
        files = mit
    return [file.read_text(encoding="utf-8", errors="replace").strip() for file in files]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    packages = linked(sys.argv[1])
    owners = {}
    print("pgiam is linked with the packages below. Behind them stand the texts of their licences,")
    print("each once, with the names of the packages that have it.\n")
    for package in packages:
        print(f"{package['name']} {package['version']}: {package['license']}")
        for text in texts(package):
            owners.setdefault(text, []).append(package["name"])
    for text, names in owners.items():
        print(f"\n{'=' * 78}\n{', '.join(dict.fromkeys(names))}\n{'=' * 78}\n\n{text}")


if __name__ == "__main__":
    main()
