//! Tests that `/metrics` and `docs/metrics.md` agree.

use std::collections::BTreeMap;

use super::*;

/// Returns an exposition that contains every metric.
fn everything() -> String {
    let observed = observed(vec![used("orders")]);
    let connection = observed.admit(new_connection(&"orders".into(), b"psql"));
    connection.opened();
    connection.traffic().received(30);
    let stages = [(Stage::Total, 0.2), (Stage::Token, 0.0001)];
    observed.logged_in(&"orders".into(), &stages);
    observed.token(&"orders".into(), TokenSource::Fresh);
    observed.failed(Some(&"orders".into()), failure("aws.expired", true));
    observed.failed(None, failure("client.gone", false));
    observed.exposition().expect("text")
}

#[test]
fn numbers_arrive_where_they_belong() {
    let text = everything();
    for line in [
        "pgiam_logins_total{target=\"orders\"} 1",
        "pgiam_login_duration_seconds_bucket{le=\"0.1\",target=\"orders\",stage=\"total\"} 0",
        "pgiam_login_duration_seconds_bucket{le=\"0.25\",target=\"orders\",stage=\"total\"} 1",
        "pgiam_login_duration_seconds_sum{target=\"orders\",stage=\"total\"} 0.2",
        "pgiam_transferred_bytes_total{target=\"orders\",direction=\"down\"} 30",
        "pgiam_transferred_bytes_total{target=\"orders\",direction=\"up\"} 0",
        "pgiam_token_fetches_total{target=\"orders\",source=\"fresh\"} 1",
        "pgiam_errors_total{target=\"orders\",id=\"aws.expired\"} 1",
        "pgiam_errors_total{target=\"\",id=\"client.gone\"} 1",
        "pgiam_connections{target=\"orders\",state=\"open\"} 1",
        "pgiam_connections{target=\"orders\",state=\"login\"} 0",
        "pgiam_connections_limit 400",
        "pgiam_target_ready{target=\"orders\"} 1",
        "pgiam_tunnel_sessions{target=\"orders\",state=\"up\"} 1",
        "pgiam_tunnel_sessions{target=\"orders\",state=\"starting\"} 1",
        "pgiam_tunnel_sessions{target=\"orders\",state=\"leaving\"} 0",
        "pgiam_ready_connections{target=\"orders\"} 1",
        "pgiam_ready_connection_logins_total{target=\"orders\",result=\"hit\"} 8",
        "pgiam_ready_connection_logins_total{target=\"orders\",result=\"miss\"} 2",
        "pgiam_ready_connection_logins_total{target=\"orders\",result=\"stale\"} 1",
        "pgiam_tunnel_streams{target=\"orders\"} 2",
        "pgiam_tunnel_round_trip_seconds{target=\"orders\"} 0.012",
        "pgiam_tunnel_transferred_bytes_total{target=\"orders\",direction=\"down\"} 2000000",
        "pgiam_tunnel_sessions_started_total{target=\"orders\"} 2",
        "pgiam_tunnel_sessions_failed_total{target=\"orders\"} 3",
        "pgiam_tunnel_sessions_ended_total{target=\"orders\"} 1",
        "pgiam_tunnel_resumes_total{target=\"orders\"} 1",
        "pgiam_tunnel_retransmissions_total{target=\"orders\"} 7",
    ] {
        assert!(text.lines().any(|is| is == line), "no {line} in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

/// Returns name → type and labels of the exposed metrics.
fn exposed() -> BTreeMap<String, (String, Vec<String>)> {
    let text = everything();
    let mut found: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').expect("a name and a type");
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            let entry = (kind.to_owned(), Vec::new());
            found.insert(format!("{name}{suffix}"), entry);
        } else if !line.starts_with('#') {
            let (name, rest) = line.split_at(line.find(['{', ' ']).expect("a value"));
            let name = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|part| name.strip_suffix(part))
                .unwrap_or(name);
            let labels = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
            let labels = labels.map(|(labels, _)| labels).unwrap_or_default();
            let names = labels.split(',').filter_map(|label| label.split_once('='));
            let names = names.map(|(name, _)| name.to_owned());
            found.get_mut(name).expect("declared").1 = names.filter(|name| name != "le").collect();
        }
    }
    found
}

#[test]
fn the_documentation_lists_exactly_what_there_is() {
    let text = include_str!("../../../docs/metrics.md");
    let rows = text.lines().filter(|line| line.starts_with("| `pgiam_"));
    let mut documented = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, meaning] = cells[..] else {
            panic!("four cells: {row}")
        };
        assert!(!meaning.is_empty(), "{row}");
        let plain = |cell: &str| cell.trim_matches('`').to_owned();
        let labels = labels.split(", ").map(plain).filter(|l| !l.is_empty());
        let entry = (kind.to_owned(), labels.collect::<Vec<_>>());
        let twice = documented.insert(plain(name), entry);
        assert!(twice.is_none(), "twice: {row}");
    }
    assert_eq!(documented, exposed());
}
