use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::{DatabaseRef, Endpoint, LoginSettings, RdsIdentifier, TargetSettings, Via};
use crate::tunnel::{RelayState, RelayStats, SessionState, SessionStats, TunnelTotals};

mod exposition;

/// A target with a fixed state.
pub(crate) struct Stands(pub(crate) TargetStatus);

impl StatusSource for Stands {
    fn status(&self) -> TargetStatus {
        self.0.clone()
    }
}

/// Returns the state of a target that has been used: one session is up, another one is starting.
pub(crate) fn used(name: &str) -> TargetStatus {
    let totals = TunnelTotals {
        up: 1_000,
        down: 2_000_000,
        resumes: 1,
        retransmissions: 7,
    };
    let session = SessionStats {
        id: Some("dev-0123456789abcdef0".to_owned()),
        bastion: Some("i-0123456789abcdef0".to_owned()),
        state: SessionState::Up,
        to_relay: false,
        streams: 2,
        spares: 1,
        busy: 1,
        totals,
        age: Duration::from_secs(75),
        round_trip: Some(Duration::from_millis(12)),
    };
    TargetStatus {
        found: true,
        identity: None,
        stopped: None,
        target: Arc::new(target(name)),
        configured_as: DatabaseRef::Identifier(RdsIdentifier {
            identifier: name.to_owned(),
            reader: false,
        }),
        readiness: Readiness::Up,
        failed: None,
        tunnel: TunnelStats {
            sessions: vec![session, SessionStats::starting(Duration::from_secs(1))],
            started: 2,
            ended: 1,
            failed: 3,
            totals,
            relay: Some(RelayStats {
                port: 5439,
                sessions: 16,
                state: RelayState::InUse {
                    bastion: "i-0123456789abcdef0".into(),
                    carriers: 2,
                },
            }),
        },
        kept: ReadyCounts {
            ready: 1,
            hits: 8,
            misses: 2,
            stale: 1,
        },
    }
}

pub(crate) fn target(name: &str) -> ResolvedTarget {
    ResolvedTarget {
        iam_login: None,
        name: name.to_owned().into(),
        endpoint: Endpoint {
            host: format!("{name}.cluster-abc.eu-central-1.rds.amazonaws.com"),
            port: 5432,
        },
        region: None,
        settings: TargetSettings {
            user: Some("db_user".to_owned()),
            database: None,
            local_port: 5433,
            via: Via::Direct,
            profile: None,
            ca_file: None,
            connect_timeout: Duration::from_secs(30),
            login: LoginSettings::default(),
        },
    }
}

/// Creates the measurements of a program with these targets.
pub(crate) fn observed(statuses: Vec<TargetStatus>) -> Arc<Observed> {
    let observed = Arc::new(Observed::new(400));
    let listed = statuses.into_iter().map(|status| ListedTarget {
        port: 5433,
        addresses: Vec::new(),
        by_name: false,
        socket: None,
        source: Arc::new(Stands(status)),
    });
    observed.show(listed.collect());
    observed
}

pub(crate) fn new_connection<'a>(target: &'a TargetName, program: &'a [u8]) -> NewConnection<'a> {
    NewConnection {
        target,
        user: "db_user",
        database: "app",
        program,
        peer: "127.0.0.1:50000",
        since: Instant::now(),
    }
}

pub(crate) fn failure(id: &'static str, notable: bool) -> Failure {
    Failure {
        id,
        sqlstate: "08001".to_owned(),
        message: format!("because of {id}"),
        notable,
        ..Failure::default()
    }
}

/// Returns an error that occurred just now.
pub(crate) fn failed(id: &'static str) -> LastError {
    LastError {
        failure: failure(id, true),
        at: Instant::now(),
        count: 1,
    }
}

#[test]
fn a_connection_is_there_from_its_routing_to_its_end() {
    let observed = observed(vec![used("orders")]);
    let first = observed.admit(new_connection(&"orders".into(), b"psql"));
    let second = observed.admit(new_connection(&"orders".into(), b"an\x1b[2Jother\xff"));
    second.opened();
    second.traffic().sent(10);
    second.traffic().received(20);
    let all = observed.connections();
    assert_eq!(all.len(), 2);
    assert!(!all[0].is_open() && all[1].is_open());
    assert_eq!((all[1].bytes_up(), all[1].bytes_down()), (10, 20));
    assert_eq!(
        all[1].program, "an\\u{1b}[2Jother\u{fffd}",
        "nothing that moves a cursor"
    );
    drop(second);
    assert_eq!(observed.open(), 1);
    drop(first);
    assert_eq!(observed.open(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_last_error_stays_and_counts_what_comes_in_a_row() {
    let observed = observed(vec![used("orders")]);
    assert!(observed.last_error(&"orders".into()).is_none());
    observed.failed(Some(&"orders".into()), failure("aws.expired", true));
    observed.failed(Some(&"orders".into()), failure("aws.expired", true));
    observed.failed(Some(&"orders".into()), failure("client.gone", false));
    observed.failed(None, failure("client.silent", false));
    tokio::time::advance(Duration::from_secs(9)).await;
    let last = observed.last_error(&"orders".into()).expect("an error");
    assert_eq!((last.failure.id, last.count), ("aws.expired", 2));
    assert_eq!(last.at.elapsed().as_secs(), 9);
    observed.failed(Some(&"orders".into()), failure("ssm.access-denied", true));
    let last = observed.last_error(&"orders".into()).expect("an error");
    assert_eq!((last.failure.id, last.count), ("ssm.access-denied", 1));
    assert!(observed.last_error(&"reports".into()).is_none());
}

#[tokio::test(start_paused = true)]
async fn recent_errors_are_folded_and_bounded_and_newest_first() {
    let observed = observed(vec![used("orders")]);
    let (orders, reports) = ("orders".into(), "reports".into());
    let recent = || {
        let all = observed.recent_errors().into_iter();
        let shown = all.map(|it| (it.target, it.last.failure.id, it.last.count));
        shown.collect::<Vec<_>>()
    };
    assert_eq!(recent(), []);
    observed.failed(Some(&orders), failure("aws.expired", true));
    observed.failed(Some(&reports), failure("aws.expired", true));
    observed.failed(None, failure("local.unknown-target", true));
    observed.failed(Some(&orders), failure("client.gone", false));
    tokio::time::advance(Duration::from_secs(7)).await;
    observed.failed(Some(&orders), failure("aws.expired", true));
    let expected = [
        (Some(orders.clone()), "aws.expired", 2),
        (None, "local.unknown-target", 1),
        (Some(reports.clone()), "aws.expired", 1),
    ];
    assert_eq!(recent(), expected);
    // Another role is another problem, unless the client may be a stranger.
    for n in 0..100 {
        let message = format!("role \"r{n}\"");
        let failure = || Failure {
            message: message.clone(),
            ..failure("database.no-rds-iam", true)
        };
        observed.failed(Some(&reports), failure());
        observed.failed(None, failure());
    }
    let all = observed.recent_errors();
    assert_eq!(all.len(), 50);
    assert_eq!((&all[0].target, all[0].last.count), (&None, 100));
    assert_eq!(all[0].last.failure.message, "role \"r99\"");
    assert_eq!(all[1].last.failure.message, "role \"r99\"");
    assert_eq!(all[2].last.failure.message, "role \"r98\"");
}

#[test]
fn logins_and_bytes_of_a_target_outlive_its_connections() {
    let observed = observed(vec![used("orders")]);
    let orders = "orders".into();
    assert_eq!(observed.login_times(&orders), LoginTimes::default());
    let connection = observed.admit(new_connection(&orders, b"psql"));
    observed.logged_in(&orders, &[(Stage::Tls, 0.1), (Stage::Total, 0.5)]);
    connection.traffic().sent(3);
    connection.traffic().received(4);
    drop(connection);
    assert_eq!(observed.transferred(&orders), (3, 4));
    let times = observed.login_times(&orders);
    assert_eq!((times.count, times.recent), (1, 1));
    assert_eq!(times.p50, Some(Duration::from_millis(500)));
}

#[test]
fn a_program_that_drains_does_not_start_again() {
    let observed = observed(Vec::new());
    assert_eq!(observed.phase(), Phase::Starting);
    observed.started();
    assert_eq!(observed.phase(), Phase::Serving);
    observed.drains();
    observed.started();
    assert_eq!(observed.phase(), Phase::Draining);
}

#[tokio::test]
async fn only_accept_loops_that_were_not_asked_to_end_count_as_dead() {
    let observed = observed(Vec::new());
    observed.accepting().watch(async { None::<()> }).await;
    let alive = observed
        .accepting()
        .watch(std::future::pending::<Option<()>>());
    tokio::select! {
        biased;
        () = alive => {}
        () = std::future::ready(()) => {}
    }
    let before = observed.dead_loops();
    observed.accepting().watch(async { Some(()) }).await;
    async fn panics() -> Option<()> {
        panic!("as the test wants it")
    }
    let panicked = tokio::spawn(observed.accepting().watch(panics()));
    assert!(panicked.await.is_err());
    assert_eq!(observed.dead_loops(), before + 2);
}

#[test]
fn a_target_is_ready_unless_something_is_known_against_it() {
    use Readiness::{Idle, Interrupted, Starting, Up};
    for (readiness, failed, state, ready) in [
        (Up, None, "ready", true),
        (Idle, None, "idle", true),
        (Starting, None, "starting", true),
        (Interrupted, None, "interrupted", false),
        (Up, Some("aws.expired"), "failing", false),
        (Interrupted, Some("aws.expired"), "interrupted", false),
    ] {
        let status = TargetStatus {
            readiness,
            failed: failed.map(super::tests::failed),
            ..used("orders")
        };
        assert_eq!((status.state(), status.is_ready()), (state, ready));
    }
}
