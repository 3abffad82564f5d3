//! The grammar of one file: Python's `RawConfigParser` with its defaults, as observed in AWS CLI
//! 2.36.
//!
//! The parser continues after each fault and notes it in the section. A section keeps its first
//! fault only, so that the number of faults does not multiply the memory.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use crate::problem::{Problem, Reason};
use crate::python::{file_lines, indentation, split_lines, strip, strip_end};
use crate::setting::{FileKind, Location};

/// The section whose keys all sections of the file inherit.
const DEFAULT_SECTION: &str = "DEFAULT";
const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// Key and text of a line in a nested block.
pub(crate) type NestedSetting = (Arc<str>, Arc<str>);

/// A value of a key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) text: Arc<str>,
    pub(crate) line: usize,
    /// Lines of the block below the key. The AWS CLI has no text for such a key.
    pub(crate) nested: Option<Vec<NestedSetting>>,
}

/// A section, or the keys of `[DEFAULT]`. `Debug` does not show the keys: a line of a broken file may
/// have a part of a secret before its `=`.
#[derive(Clone, Default)]
pub(crate) struct Section {
    /// Text between the brackets.
    pub(crate) header: Arc<str>,
    pub(crate) line: usize,
    pub(crate) values: BTreeMap<String, Value>,
    /// First fault.
    pub(crate) problem: Option<Problem>,
}

impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Section")
            .field("header", &self.header)
            .field("line", &self.line)
            .field("values", &self.values.len())
            .field("problem", &self.problem)
            .finish()
    }
}

/// A parsed file.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) kind: FileKind,
    pub(crate) path: Arc<str>,
    /// In the order of their first headers.
    pub(crate) sections: Vec<Section>,
    /// `[DEFAULT]`.
    pub(crate) defaults: Section,
    /// Fault of the whole file, which then has no sections.
    pub(crate) fault: Option<Problem>,
    /// First fault that belongs to no section, or hides the name of one.
    pub(crate) stray: Option<Problem>,
    /// First comment that is not UTF-8, which makes nothing unusable.
    pub(crate) comment: Option<Problem>,
}

impl Document {
    /// Returns a document without sections.
    pub(crate) fn empty(kind: FileKind, path: &str) -> Self {
        Self {
            kind,
            path: path.into(),
            sections: Vec::new(),
            defaults: Section::default(),
            fault: None,
            stray: None,
            comment: None,
        }
    }

    /// Returns a document of a file that cannot be used at all.
    pub(crate) fn faulty(kind: FileKind, path: &str, reason: Reason) -> Self {
        let mut document = Self::empty(kind, path);
        document.fault = Some(document.problem(1, None, reason));
        document
    }

    /// Parses a file of at most [`MAX_FILE_BYTES`](crate::MAX_FILE_BYTES).
    pub(crate) fn parse(kind: FileKind, path: &str, contents: &[u8]) -> Self {
        if contents.starts_with(b"\xff\xfe") || contents.starts_with(b"\xfe\xff") {
            return Self::faulty(kind, path, Reason::Utf16);
        }
        let unmarked = contents.strip_prefix(UTF8_MARK);
        let mut parser = Parser::new(Self::empty(kind, path));
        for (line, bytes) in (1..).zip(file_lines(unmarked.unwrap_or(contents))) {
            parser.take(line, bytes);
            if line == 1 && unmarked.is_some() {
                parser.note(1, Reason::ByteOrderMark);
            }
        }
        if unmarked.is_some_and(<[u8]>::is_empty) {
            parser.note(1, Reason::ByteOrderMark);
        }
        parser.finish()
    }

    /// Returns the place of a line.
    pub(crate) fn location(&self, line: usize) -> Location {
        Location {
            kind: self.kind,
            path: self.path.clone(),
            line,
        }
    }

    fn problem(&self, line: usize, section: Option<Arc<str>>, reason: Reason) -> Problem {
        Problem {
            location: self.location(line),
            section,
            reason,
        }
    }

    /// Returns all faults, each line once.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &Problem> {
        let sections = || self.sections.iter().chain([&self.defaults]);
        let in_sections = move || sections().filter_map(|section| section.problem.as_ref());
        let is_new = move |problem: &&Problem| {
            let mut known = in_sections();
            known.all(|known| known.location != problem.location)
        };
        let whole = [&self.fault, &self.stray, &self.comment];
        let whole = whole.into_iter().flatten().filter(is_new);
        whole.chain(in_sections())
    }
}

/// The section that lines belong to.
#[derive(Clone, Copy)]
enum Current {
    None,
    Defaults,
    Section(usize),
}

/// A key whose value may continue on the next line.
struct OpenKey {
    name: String,
    line: usize,
    /// Lines of the value, joined with LF.
    text: String,
    /// The text of the line of the key is empty, so that the lines below are a nested block.
    is_block: bool,
}

struct Parser {
    document: Document,
    index: HashMap<Arc<str>, usize>,
    current: Current,
    open: Option<OpenKey>,
    /// Indentation of the line that opened the key, or of the header.
    indentation: usize,
}

impl Parser {
    fn new(document: Document) -> Self {
        Self {
            document,
            index: HashMap::new(),
            current: Current::None,
            open: None,
            indentation: 0,
        }
    }

    /// Takes the next line. Faulty bytes are replaced, so that the line is still noted in the
    /// section that it belongs to.
    fn take(&mut self, line: usize, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let is_utf8 = matches!(text, std::borrow::Cow::Borrowed(_));
        let stripped = strip(&text);
        if stripped.starts_with(['#', ';']) {
            if !is_utf8 && self.document.comment.is_none() {
                let problem = self.document.problem(line, None, Reason::NotUtf8Comment);
                self.document.comment = Some(problem);
            }
            return;
        }
        if stripped.is_empty() {
            if let Some(open) = &mut self.open {
                open.text.push('\n');
            }
            return;
        }
        let indentation = indentation(&text);
        if self.open.is_some() && indentation > self.indentation {
            self.continuation(line, stripped);
        } else {
            self.indentation = indentation;
            match header(stripped) {
                Some(name) => {
                    if !is_utf8 {
                        self.note_stray(line, Reason::NotUtf8);
                    }
                    self.header(line, name);
                }
                None => self.key(line, stripped),
            }
        }
        if !is_utf8 {
            self.note(line, Reason::NotUtf8);
        }
    }

    fn continuation(&mut self, line: usize, text: &str) {
        let Some(open) = &mut self.open else {
            return;
        };
        open.text.push('\n');
        open.text.push_str(text);
        let without_delimiter = |piece: &str| !strip(piece).is_empty() && !piece.contains('=');
        if open.is_block && split_lines(text).any(without_delimiter) {
            self.note(line, Reason::NestedLine);
        }
    }

    fn header(&mut self, line: usize, name: &str) {
        self.close();
        if let Some(&at) = self.index.get(name) {
            self.current = Current::Section(at);
            let first_line = self.document.sections.get(at).map_or(0, |first| first.line);
            self.note(line, Reason::DuplicateSection { first_line });
            return;
        }
        if name == DEFAULT_SECTION {
            self.current = Current::Defaults;
            let defaults = &mut self.document.defaults;
            if defaults.header.is_empty() {
                defaults.header = name.into();
                defaults.line = line;
            }
            return;
        }
        let header: Arc<str> = name.into();
        let at = self.document.sections.len();
        self.index.insert(header.clone(), at);
        self.document.sections.push(Section {
            header,
            line,
            ..Section::default()
        });
        self.current = Current::Section(at);
    }

    fn key(&mut self, line: usize, text: &str) {
        let Some(section) = self.section() else {
            self.note(
                line,
                match text.starts_with('[') {
                    true => Reason::UnclosedHeader,
                    false => Reason::BeforeFirstSection,
                },
            );
            return;
        };
        let Some((name, value)) = text.split_once(['=', ':']) else {
            let is_header = text.starts_with('[');
            if is_header {
                self.note_stray(line, Reason::UnclosedHeader);
            }
            self.note(
                line,
                if is_header {
                    Reason::UnclosedHeader
                } else {
                    Reason::NoDelimiter
                },
            );
            return;
        };
        let name = strip_end(name).to_lowercase();
        let first = section.values.get(&name).map(|first| first.line);
        let open = self.open.as_ref().filter(|open| open.name == name);
        let first = open.map(|open| open.line).or(first);
        self.close();
        if name.is_empty() {
            self.note(line, Reason::EmptyKey);
            return;
        }
        if let Some(first_line) = first {
            self.note(line, Reason::duplicate_key(&name, first_line));
        }
        let text = strip(value).to_owned();
        self.open = Some(OpenKey {
            name,
            line,
            is_block: text.is_empty(),
            text,
        });
    }

    /// Ends the value of the open key.
    fn close(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        let text = strip_end(&open.text);
        let value = Value {
            nested: text.starts_with('\n').then(|| nested(text)),
            text: text.into(),
            line: open.line,
        };
        if let Some(section) = self.section() {
            section.values.insert(open.name, value);
        }
    }

    fn section(&mut self) -> Option<&mut Section> {
        match self.current {
            Current::None => None,
            Current::Defaults => Some(&mut self.document.defaults),
            Current::Section(at) => self.document.sections.get_mut(at),
        }
    }

    /// Notes a fault in the section that the line belongs to.
    fn note(&mut self, line: usize, reason: Reason) {
        let header = self.section().map(|section| section.header.clone());
        let problem = self.document.problem(line, header, reason);
        let noted = match self.section() {
            Some(section) => &mut section.problem,
            None => &mut self.document.stray,
        };
        noted.get_or_insert(problem);
    }

    /// Notes a fault that belongs to no section, such as a header whose name is not known.
    fn note_stray(&mut self, line: usize, reason: Reason) {
        let problem = self.document.problem(line, None, reason);
        self.document.stray.get_or_insert(problem);
    }

    fn finish(mut self) -> Document {
        self.close();
        self.document
    }
}

/// Returns the text between the first and the last bracket of a stripped line.
fn header(line: &str) -> Option<&str> {
    let (name, _) = line.strip_prefix('[')?.rsplit_once(']')?;
    (!name.is_empty()).then_some(name)
}

/// Parses the lines of a nested block. Its keys keep their case; a repeated key has the last value.
fn nested(text: &str) -> Vec<NestedSetting> {
    let lines = split_lines(text).filter_map(|line| line.split_once('='));
    let both = lines.map(|(key, value)| (strip(key).into(), strip(value).into()));
    both.collect()
}
