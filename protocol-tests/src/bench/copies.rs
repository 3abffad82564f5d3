//! The results of `sandbox bench` as a table, as plots, and as a section of the documents.

use super::figures::{markdown, median, short};
use super::page::Section;
use super::plot::{Bar, Group, OWN, Plot, Series, Shape};
use super::{CONNECTIONS, PACED_MB};
use crate::demo::table;

/// Name of the connection that pgiam is compared with.
const STRAIGHT: &str = "direct";
const HEAD: [&str; 4] = ["measure", STRAIGHT, OWN, "ratio"];

/// The measurements. Of a pair, the direct connection comes first.
#[derive(Debug)]
pub(super) struct Results {
    /// Milliseconds of each login, the shortest first.
    pub(super) logins: [Vec<f64>; 2],
    /// MB/s out and in, without the agent's rate limit.
    pub(super) unpaced: [[f64; 2]; 2],
    /// MB/s out and in through pgiam, at the real agent's rate.
    pub(super) paced: [f64; 2],
    /// Memory in MB: idle, and with open connections.
    pub(super) resident: [f64; 2],
}

impl Results {
    /// The table for a terminal.
    pub(super) fn text(&self) -> String {
        let rows = self.rows();
        let rows: Vec<[&str; 4]> = rows
            .iter()
            .map(|row| row.each_ref().map(String::as_str))
            .collect();
        table(&HEAD, &rows)
    }

    /// Resident memory as a sentence.
    pub(super) fn memory(&self) -> String {
        let [idle, crowded] = self.resident;
        format!(
            "pgiam resident: {idle:.1} MB idle, {crowded:.1} MB with {CONNECTIONS} open connections"
        )
    }

    /// The section of the documents.
    pub(super) fn section(&self, circumstances: Vec<String>) -> Section {
        let mut rows = vec![HEAD.map(str::to_owned)];
        rows.extend(self.rows());
        let [direct, _] = &self.logins;
        Section {
            name: "copies",
            title: "Logins and copies".to_owned(),
            circumstances,
            table: markdown(&rows),
            notes: vec![
                format!("Logins: `psql -c 'select 1'`, {} times each", direct.len()),
                format!(
                    "Copies at the agent's rate: {PACED_MB} MB; the direct connection has no limit"
                ),
                "Every copied row was compared with its original".to_owned(),
                self.memory(),
            ],
            plots: vec![self.plot_logins(), self.plot_copies()],
        }
    }

    fn rows(&self) -> Vec<[String; 4]> {
        let [direct, through] = self.logins.each_ref().map(|times| median(times.clone()));
        let [[out, back], [out_proxy, back_proxy]] = self.unpaced;
        let [out_paced, back_paced] = self.paced;
        vec![
            row("psql, select 1 (median, ms)", direct, through),
            row("COPY out, agent without rate limit (MB/s)", out, out_proxy),
            row("COPY in, agent without rate limit (MB/s)", back, back_proxy),
            row("COPY out, real agent's rate (MB/s)", out, out_paced),
            row("COPY in, real agent's rate (MB/s)", back, back_paced),
        ]
    }

    fn plot_logins(&self) -> Plot {
        let series = [STRAIGHT, OWN].into_iter().zip(&self.logins);
        let series = series.map(|(name, times)| Series {
            name: name.to_owned(),
            points: percentiles(times),
        });
        Plot {
            name: "logins".to_owned(),
            title: "psql -c 'select 1': time of each call, sorted".to_owned(),
            shape: Shape::Lines {
                x: "% of the calls take this long or less".to_owned(),
                y: "ms".to_owned(),
                series: series.collect(),
            },
        }
    }

    fn plot_copies(&self) -> Plot {
        let [direct, through] = self.unpaced;
        let group = |label: &str, straight: f64, own: f64| Group {
            label: label.to_owned(),
            bars: [(OWN, own), (STRAIGHT, straight)]
                .map(|(name, value)| Bar {
                    name: name.to_owned(),
                    value,
                })
                .into(),
        };
        Plot {
            name: "copies".to_owned(),
            title: "COPY, agent without rate limit".to_owned(),
            shape: Shape::Bars {
                unit: "MB/s".to_owned(),
                groups: vec![
                    group("COPY … TO STDOUT", direct[0], through[0]),
                    group("COPY … FROM STDIN", direct[1], through[1]),
                ],
            },
        }
    }
}

/// Share of the sorted figures up to each one, in percent, with the figure.
fn percentiles(sorted: &[f64]) -> Vec<(f64, f64)> {
    let count = sorted.len() as f64;
    let shares = (1..=sorted.len()).map(|number| 100.0 * number as f64 / count);
    shares.zip(sorted.iter().copied()).collect()
}

fn row(measure: &str, straight: f64, through: f64) -> [String; 4] {
    [
        measure.to_owned(),
        short(straight),
        short(through),
        format!("{:.2}", through / straight),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_has_the_ratios_of_one_run() {
        let results = Results {
            logins: [vec![10.0, 20.0, 30.0], vec![30.0, 40.0, 80.0]],
            unpaced: [[200.0, 100.0], [100.0, 25.0]],
            paced: [0.7, 20.0],
            resident: [9.5, 14.0],
        };
        let section = results.section(vec![]);
        let expected = "\
| measure                                   | direct | pgiam | ratio |
|-------------------------------------------|--------|-------|-------|
| psql, select 1 (median, ms)               | 20.0   | 40.0  | 2.00  |
| COPY out, agent without rate limit (MB/s) | 200    | 100   | 0.50  |
| COPY in, agent without rate limit (MB/s)  | 100    | 25.0  | 0.25  |
| COPY out, real agent's rate (MB/s)        | 200    | 0.70  | 0.00  |
| COPY in, real agent's rate (MB/s)         | 100    | 20.0  | 0.20  |
";
        assert_eq!(section.table, expected);
        let alternatives: Vec<String> = section.plots.iter().map(Plot::alternative).collect();
        assert!(
            alternatives[1].contains("pgiam 100, direct 200"),
            "{alternatives:?}"
        );
        assert!(
            section
                .notes
                .iter()
                .any(|note| note.contains("9.5 MB idle"))
        );
    }

    #[test]
    fn percentiles_end_at_a_hundred() {
        assert_eq!(percentiles(&[3.0, 5.0]), [(50.0, 3.0), (100.0, 5.0)]);
        assert!(percentiles(&[]).is_empty());
    }
}
