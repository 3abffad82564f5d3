"""Judges Terraform configurations, given as files: they have to be HCL, and whatever they refer to has to
be in them. What the provider makes of them, only Terraform itself can say."""

import re
import sys
from pathlib import Path

import hcl2

COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)
# Strings that hold no template; none goes on in the next line.
STRING = re.compile(r'"(?:[^"\\$\n]|\\.)*"')


def names(blocks, depth):
    """The labels of blocks: `[{"aws_instance": {"bastion": …}}]` at depth 2 is `aws_instance.bastion`."""
    for block in blocks:
        for label, inner in block.items():
            label = label.strip('"')
            if label.startswith("__"):
                continue
            if depth == 1:
                yield label
            else:
                yield from (f"{label}.{name}" for name in names([inner], depth - 1))


for path in sys.argv[1:]:
    text = Path(path).read_text(encoding="utf-8")
    parsed = hcl2.loads(text)
    variables = set(names(parsed["variable"], 1))
    resources = set(names(parsed["resource"], 2))
    data = set(names(parsed["data"], 2))
    assert "aws_instance.bastion" in resources, resources
    code = STRING.sub("", COMMENT.sub("", text))
    used = set(re.findall(r"\bvar\.(\w+)", code))
    assert used == variables, f"declared and not used, or the other way round: {used ^ variables}"
    used = set(re.findall(r"\bdata\.(aws_\w+\.\w+)", code))
    assert used == data, f"read and not used, or the other way round: {used ^ data}"
    used = set(re.findall(r"(?<!data\.)\b(aws_\w+\.\w+)\b", code))
    assert used <= resources, f"not declared: {used - resources}"
    print("ok", path)
