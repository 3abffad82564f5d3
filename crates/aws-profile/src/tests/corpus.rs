//! All recorded cases three times: the AWS CLI, this crate and botocore.

use std::collections::{BTreeMap, BTreeSet};

use super::cases::{Case, Input, compare, in_words};
use super::{botocore, chain, files, written};

/// A case with another outcome in botocore than in the AWS CLI.
struct BotocoreDifference {
    case: &'static str,
    botocore: &'static str,
    reason: &'static str,
}

const KNOWN_BOTOCORE_DIFFERENCES: &[BotocoreDifference] = &[
    BotocoreDifference {
        case: "both profile variables",
        botocore: "X3",
        reason: "botocore prefers AWS_DEFAULT_PROFILE to AWS_PROFILE",
    },
    BotocoreDifference {
        case: "empty --profile",
        botocore: "no such profile",
        reason: "the CLI drops an empty option; here botocore is asked for the profile \"\"",
    },
    BotocoreDifference {
        case: "AWS_REGION and AWS_DEFAULT_REGION",
        botocore: "X, region b",
        reason: "botocore does not know AWS_REGION",
    },
    BotocoreDifference {
        case: "empty AWS_REGION",
        botocore: "X, region b",
        reason: "botocore does not know AWS_REGION",
    },
];

/// Inputs on which programs differ, and their tests.
const PITFALLS: &str = include_str!("pitfalls.txt");

/// Returns all recorded cases.
pub(super) fn cases() -> Vec<Case> {
    [files::cases(), chain::cases(), written::cases()].concat()
}

#[test]
fn each_known_pitfall_has_a_test() {
    let names: BTreeSet<&str> = cases().iter().map(|case| case.name).collect();
    let pitfalls = PITFALLS.lines().filter(|line| !line.starts_with("//"));
    let pitfalls: Vec<_> = pitfalls
        .map(|line| line.split_once(" -> ").unwrap())
        .collect();
    assert!(pitfalls.len() >= 126, "{}", pitfalls.len());
    for (pitfall, tests) in pitfalls {
        if let Some((file, function)) = tests.split_once(".rs: ") {
            let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../");
            let text = std::fs::read_to_string(format!("{root}{file}.rs")).unwrap();
            assert!(
                text.contains(&format!("fn {function}(")),
                "{pitfall}: {tests}"
            );
        } else {
            let missing: Vec<_> = tests
                .split(" | ")
                .filter(|name| !names.contains(name))
                .collect();
            assert!(missing.is_empty(), "{pitfall}: {missing:?}");
        }
    }
}

/// Compares each case with botocore. Every difference must be in the list above, and each of these
/// must occur.
fn compare_with_botocore(cases: &[Case]) {
    let inputs: Vec<Input> = cases.iter().map(Case::input).collect();
    let Some(outcomes) = botocore::outcomes(&inputs) else {
        return;
    };
    let differences = KNOWN_BOTOCORE_DIFFERENCES.iter();
    let mut differences: BTreeMap<_, _> = differences.map(|known| (known.case, known)).collect();
    let mut wrong = Vec::new();
    for (case, outcome) in cases.iter().zip(&outcomes) {
        let name = case.name;
        let known = differences.remove(name);
        let expected = known.map_or(case.cli, |known| known.botocore);
        let ours = case.input().resolve();
        let is_elsewhere = in_words(&ours) == outcome.text && !outcome.is(&ours);
        if outcome.text != expected || is_elsewhere {
            wrong.push(format!(
                "{name}: expected {expected:?}, botocore {outcome:?}"
            ));
        }
        let is_known =
            known.is_none_or(|known| known.botocore != case.cli && !known.reason.is_empty());
        assert!(is_known, "{name}: no difference");
    }
    assert!(
        differences.is_empty(),
        "no such case: {:?}",
        differences.keys()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn recorded_cases_lead_to_the_identity_of_the_cli() {
    let cases = cases();
    let deviations = [files::DEVIATIONS, chain::DEVIATIONS, written::DEVIATIONS].concat();
    let (count, ours) = (cases.len(), deviations.len());
    let of_botocore = KNOWN_BOTOCORE_DIFFERENCES.len();
    println!(
        "{count} cases; the CLI differs from us in {ours}, and from botocore in {of_botocore}"
    );
    assert!(count >= 300, "{count} cases");
    compare(&cases, &deviations);
    compare_with_botocore(&cases);
}
