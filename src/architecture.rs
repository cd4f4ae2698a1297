//! The rules of the architecture, as tests: who may import whom, and where `unsafe` may stand.

use std::fs;
use std::path::Path;

/// The layers from bottom to top; each may import those before it, and itself.
const LAYERS: [&str; 5] = ["engine", "runtime", "worker", "vm", "binding"];

/// Crates that a layer must not name.
const FORBIDDEN: [(&str, &[&str]); 3] = [
    ("engine", &["mlua", "tokio", "nix", "once_cell", "crossbeam_channel"]),
    ("runtime", &["mlua"]),
    ("worker", &["mlua"]),
];

/// The files that may hold `unsafe`; each says why.
const UNSAFE_FILES: &[&str] = &[
    "binding/raw/channel.rs",
    "binding/raw/coroutine.rs",
    "binding/raw/job.rs",
    "binding/raw/mod.rs",
    "binding/raw/place.rs",
    "binding/raw/reserve.rs",
    "binding/raw/task.rs",
    "binding/raw/timer.rs",
    "binding/raw/turn.rs",
    "binding/raw/watch.rs",
    "binding/raw/worker.rs",
    "runtime/deadline.rs",
    "runtime/heap.rs",
    "runtime/no_signal.rs",
    "runtime/process.rs",
    "vm/raw/build.rs",
    "vm/raw/mod.rs",
    "vm/raw/plain.rs",
    "vm/raw/walk.rs",
    "runtime/signal.rs",
    "vm/brake.rs",
    "vm/interrupt.rs",
    "vm/memory.rs",
    "vm/state.rs",
];

/// The Rust sources, by their paths below `src/`.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((name_of(&root, &path), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 20, "the sources are not where they were");
    found
}

fn name_of(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/")
}

fn layer_of(file: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| file.split('/').next() == Some(layer))
}

/// The code of a line, without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// Whether `code` names `word` as a whole word.
fn names(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        !code[..at].chars().next_back().is_some_and(is_part)
            && !code[at + word.len()..].chars().next().is_some_and(is_part)
    })
}

/// The places at which `is_wrong` finds fault with a line of code.
fn faults(is_wrong: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let mut faults = Vec::new();
    for (file, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            if is_wrong(&file, code(line)) {
                faults.push(format!("{file}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    faults
}

#[test]
fn imports_run_downward_only() {
    let faults = faults(|file, code| {
        let Some(layer) = layer_of(file) else { return false };
        LAYERS[layer + 1..].iter().any(|above| code.contains(&format!("crate::{above}")))
    });
    assert!(faults.is_empty(), "imports that run upward:\n{}", faults.join("\n"));
}

#[test]
fn lower_layers_know_neither_lua_nor_tokio() {
    let faults = faults(|file, code| {
        FORBIDDEN.iter().any(|(layer, crates)| {
            file.starts_with(&format!("{layer}/")) && crates.iter().any(|name| names(code, name))
        })
    });
    assert!(faults.is_empty(), "crates that a layer must not know:\n{}", faults.join("\n"));
}

#[test]
fn unsafe_stands_where_it_is_allowed() {
    let faults = faults(|file, code| {
        let allows = code.contains("unsafe_code");
        (names(code, "unsafe") || allows) && !UNSAFE_FILES.contains(&file) && file != "architecture.rs"
    });
    assert!(faults.is_empty(), "unsafe outside of the files that may hold it:\n{}", faults.join("\n"));
}

#[test]
fn the_rules_find_what_they_are_for() {
    assert!(names("use mlua::Lua;", "mlua") && !names("use mlua_sys;", "mlua") && !names("fn unmlua()", "mlua"));
    assert_eq!(code("let a = 1; // unsafe"), "let a = 1; ");
    assert_eq!(layer_of("vm/mod.rs"), Some(3));
    assert_eq!(layer_of("lib.rs"), None);
}
