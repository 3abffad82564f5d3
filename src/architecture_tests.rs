//! Holds the imports of `src/` against the columns of `docs/ARCHITECTURE.md`: each room imports only
//! from the rooms below it, and each file is in exactly one room.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A room: its name, and the files and folders that it has, relative to the repository.
struct Room {
    name: String,
    paths: Vec<String>,
}

/// A column of the document, from top to bottom. `below` is the folder that it is about.
struct Column {
    below: String,
    rooms: Vec<Room>,
}

impl Column {
    /// Returns the place in the column of a file.
    fn place(&self, file: &str) -> Vec<usize> {
        let holds = |path: &String| match path.ends_with('/') {
            true => file.starts_with(path.as_str()),
            false => file == path,
        };
        let rooms = self.rooms.iter().enumerate();
        let holding = rooms.filter(|(_, room)| room.paths.iter().any(holds));
        holding.map(|(at, _)| at).collect()
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Reads the blocks that are fenced as "column FOLDER".
fn columns() -> Vec<Column> {
    let document = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let blocks = document.split("\n```column ").skip(1);
    let column = |block: &str| {
        let (below, rest) = block.split_once('\n').unwrap();
        let (lines, _) = rest.split_once("\n```").unwrap();
        let room = |line: &str| {
            let mut words = line.split_whitespace().map(str::to_owned);
            Room {
                name: words.next().unwrap(),
                paths: words.collect(),
            }
        };
        Column {
            below: below.trim().to_owned(),
            rooms: lines.lines().map(room).collect(),
        }
    };
    blocks.map(column).collect()
}

/// Returns the Rust files below a folder, relative to the repository.
fn files(folder: &str) -> Vec<String> {
    fn collect(folder: &Path, all: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, all);
            } else if path.extension().is_some_and(|end| end == "rs") {
                all.push(path);
            }
        }
    }
    let mut all = Vec::new();
    collect(&root().join(folder), &mut all);
    let relative = |path: PathBuf| {
        let path = path.strip_prefix(root()).unwrap().to_owned();
        path.to_string_lossy().replace('\\', "/")
    };
    let mut all: Vec<String> = all.into_iter().map(relative).collect();
    all.sort();
    all
}

/// Returns the module path of a file of `src/`.
fn module(file: &str) -> Vec<String> {
    let inner = file.strip_prefix("src/").unwrap_or(file);
    let inner = inner.strip_suffix(".rs").unwrap_or(inner);
    let mut segments: Vec<String> = inner.split('/').map(str::to_owned).collect();
    if segments.last().is_some_and(|last| last == "mod") {
        segments.pop();
    }
    if segments == ["lib"] || segments == ["main"] {
        segments.clear();
    }
    segments
}

fn is_test(file: &str) -> bool {
    file.split('/').any(|part| part == "tests") || file.ends_with("tests.rs")
}

/// Returns the code of a file, its comments and its tests blanked out, line by line.
fn code(text: &str) -> String {
    let end = [
        "\n#[cfg(test)]\nmod tests {",
        "\n#[cfg(all(test, unix))]\nmod tests {",
    ]
    .iter()
    .filter_map(|begin| text.find(begin))
    .min();
    let lines = text[..end.unwrap_or(text.len())].lines();
    let code = lines.map(|line| line.split("//").next().unwrap_or_default());
    code.collect::<Vec<_>>().join("\n")
}

/// Returns each path of the code that begins with `crate` or `super`, and its line.
fn paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, begin) in code.char_indices().filter(|(_, c)| matches!(c, 'c' | 's')) {
        let rest = &code[at..];
        let begins = begin == 'c' && rest.starts_with("crate::")
            || begin == 's' && rest.starts_with("super::");
        let before = code[..at].chars().next_back();
        let inside = before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '$'));
        // The reach of a name is no import.
        if !begins || inside || code[..at].ends_with("pub(in ") {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        expand(rest, "", line, &mut found);
    }
    found
}

/// Adds the paths of one import, `a::{b, c::d}` as two.
fn expand<'a>(
    text: &'a str,
    prefix: &str,
    line: usize,
    found: &mut Vec<(usize, String)>,
) -> &'a str {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':');
    let text = text.trim_start();
    let length = text.find(|c: char| !is_part(c)).unwrap_or(text.len());
    let (head, mut rest) = text.split_at(length);
    let path = format!("{prefix}{head}");
    if !rest.starts_with('{') || !head.ends_with("::") {
        found.push((line, path));
        return rest;
    }
    rest = &rest[1..];
    loop {
        rest = expand(rest, &path, line, found).trim_start();
        // A new name: "as f".
        rest = rest.trim_start_matches(|c| c != ',' && c != '}');
        if rest.is_empty() {
            return rest;
        }
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        if let Some(rest) = rest.strip_prefix('}') {
            return rest;
        }
    }
}

/// Returns the file that a path leads to.
fn target(modules: &BTreeMap<Vec<String>, String>, from: &str, path: &str) -> Option<String> {
    let mut segments = path.split("::").filter(|part| !part.is_empty()).peekable();
    let mut full = match segments.peek() {
        Some(&"crate") => {
            segments.next();
            Vec::new()
        }
        _ => module(from),
    };
    while segments.next_if_eq(&"super").is_some() {
        full.pop();
    }
    full.extend(segments.map(str::to_owned));
    while !full.is_empty() {
        if let Some(file) = modules.get(&full) {
            return Some(file.clone());
        }
        full.pop();
    }
    None
}

/// Returns the imports that run upwards in a column, as "FILE:LINE: …".
fn upwards(column: &Column) -> Vec<String> {
    let modules = files("src").into_iter().map(|file| (module(&file), file));
    let modules: BTreeMap<_, _> = modules.collect();
    let mut wrong = Vec::new();
    for file in files("src") {
        let [from] = column.place(&file)[..] else {
            continue;
        };
        if is_test(&file) {
            continue;
        }
        let text = fs::read_to_string(root().join(&file)).unwrap();
        for (line, path) in paths(&code(&text)) {
            let Some(to) = target(&modules, &file, &path) else {
                continue;
            };
            let room = &column.rooms[from].name;
            match column.place(&to)[..] {
                [at] if at < from => {
                    let above = &column.rooms[at].name;
                    wrong.push(format!(
                        "{file}:{line}: {room} imports {path} from {above}, which is above it"
                    ));
                }
                // The parent of a column inside of a folder.
                [] if to == format!("{}.rs", column.below) => {
                    wrong.push(format!(
                        "{file}:{line}: {room} imports {path} from its parent"
                    ));
                }
                _ => {}
            }
        }
    }
    wrong
}

#[test]
fn rooms_import_only_from_below() {
    let wrong: Vec<String> = columns().iter().flat_map(upwards).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_file_is_in_one_room() {
    let columns = columns();
    assert_eq!(columns.len(), 2, "of src and of src/postgres");
    let mut wrong = Vec::new();
    for column in &columns {
        let parent = format!("{}.rs", column.below);
        let mut all = files(&column.below);
        if column.below == "src" {
            all.extend(files("crates"));
        }
        for file in all.iter().filter(|file| **file != parent) {
            let rooms = column.place(file).len();
            if rooms != 1 {
                wrong.push(format!(
                    "{file} is in {rooms} rooms of the column of {}",
                    column.below
                ));
            }
        }
        for room in &column.rooms {
            for path in &room.paths {
                let exists = root().join(path).exists();
                if !exists {
                    wrong.push(format!("{path} of room {} does not exist", room.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn paths_are_found_in_every_form() {
    let text = "use crate::a::{b, c::{self, d}, e as f};\npub(in crate::x) fn f(g: super::h::I) { crate::j::k() }\n// crate::comment\n\
                #[cfg(test)]\nmod tests {\nuse crate::only_in_tests;\n}";
    let text = format!("//! x\n{text}");
    let found = paths(&code(&text));
    let found: Vec<(usize, &str)> = found
        .iter()
        .map(|(line, path)| (*line, path.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            (2, "crate::a::b"),
            (2, "crate::a::c::self"),
            (2, "crate::a::c::d"),
            (2, "crate::a::e"),
            (3, "super::h::I"),
            (3, "crate::j::k"),
        ]
    );
}
