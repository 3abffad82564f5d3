//! Folding of repeats, on a paused clock.

use super::*;

fn refused(user: &str) {
    let span = info_span!(
        "conn",
        peer = "127.0.0.1:1",
        program = "psql",
        target = "orders",
        user,
        database = "app"
    );
    span.in_scope(|| {
        warn!(
            id = "database.no-rds-iam",
            reason = "no rds_iam",
            hint = "Grant it.",
            "connection failed"
        );
    });
}

#[tokio::test(start_paused = true)]
async fn repeats_are_reported_after_a_minute_and_at_the_end() {
    let (log, page) = human(at_terminal(80), false);
    let subscriber = tracing_subscriber::registry().with(log.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let reports = log.clone();
    let reports = tokio::spawn(async move { reports.report_repeats().await });
    for _ in 0..13 {
        refused("app");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    refused("another");
    let first = "14:03:21 ✗ orders  psql as app to app: no rds_iam [database.no-rds-iam]\n           → Grant it.\n";
    let other = first.replace("as app", "as another");
    assert_eq!(page.text(), format!("{first}{other}"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let report = "14:03:21 ✗ orders  psql as app to app: 12 more in the last minute: no rds_iam\n                   [database.no-rds-iam]\n";
    assert_eq!(page.text(), format!("{first}{other}{report}"));
    refused("app");
    refused("app");
    tokio::time::sleep(Duration::from_secs(5)).await;
    log.finish();
    let end = page.text();
    let end = end
        .strip_prefix(&format!("{first}{other}{report}"))
        .unwrap();
    assert!(end.contains("2 more in the last "), "{end}");
    log.finish();
    assert_eq!(page.text().matches("more in the last").count(), 2);
    reports.abort();
}

#[tokio::test(start_paused = true)]
async fn a_pool_is_folded_and_a_few_connections_are_not() {
    let text = for_people(at_terminal(80), false, || {
        let connect = |program: &str| {
            let span = info_span!(
                "conn",
                peer = "127.0.0.1:1",
                program,
                target = "orders",
                user = "app",
                database = "app"
            );
            span.in_scope(|| info!(total_ms = 20.0, "connection ready"));
        };
        for _ in 0..30 {
            connect("pool");
        }
        connect("psql");
    });
    assert_eq!(text.matches("pool as app").count(), 5, "{text}");
    assert_eq!(text.matches("psql as app").count(), 1, "{text}");
}

#[test]
fn verbose_logs_show_each_event() {
    let events = || (0..30).for_each(|_| refused("app"));
    let text = for_people(at_terminal(80), true, events);
    assert_eq!(text.matches("no rds_iam").count(), 30);
    let text = for_people(at_terminal(80), false, events);
    assert_eq!(text.matches("no rds_iam").count(), 1);
}

#[test]
fn events_without_an_identifier_are_the_same_if_their_texts_are() {
    let text = for_people(at_terminal(120), false, || {
        for number in 0..3 {
            warn!(reason = %format!("port {number} is in use"), "refused a connection");
            warn!(reason = "another", "refused a connection");
        }
    });
    assert_eq!(text.lines().count(), 2, "{text}");
}
