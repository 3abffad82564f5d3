use super::*;
use crate::admin::document::{Failure, Target};

fn process(state: &str, targets: &[(&str, bool)]) -> Process {
    let target = |(name, ready): &(&str, bool)| Target {
        name: (*name).to_owned(),
        state: if *ready { "idle" } else { "failing" }.to_owned(),
        ready: *ready,
        last_error: (!ready).then(|| Failure {
            id: "aws.expired".to_owned(),
            ..Failure::default()
        }),
        ..Target::default()
    };
    Process {
        pid: 4711,
        state: state.to_owned(),
        targets: targets.iter().map(target).collect(),
        ..Process::default()
    }
}

#[test]
fn what_is_waited_for_has_a_name() {
    let serving = process("serving", &[("orders", true), ("reports", false)]);
    let starting = process("starting", &[("orders", true)]);
    let missing = |processes: &[Process], targets: &[&str]| {
        let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
        super::missing(processes, &targets)
    };
    let failing = Some("target \"reports\" is failing [aws.expired]".to_owned());
    let none = Some("no pgiam of yours is running".to_owned());
    assert_eq!(missing(&[], &[]), none);
    assert_eq!(missing(&[], &["orders"]), none);
    let serving = std::slice::from_ref(&serving);
    assert_eq!(missing(serving, &["orders"]), None);
    assert_eq!(missing(serving, &[]), failing);
    assert_eq!(missing(serving, &["orders", "reports"]), failing);
    let unknown = Some("no pgiam serves a target \"other\"".to_owned());
    assert_eq!(missing(serving, &["orders", "other"]), unknown);
    let starting = std::slice::from_ref(&starting);
    let not_yet = Some("process 4711 is starting".to_owned());
    assert_eq!(missing(starting, &[]), not_yet);
    assert!(missing(starting, &["orders"]).is_some());
}
