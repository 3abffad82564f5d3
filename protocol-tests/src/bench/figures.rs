//! The table of `bench tunnel`: what was measured, what stands beside it, and what it has to reach.

use std::fmt::Write as _;
use std::time::Duration;

use super::plot::{Bar, Group, OWN, Plot, Shape};

/// Figures that are plotted together, because they have a unit and an order of size in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Panel {
    Paced,
    Unpaced,
    ProcessorTime,
    Transactions,
    Logins,
}

impl Panel {
    const ALL: [Self; 5] = [
        Self::Paced,
        Self::Unpaced,
        Self::ProcessorTime,
        Self::Transactions,
        Self::Logins,
    ];

    /// File, title and unit.
    fn words(self) -> [&'static str; 3] {
        match self {
            Self::Paced => ["paced", "Downloads at the agent's rate", "MB/s"],
            Self::Unpaced => [
                "unpaced",
                "Transfers without the agent's rate limit",
                "MB/s",
            ],
            Self::ProcessorTime => [
                "processor",
                "Processor time of a download (less is better)",
                "s per GB",
            ],
            Self::Transactions => ["pgbench", "pgbench -S -M prepared, agent's rate", "tps"],
            Self::Logins => [
                "logins",
                "psql login, session open (less is better)",
                "round trips",
            ],
        }
    }
}

/// What a figure has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Target {
    /// So many times the figure beside it, or more.
    Ratio(f64),
    /// This much or more.
    AtLeast(f64),
    /// This much or more, and so many times the figure beside it.
    AtLeastAndRatio(f64, f64),
    /// This much or less.
    AtMost(f64),
    /// Nothing: it is only to be known.
    Stated,
}

/// One line of the table.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    /// What was measured, with its unit.
    pub(crate) measure: String,
    /// Ours.
    pub(crate) pgiam: f64,
    /// What it is compared with and how that is called.
    pub(crate) beside: Option<(f64, String)>,
    /// The stock plugin's figure, measured now or known from before.
    pub(crate) plugin: Option<f64>,
    /// What it has to reach.
    pub(crate) target: Target,
    /// A condition besides the target that was not kept, in words.
    pub(crate) broken: Option<String>,
    /// More to know about it: what limits it, how it was measured.
    pub(crate) note: Option<String>,
    /// The plot that shows it, and its name there.
    panel: Option<(Panel, &'static str)>,
}

impl Figure {
    pub(crate) fn new(measure: &str, pgiam: f64, target: Target) -> Self {
        Self {
            measure: measure.to_owned(),
            pgiam,
            beside: None,
            plugin: None,
            target,
            broken: None,
            note: None,
            panel: None,
        }
    }

    /// Shows the figure in this plot, under this name.
    pub(crate) fn panel(mut self, panel: Panel, label: &'static str) -> Self {
        self.panel = Some((panel, label));
        self
    }

    pub(crate) fn beside(mut self, figure: f64, name: &str) -> Self {
        self.beside = Some((figure, name.to_owned()));
        self
    }

    pub(crate) fn plugin(mut self, figure: Option<f64>) -> Self {
        self.plugin = figure;
        self
    }

    pub(crate) fn note(mut self, note: String) -> Self {
        self.note = Some(note);
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.beside.as_ref().map(|(beside, _)| self.pgiam / beside)
    }

    /// `None` when there is nothing to reach.
    fn reached(&self) -> Option<bool> {
        let over = |least: f64| self.ratio().is_some_and(|ratio| ratio >= least);
        let reached = match self.target {
            Target::Ratio(least) => over(least),
            Target::AtLeast(least) => self.pgiam >= least,
            Target::AtLeastAndRatio(least, ratio) => self.pgiam >= least && over(ratio),
            Target::AtMost(most) => self.pgiam <= most,
            Target::Stated => return None,
        };
        Some(reached && self.broken.is_none())
    }

    fn cells(&self) -> [String; 7] {
        let none = || "–".to_owned();
        let target = match self.target {
            Target::Ratio(least) => format!("≥ {least} ×"),
            Target::AtLeast(least) => format!("≥ {}", short(least)),
            Target::AtLeastAndRatio(least, ratio) => format!("≥ {} and ≥ {ratio} ×", short(least)),
            Target::AtMost(most) => format!("≤ {most}"),
            Target::Stated => none(),
        };
        let beside = self.beside.as_ref();
        [
            self.measure.clone(),
            short(self.pgiam),
            beside.map_or_else(none, |(figure, name)| {
                format!("{} ({name})", short(*figure))
            }),
            self.ratio()
                .filter(|ratio| ratio.is_finite())
                .map_or_else(none, |ratio| format!("{ratio:.2} ×")),
            self.plugin.map_or_else(none, short),
            target,
            match (self.reached(), &self.broken) {
                (_, Some(broken)) => format!("no: {broken}"),
                (Some(true), _) => "yes".to_owned(),
                (Some(false), _) => "no".to_owned(),
                (None, _) => none(),
            },
        ]
    }
}

/// What has been measured so far, and what could not be.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    rows: Vec<Result<Figure, (String, String)>>,
    plots: Vec<Plot>,
}

impl Figures {
    pub(crate) fn add(&mut self, figure: Figure) {
        self.rows.push(Ok(figure));
    }

    /// A row for what failed; `why` is shown in place of the figures.
    pub(crate) fn add_failure(&mut self, measure: &str, why: &anyhow::Error) {
        self.rows
            .push(Err((measure.to_owned(), format!("{why:#}"))));
    }

    /// A plot of its own, besides those of the panels.
    pub(crate) fn add_plot(&mut self, plot: Plot) {
        self.plots.push(plot);
    }

    /// The plots: a panel for each kind of figure, then the others. `plugin` is the name of the
    /// plugin's bars; without it they are left out, because they were not measured in this run.
    pub(crate) fn plots(&self, plugin: Option<&str>) -> Vec<Plot> {
        let panels = Panel::ALL.map(|panel| self.plot(panel, plugin));
        panels
            .into_iter()
            .chain(self.plots.iter().cloned())
            .collect()
    }

    fn plot(&self, panel: Panel, plugin: Option<&str>) -> Plot {
        let figures = self.rows.iter().flatten();
        let groups = figures.filter_map(|figure| {
            let (_, label) = figure.panel.filter(|(of, _)| *of == panel)?;
            let own = Some((figure.pgiam, OWN));
            let beside = figure.beside.as_ref();
            let beside = beside.map(|(figure, name)| (*figure, name.as_str()));
            let bars = [own, beside, figure.plugin.zip(plugin)];
            Some(Group {
                label: label.to_owned(),
                bars: bars
                    .into_iter()
                    .flatten()
                    .map(|(value, name)| Bar {
                        name: name.to_owned(),
                        value,
                    })
                    .collect(),
            })
        });
        let [name, title, unit] = panel.words().map(str::to_owned);
        let groups = groups.collect();
        Plot {
            name,
            title,
            shape: Shape::Bars { unit, groups },
        }
    }

    /// How many measurements failed.
    pub(crate) fn failures(&self) -> usize {
        self.rows.iter().filter(|row| row.is_err()).count()
    }

    /// A Markdown table, and the notes below it.
    pub(crate) fn to_markdown(&self, plugin: &str) -> String {
        let mut out = format!("{}\n", self.table(plugin));
        for note in self.notes() {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "- {note}");
        }
        out
    }

    /// A Markdown table.
    pub(crate) fn table(&self, plugin: &str) -> String {
        let head = [
            "measure", "pgiam", "beside", "ratio", plugin, "target", "reached",
        ];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(self.rows.iter().map(|row| match row {
            Ok(figure) => figure.cells(),
            Err((measure, _)) => {
                let mut cells: [String; 7] = std::array::from_fn(|_| "–".to_owned());
                cells[0].clone_from(measure);
                "failed".clone_into(&mut cells[6]);
                cells
            }
        }));
        markdown(&rows)
    }

    /// The notes of the rows, each with the name of its row.
    pub(crate) fn notes(&self) -> Vec<String> {
        let notes = self.rows.iter().filter_map(|row| match row {
            Ok(figure) => Some(format!("{}: {}", figure.measure, figure.note.as_ref()?)),
            Err((measure, why)) => Some(format!("{measure}: failed: {why}")),
        });
        notes.collect()
    }
}

/// The first row is the head; columns are padded so that the text is readable as it is.
pub(crate) fn markdown<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(widths) {
            let padding = " ".repeat(width - cell.chars().count());
            // Writing to a String cannot fail.
            let _ = write!(out, "| {cell}{padding} ");
        }
        out.push_str("|\n");
        if number == 0 {
            for width in widths {
                let _ = write!(out, "|{}", "-".repeat(width + 2));
            }
            out.push_str("|\n");
        }
    }
    out
}

/// Three digits that count, more for whole numbers above a thousand.
pub(crate) fn short(figure: f64) -> String {
    match figure.abs() {
        _ if !figure.is_finite() => "–".to_owned(),
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        size if size >= 0.095 || size == 0.0 => format!("{figure:.2}"),
        _ => format!("{figure:.3}"),
    }
}

/// The middle one; of an even number the lower of the two in the middle. Zero of none.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len().saturating_sub(1) / 2;
    figures.get(middle).copied().unwrap_or(0.0)
}

/// Megabytes (of 1,000,000 bytes) per second.
pub(crate) fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_judged_as_they_read() {
        let figure = |value, target| Figure::new("m", value, target);
        assert_eq!(figure(5.0, Target::AtLeast(5.0)).reached(), Some(true));
        assert_eq!(figure(5.1, Target::AtMost(5.0)).reached(), Some(false));
        assert_eq!(figure(5.0, Target::Stated).reached(), None);
        // Nothing beside it: a ratio cannot be reached.
        assert_eq!(figure(5.0, Target::Ratio(0.1)).reached(), Some(false));
        let both = figure(6.0, Target::AtLeastAndRatio(5.0, 3.0));
        assert_eq!(both.clone().beside(2.0, "b").reached(), Some(true));
        assert_eq!(both.clone().beside(2.1, "b").reached(), Some(false));
        let mut broken = both.beside(1.0, "b");
        broken.broken = Some("bytes were lost".to_owned());
        assert_eq!(broken.reached(), Some(false));
    }

    #[test]
    fn the_table_is_markdown_with_its_notes_below() {
        let mut figures = Figures::default();
        let fast = Figure::new("fast (MB/s)", 123.4, Target::AtLeastAndRatio(100.0, 3.0))
            .beside(30.0, "other")
            .plugin(Some(0.71))
            .note("one core".to_owned());
        figures.add(fast);
        figures.add_failure("broken", &anyhow::anyhow!("why"));
        assert_eq!(figures.failures(), 1);
        let expected = "\
| measure     | pgiam | beside       | ratio  | stock | target          | reached |
|-------------|-------|--------------|--------|-------|-----------------|---------|
| fast (MB/s) | 123   | 30.0 (other) | 4.11 × | 0.71  | ≥ 100 and ≥ 3 × | yes     |
| broken      | –     | –            | –      | –     | –               | failed  |

- fast (MB/s): one core
- broken: failed: why
";
        assert_eq!(figures.to_markdown("stock"), expected);
    }

    #[test]
    fn plots_have_what_was_measured_in_this_run() {
        let mut figures = Figures::default();
        figures.add(
            Figure::new("down (MB/s)", 2.0, Target::Stated)
                .panel(Panel::Paced, "down")
                .beside(1.0, "other")
                .plugin(Some(0.5)),
        );
        figures.add(Figure::new("memory (MB)", 9.0, Target::Stated));
        figures.add_failure("broken", &anyhow::anyhow!("why"));
        let names = |plugin| {
            let plots = figures.plots(plugin);
            let shown = plots.iter().filter_map(|plot| match &plot.shape {
                Shape::Bars { groups, .. } if !groups.is_empty() => Some(plot.alternative()),
                _ => None,
            });
            shown.collect::<Vec<_>>()
        };
        let title = "Downloads at the agent's rate in MB/s";
        let measured = format!("{title}. down: pgiam 2.00, other 1.00");
        assert_eq!(names(None), std::slice::from_ref(&measured));
        assert_eq!(names(Some("plugin")), [format!("{measured}, plugin 0.50")]);
    }

    #[test]
    fn medians_and_rates() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]).to_string(), "2");
        assert_eq!(median(vec![4.0, 1.0]).to_string(), "1");
        assert_eq!(median(Vec::new()).to_string(), "0");
        assert_eq!(short(rate(3_000_000, Duration::from_secs(2))), "1.50");
        assert_eq!(short(f64::NAN), "–");
    }
}
