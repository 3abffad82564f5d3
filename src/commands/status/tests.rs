use super::*;
use crate::admin::document::{FailureDocument, TargetDocument};

fn process(state: &str, targets: &[(&str, bool)]) -> ProcessDocument {
    let target = |(name, ready): &(&str, bool)| TargetDocument {
        name: (*name).to_owned(),
        state: if *ready { "idle" } else { "failing" }.to_owned(),
        ready: *ready,
        last_error: (!ready).then(|| FailureDocument {
            id: "aws.expired".to_owned(),
            ..FailureDocument::default()
        }),
        ..TargetDocument::default()
    };
    ProcessDocument {
        pid: 4711,
        state: state.to_owned(),
        targets: targets.iter().map(target).collect(),
        ..ProcessDocument::default()
    }
}

/// Returns the pids of the selected processes; the last process does not answer.
fn chosen(args: &StopArgs) -> Vec<u32> {
    let of = |kind: &str, pid, targets: &[(&str, bool)]| ProcessDocument {
        kind: kind.to_owned(),
        pid,
        ..process("serving", targets)
    };
    let both = of("serve", 1, &[("orders", true), ("reports", true)]);
    let one = of("serve", 2, &[("orders", true)]);
    let run = of("run", 3, &[("orders", true)]);
    let tunnel = of("tunnel", 4, &[("mysql.internal:3306", true)]);
    let all = [Some(&both), Some(&one), Some(&run), Some(&tunnel), None];
    let all = (1..)
        .zip(all)
        .filter(|(pid, process)| choice(args, *pid, *process) == StopAction::Stop);
    all.map(|(pid, _)| pid).collect()
}

#[test]
fn servers_are_stopped_and_jobs_only_if_they_are_chosen() {
    let stop = StopArgs::default;
    let targets = |names: &[&str]| StopArgs {
        targets: names.iter().map(ToString::to_string).collect(),
        ..stop()
    };
    assert_eq!(chosen(&stop()), [1, 2]);
    assert_eq!(
        chosen(&StopArgs {
            all: true,
            ..stop()
        }),
        [1, 2, 3, 4, 5]
    );
    for pid in [3, 5] {
        assert_eq!(
            chosen(&StopArgs {
                pid: Some(pid),
                ..stop()
            }),
            [pid]
        );
    }
    // A server with another target is not stopped for one of them.
    assert_eq!(chosen(&targets(&["orders"])), [2, 3]);
    assert_eq!(chosen(&targets(&["reports", "orders"])), [1, 2, 3]);
    assert_eq!(chosen(&targets(&["mysql.internal:3306"])), [4]);
    assert_eq!(chosen(&targets(&["nothing"])), [0; 0]);
}

#[test]
fn what_is_left_running_is_named() {
    let run = ProcessDocument {
        kind: "run".to_owned(),
        ..process("serving", &[("orders", true)])
    };
    let stop = StopArgs::default;
    let StopAction::Leave(words) = choice(&stop(), 3, Some(&run)) else {
        panic!("a job is stopped");
    };
    assert_eq!(words, "run 3 (orders)");
    let said = nothing_to_stop(&stop(), &[words]);
    assert_eq!(
        said,
        "pgiam: pgiam serve is not running; running: run 3 (orders)\nhint: stop one with pgiam stop --pid PID, or all with pgiam stop --all"
    );
    assert_eq!(nothing_to_stop(&stop(), &[]), NONE_RUNS);
}

#[test]
fn what_is_waited_for_has_a_name() {
    let serving = process("serving", &[("orders", true), ("reports", false)]);
    let starting = process("starting", &[("orders", true)]);
    let missing = |processes: &[ProcessDocument], targets: &[&str]| {
        let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
        super::missing(processes, None, &targets)
    };
    let failing = Some("target \"reports\" is failing [aws.expired]".to_owned());
    let none = Some("pgiam is not running".to_owned());
    assert_eq!(missing(&[], &[]), none);
    assert_eq!(missing(&[], &["orders"]), none);
    let serving = std::slice::from_ref(&serving);
    assert_eq!(missing(serving, &["orders"]), None);
    assert_eq!(missing(serving, &[]), failing);
    assert_eq!(missing(serving, &["orders", "reports"]), failing);
    let unknown = Some("no pgiam process serves target \"other\"".to_owned());
    assert_eq!(missing(serving, &["orders", "other"]), unknown);
    let starting = std::slice::from_ref(&starting);
    let not_yet = Some("process 4711 is starting".to_owned());
    assert_eq!(missing(starting, &[]), not_yet);
    assert!(missing(starting, &["orders"]).is_some());
}

#[test]
fn wait_requires_a_stopped_target_only_by_name() {
    let mut process = process("serving", &[("orders", true), ("reports", false)]);
    process.targets[1].state = "stopped".to_owned();
    process.targets[1].failing = None;
    let named = ["reports".to_owned()];
    assert_eq!(missing(std::slice::from_ref(&process), None, &[]), None);
    assert_eq!(
        missing(std::slice::from_ref(&process), None, &named).unwrap(),
        "target \"reports\" is stopped"
    );
    process.targets.remove(0);
    assert_eq!(
        missing(&[process], None, &[]).unwrap(),
        "every target is stopped"
    );
}

#[test]
fn one_that_does_not_answer_runs() {
    let silent = || AskError::Silent("nothing within 3 s".to_owned());
    let said = none_answers(&vec![(744, silent())]);
    assert!(
        said.contains("kill -CONT 744") && !said.contains("pgiam serve"),
        "{said}"
    );
    let other = serde_json::from_str::<u8>("x").unwrap_err();
    let said = none_answers(&vec![(745, AskError::Answer(other))]);
    assert!(
        said.contains("process 745 is running") && !said.contains("kill"),
        "{said}"
    );
    assert_eq!(none_answers(&Vec::new()), NONE_RUNS);
    let waits = missing(&[], Some(744), &[]);
    assert_eq!(waits.as_deref(), Some("process 744 does not answer"));
}
