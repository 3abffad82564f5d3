//! A reader of the OpenMetrics text format that takes nothing which the specification forbids
//! (OpenMetrics 1.0, "Text Format" and "Metric Types"), as far as it is used.

use std::collections::{BTreeMap, BTreeSet};

/// Name and labels, as they are written, of each sample, and its value.
pub(super) type Samples = BTreeMap<String, f64>;

#[derive(Default)]
struct Family {
    name: String,
    kind: String,
    unit: Option<String>,
    help: bool,
}

/// All samples of a text.
///
/// # Panics
/// At whatever is not as specified.
pub(super) fn read(text: &str) -> Samples {
    let text = text.strip_suffix("# EOF\n").expect("an end");
    let (mut samples, mut seen) = (Samples::new(), BTreeSet::new());
    let mut family = Family::default();
    for line in text.lines() {
        assert!(!line.is_empty() && line.trim() == line, "{line:?}");
        if let Some(declared) = line.strip_prefix("# ") {
            declare(&mut family, &mut seen, declared);
            continue;
        }
        let (name, value) = line.rsplit_once(' ').expect("a value");
        let value: f64 = value.parse().expect("a number");
        sample(&family, name, value);
        let before = samples.insert(name.to_owned(), value);
        assert!(before.is_none(), "twice: {name}");
    }
    histograms(&samples);
    samples
}

fn declare(family: &mut Family, seen: &mut BTreeSet<String>, declared: &str) {
    let mut words = declared.splitn(3, ' ');
    let mut word = || words.next().expect("three words");
    let (what, name, rest) = (word(), word(), word());
    if name != family.name {
        assert!(seen.insert(name.to_owned()), "{name} in two places");
        *family = Family {
            name: name.to_owned(),
            ..Family::default()
        };
    }
    assert!(name.starts_with("pgiam_"), "{name}");
    match what {
        "HELP" => {
            assert!(!std::mem::replace(&mut family.help, true), "{name}");
            assert!(rest.ends_with('.') && !rest.contains('\\'), "{rest}");
        }
        "TYPE" => {
            assert!(["counter", "gauge", "histogram", "info"].contains(&rest));
            rest.clone_into(&mut family.kind);
        }
        "UNIT" => {
            assert!(name.ends_with(&format!("_{rest}")), "{name}: {rest}");
            family.unit = Some(rest.to_owned());
        }
        other => panic!("{other}"),
    }
}

fn sample(family: &Family, written: &str, value: f64) {
    let (name, labels) = match written.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').expect("a brace")),
        None => (written, ""),
    };
    let suffix = name.strip_prefix(&family.name).expect("its family");
    let allowed: &[&str] = match family.kind.as_str() {
        "counter" => &["_total"],
        "histogram" => &["_bucket", "_sum", "_count"],
        "info" => &["_info"],
        "gauge" => &[""],
        other => panic!("{other}"),
    };
    assert!(family.help && allowed.contains(&suffix), "{written}");
    if family.kind != "gauge" {
        assert!(value >= 0.0, "{written}");
    }
    for unit in ["bytes", "seconds"] {
        let has = family.name.split('_').any(|part| part == unit);
        assert_eq!(has, family.unit.as_deref() == Some(unit), "{written}");
    }
    let mut names = BTreeSet::new();
    for label in labels.split_terminator(',') {
        let (name, value) = label.split_once('=').expect("a label");
        let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
        assert!(!value.expect("quotes").contains(['"', '\\']), "{written}");
        assert!(names.insert(name), "{written}");
    }
}

/// Buckets grow, and the last one is all.
fn histograms(samples: &Samples) {
    let mut buckets: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for (name, value) in samples {
        let Some((metric, labels)) = name.split_once("_bucket{le=\"") else {
            continue;
        };
        let (limit, rest) = labels.split_once('"').expect("a limit");
        let limit = match limit {
            "+Inf" => f64::INFINITY,
            limit => limit.parse().expect("a limit"),
        };
        let count = format!("{metric}_count{{{}", rest.trim_start_matches(','));
        buckets.entry(count).or_default().push((limit, *value));
    }
    assert!(!samples.keys().any(|name| name.contains("_bucket{t")));
    for (count, mut buckets) in buckets {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1));
        let last = buckets.last().expect("a bucket");
        assert!(last.0.is_infinite() && last.1 == samples[&count], "{count}");
    }
}
