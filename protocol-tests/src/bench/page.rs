//! Writes a section of `docs/benchmarks.md` and its plots.
//!
//! Each bench has a section of its own between two comments. A run replaces the section of its bench
//! and keeps the rest of the file.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use anyhow::Context as _;

use super::plot::{DARK, LIGHT, Plot};

/// The page, and the folder of its plots beside it.
const PAGE: &str = "benchmarks.md";
const PLOTS: &str = "benchmarks";
/// Begins a page that does not exist yet.
const TITLE: &str = "# Benchmarks\n";
/// Longest line of the page; tables are exempt.
const COLUMNS: usize = 100;

/// What a bench has to say.
#[derive(Debug)]
pub(crate) struct Section {
    /// Name of the bench, part of comments and file names.
    pub(crate) name: &'static str,
    pub(crate) title: String,
    /// Date, versions, machine, load: a paragraph each.
    pub(crate) circumstances: Vec<String>,
    /// In Markdown.
    pub(crate) table: String,
    pub(crate) notes: Vec<String>,
    pub(crate) plots: Vec<Plot>,
}

impl Section {
    /// Writes the section and its plots below `docs`.
    ///
    /// # Errors
    /// When a file cannot be read or written, or the page has half a section.
    pub(crate) fn write(&self, docs: &Path) -> anyhow::Result<()> {
        let page = docs.join(PAGE);
        let text = match fs::read_to_string(&page) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => TITLE.to_owned(),
            Err(error) => return Err(error).with_context(|| page.display().to_string()),
        };
        let folder = docs.join(PLOTS);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        self.remove_plots(&folder)?;
        let mut shown = vec![];
        for plot in &self.plots {
            let (Some(light), Some(dark)) = (plot.svg(LIGHT)?, plot.svg(DARK)?) else {
                continue;
            };
            for (theme, svg) in [(LIGHT, light), (DARK, dark)] {
                let path = folder.join(self.file(plot, theme.name));
                fs::write(&path, svg).with_context(|| path.display().to_string())?;
            }
            shown.push(plot);
        }
        let text = replace(&text, self.name, &self.to_markdown(&shown))?;
        fs::write(&page, text).with_context(|| page.display().to_string())
    }

    /// Removes the plots of an earlier run, which may have had others.
    fn remove_plots(&self, folder: &Path) -> anyhow::Result<()> {
        let prefix = format!("{}-", self.name);
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(&prefix) && name.ends_with(".svg") {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn file(&self, plot: &Plot, theme: &str) -> String {
        format!("{}-{}-{theme}.svg", self.name, plot.name)
    }

    fn to_markdown(&self, plots: &[&Plot]) -> String {
        let mut out = format!("## {}\n", self.title);
        for paragraph in &self.circumstances {
            // Writing to a String cannot fail.
            let _ = write!(out, "\n{}", wrap(paragraph, "", ""));
        }
        let _ = write!(out, "\n{}", self.table);
        if !self.notes.is_empty() {
            out.push('\n');
        }
        for note in &self.notes {
            out.push_str(&wrap(note, "- ", "  "));
        }
        for plot in plots {
            let alternative = escape(&plot.alternative());
            let alternative = wrap(&format!("alt=\"{alternative}\">"), "       ", "       ");
            let _ = write!(
                out,
                "\n<picture>\n  <source media=\"(prefers-color-scheme: dark)\"\n          \
                 srcset=\"{PLOTS}/{}\">\n  <img src=\"{PLOTS}/{}\"\n{alternative}</picture>\n",
                self.file(plot, DARK.name),
                self.file(plot, LIGHT.name),
            );
        }
        out
    }
}

/// `text` with `section` in place of the section of this name, or behind all others.
fn replace(text: &str, name: &str, section: &str) -> anyhow::Result<String> {
    let (begin, end) = (
        format!("<!-- begin {name} -->"),
        format!("<!-- end {name} -->"),
    );
    let section = format!("{begin}\n{section}{end}");
    match (text.find(&begin), text.find(&end)) {
        (Some(from), Some(to)) if from < to => {
            let (before, after) = (&text[..from], &text[to + end.len()..]);
            Ok(format!("{before}{section}{after}"))
        }
        (None, None) => Ok(format!("{}\n\n{section}\n", text.trim_end())),
        _ => anyhow::bail!("{PAGE} has only one of the comments {begin} and {end}"),
    }
}

/// `text` in lines of at most [`COLUMNS`], unless a word is longer.
fn wrap(text: &str, first: &str, rest: &str) -> String {
    let mut out = String::new();
    let mut line = first.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            out.push_str(&line);
            out.push('\n');
            rest.clone_into(&mut line);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    out.push_str(&line);
    out.push('\n');
    out
}

/// For the value of an attribute.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::plot::{Bar, Group, OWN, Shape};
    use super::*;

    fn section(name: &'static str, title: &str, value: f64) -> Section {
        let bar = Bar {
            name: OWN.to_owned(),
            value,
        };
        let plot = |name: &str, bars| Plot {
            name: name.to_owned(),
            title: "Rates \"<&>\"".to_owned(),
            shape: Shape::Bars {
                unit: "MB/s".to_owned(),
                groups: vec![Group {
                    label: "down".to_owned(),
                    bars,
                }],
            },
        };
        Section {
            name,
            title: title.to_owned(),
            circumstances: vec!["A word. ".repeat(30)],
            table: "| a |\n|---|\n| 1 |\n".to_owned(),
            notes: vec!["A note. ".repeat(30)],
            plots: vec![plot("rates", vec![bar]), plot("empty", vec![])],
        }
    }

    fn files(docs: &Path) -> Vec<String> {
        let entries = fs::read_dir(docs.join(PLOTS)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_run_replaces_its_own_section_only() {
        let docs = tempfile::tempdir().unwrap();
        let page = docs.path().join(PAGE);
        section("tunnel", "Tunnel", 1.0).write(docs.path()).unwrap();
        section("copies", "Copies", 2.0).write(docs.path()).unwrap();
        let text = fs::read_to_string(&page).unwrap();
        // By hand between and around them.
        let text = text.replace("<!-- end tunnel -->", "<!-- end tunnel -->\n\nOwn words.");
        fs::write(&page, text).unwrap();
        let stale = docs.path().join(PLOTS).join("tunnel-gone-dark.svg");
        fs::write(&stale, "").unwrap();
        section("tunnel", "Tunnel again", 3.0)
            .write(docs.path())
            .unwrap();

        let text = fs::read_to_string(&page).unwrap();
        let order = ["# Benchmarks", "## Tunnel again", "Own words.", "## Copies"];
        let found: Vec<usize> = order.iter().map(|part| text.find(part).unwrap()).collect();
        assert!(found.is_sorted(), "{text}");
        assert!(!text.contains("## Tunnel\n"), "{text}");
        assert!(
            text.contains("pgiam 3.00") && text.contains("pgiam 2.00"),
            "{text}"
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= COLUMNS),
            "{text}"
        );
        let expected = [
            "copies-rates-dark.svg",
            "copies-rates-light.svg",
            "tunnel-rates-dark.svg",
            "tunnel-rates-light.svg",
        ];
        assert_eq!(files(docs.path()), expected);
    }

    #[test]
    fn a_second_run_with_the_same_figures_changes_nothing() {
        let docs = tempfile::tempdir().unwrap();
        let mut texts = vec![];
        for _ in 0..2 {
            section("tunnel", "Tunnel", 1.0).write(docs.path()).unwrap();
            texts.push(fs::read_to_string(docs.path().join(PAGE)).unwrap());
        }
        assert_eq!(texts[0], texts[1]);
    }

    #[test]
    fn the_pictures_are_relative_and_have_a_text() {
        let docs = tempfile::tempdir().unwrap();
        section("tunnel", "Tunnel", 1.0).write(docs.path()).unwrap();
        let text = fs::read_to_string(docs.path().join(PAGE)).unwrap();
        let expected = "
<picture>
  <source media=\"(prefers-color-scheme: dark)\"
          srcset=\"benchmarks/tunnel-rates-dark.svg\">
  <img src=\"benchmarks/tunnel-rates-light.svg\"
       alt=\"Rates &quot;&lt;&amp;&gt;&quot; in MB/s. down: pgiam 1.00\">
</picture>
<!-- end tunnel -->
";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn half_a_section_is_an_error() {
        let error = replace("<!-- begin tunnel -->", "tunnel", "x").unwrap_err();
        assert!(error.to_string().contains("<!-- end tunnel -->"), "{error}");
        assert!(replace("<!-- end a --><!-- begin a -->", "a", "x").is_err());
    }
}
