//! The status page: one document with its style and scripts, all of them in the program. It reads
//! `/status` and changes nothing.

use serde::Serialize;

use crate::observe::{ListedTarget, Observed};
use crate::report::{ErrorEntry, error_entry};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// A file of the page.
#[derive(Debug)]
pub(super) struct PageFile {
    path: &'static str,
    pub(super) content_type: &'static str,
    pub(super) text: &'static str,
}

macro_rules! page_file {
    ($name:literal, $content_type:expr) => {
        PageFile {
            path: concat!("/page/", $name),
            content_type: $content_type,
            text: include_str!(concat!("page/", $name)),
        }
    };
}

static FILES: [PageFile; 10] = [
    PageFile {
        path: "/",
        content_type: HTML,
        text: include_str!("page/page.html"),
    },
    page_file!("page.css", CSS),
    page_file!("icon.svg", SVG),
    page_file!("main.js", JAVASCRIPT),
    page_file!("dom.js", JAVASCRIPT),
    page_file!("markdown.js", JAVASCRIPT),
    page_file!("model.js", JAVASCRIPT),
    page_file!("view.js", JAVASCRIPT),
    page_file!("plot.js", JAVASCRIPT),
    page_file!("words.js", JAVASCRIPT),
];

/// The recent logins of all targets, for the plot of the login time.
#[derive(Debug, Serialize)]
pub(super) struct PlottedLogins {
    /// Targets, sorted by name.
    targets: Vec<PlottedTarget>,
}

#[derive(Debug, Serialize)]
struct PlottedTarget {
    name: String,
    /// Age and duration of each login in seconds, oldest first.
    logins: Vec<(f64, f64)>,
}

impl PlottedLogins {
    pub(super) fn of(observed: &Observed) -> Self {
        let target = |listed: &ListedTarget| {
            let name = &listed.source.status().target.name;
            let logins = observed.recent_logins(name).into_iter();
            PlottedTarget {
                name: name.to_string(),
                logins: logins
                    .map(|(age, seconds)| (age.as_secs_f64(), seconds))
                    .collect(),
            }
        };
        Self {
            targets: observed.targets().iter().map(target).collect(),
        }
    }
}

/// An entry of `docs/errors.md`; texts are in Markdown.
#[derive(Debug, Serialize)]
pub(super) struct Explanation {
    topic: &'static str,
    answers: Vec<ExplainedAnswer>,
    text: &'static str,
    notes: &'static str,
}

#[derive(Debug, Serialize)]
struct ExplainedAnswer {
    context: &'static str,
    messages: &'static [String],
}

impl Explanation {
    pub(super) fn of(entry: &'static ErrorEntry) -> Self {
        let answers = entry.answers.iter().map(|answer| ExplainedAnswer {
            context: &answer.context,
            messages: &answer.messages,
        });
        Self {
            topic: entry.topic,
            answers: answers.collect(),
            text: entry.text,
            notes: entry.notes,
        }
    }
}

/// Part of the page.
#[derive(Debug)]
pub(super) enum Resource {
    /// A file.
    File(&'static PageFile),
    /// The status document.
    Status,
    /// The recent logins.
    Logins,
    /// The explanation of an error.
    Explanation(&'static ErrorEntry),
}

impl Resource {
    /// Returns the part with a path.
    pub(super) fn of(path: &str) -> Option<Self> {
        let file = FILES.iter().find(|file| file.path == path);
        match path {
            "/status" => Some(Self::Status),
            "/logins" => Some(Self::Logins),
            _ => match path.strip_prefix("/explain/") {
                Some(id) => error_entry(id).map(Self::Explanation),
                None => file.map(Self::File),
            },
        }
    }
}

/// Returns the paths of the page.
#[cfg(test)]
pub(super) fn paths() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|file| file.path)
}
