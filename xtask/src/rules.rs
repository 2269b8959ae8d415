//! Rules about single files.

use std::collections::BTreeSet;
use std::path::Path;

use crate::tree::Tree;

/// Lines of a source file that is not a test. Beyond it nobody holds the file in the head.
const SOURCE_LINES_MAX: usize = 600;

fn sources(tree: &Tree) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut sources = Vec::new();
    for folder in ["crates", "tests", "xtask"] {
        sources.extend(tree.files(folder, ".rs")?);
    }
    Ok(sources)
}

fn is_test(path: &Path) -> bool {
    let in_tests = path.components().any(|part| {
        matches!(
            part.as_os_str().to_str(),
            Some("tests" | "benches" | "examples")
        )
    });
    let file = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("");
    in_tests && !path.components().any(|part| part.as_os_str() == "chaos") || file == "tests.rs"
}

/// Source files stay small. What follows the first `#[cfg(test)] mod tests` does not count.
pub(crate) fn file_lengths(tree: &Tree) -> anyhow::Result<Vec<String>> {
    let mut complaints = Vec::new();
    for path in sources(tree)? {
        if is_test(&path) {
            continue;
        }
        let text = tree.read(&path)?;
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or("");
        let lines = code.lines().count();
        if lines > SOURCE_LINES_MAX {
            complaints.push(format!(
                "{}: {lines} lines, at most {SOURCE_LINES_MAX} are allowed",
                tree.name(&path)
            ));
        }
    }
    Ok(complaints)
}

/// Every module says what it is for.
pub(crate) fn module_docs(tree: &Tree) -> anyhow::Result<Vec<String>> {
    let mut complaints = Vec::new();
    for path in sources(tree)? {
        if is_test(&path) {
            continue;
        }
        let text = tree.read(&path)?;
        if !text.starts_with("//! ") {
            complaints.push(format!(
                "{}: does not begin with a module doc",
                tree.name(&path)
            ));
        }
    }
    Ok(complaints)
}

/// Nobody left the marks of a merge behind.
pub(crate) fn merge_marks(tree: &Tree) -> anyhow::Result<Vec<String>> {
    let mut complaints = Vec::new();
    for ending in [".md", ".toml", ".yml", ".proto", ".rs"] {
        for path in tree.files("", ending)? {
            let text = tree.read(&path)?;
            let marks = ["<".repeat(7), ">".repeat(7)];
            for (number, line) in (1..).zip(text.lines()) {
                if marks.iter().any(|mark| line.starts_with(mark)) {
                    complaints.push(format!(
                        "{}:{number}: the mark of a merge",
                        tree.name(&path)
                    ));
                }
            }
        }
    }
    Ok(complaints)
}

/// A protobuf package lies in the folder of its name and carries its version.
pub(crate) fn proto_packages(tree: &Tree) -> anyhow::Result<Vec<String>> {
    let mut complaints = Vec::new();
    for path in tree.files("proto", ".proto")? {
        let text = tree.read(&path)?;
        let package = text
            .lines()
            .find_map(|line| line.strip_prefix("package ")?.strip_suffix(';'))
            .unwrap_or("");
        let folder = path.parent().unwrap_or(Path::new(""));
        if package.is_empty() || !folder.ends_with(package.replace('.', "/")) {
            complaints.push(format!(
                "{}: package {package:?} does not match its folder",
                tree.name(&path)
            ));
        }
    }
    Ok(complaints)
}

/// A suppressed lint or a skipped test says why.
pub(crate) fn confessed_suppressions(tree: &Tree) -> anyhow::Result<Vec<String>> {
    // Put together so that this file does not complain about itself.
    let bare_allow = concat!("#[al", "low(");
    let bare_ignore = concat!("#[ign", "ore]");
    let mut complaints = Vec::new();
    for path in sources(tree)? {
        for (number, line) in tree.read(&path)?.lines().enumerate() {
            let line = line.trim_start();
            let number = number + 1;
            if line.starts_with(bare_allow) {
                complaints.push(format!(
                    "{}:{number}: use expect with a reason",
                    tree.name(&path)
                ));
            }
            if line.starts_with(bare_ignore) {
                complaints.push(format!(
                    "{}:{number}: say why the test is ignored",
                    tree.name(&path)
                ));
            }
        }
    }
    Ok(complaints)
}

/// Relative links of the documents lead somewhere.
pub(crate) fn relative_links(tree: &Tree) -> anyhow::Result<Vec<String>> {
    let mut complaints = Vec::new();
    for path in tree.files("", ".md")? {
        let text = tree.read(&path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let file = target.split('#').next().unwrap_or("");
            let outside = file.is_empty() || file.contains("://") || file.starts_with("mailto:");
            if !outside && !folder.join(file).exists() {
                complaints.push(format!(
                    "{}: the link to {target} leads nowhere",
                    tree.name(&path)
                ));
            }
        }
    }
    Ok(complaints)
}

/// Tests and other things that documents name by three words or more are there. Metrics are another test's: their names are put together.
pub(crate) fn names_in_documents(tree: &Tree) -> anyhow::Result<Vec<String>> {
    const METRICS: &str = "autocomplete_";
    let mut known = BTreeSet::new();
    for ending in [".rs", ".toml", ".yml", ".proto"] {
        for path in tree.files("", ending)? {
            known.extend(words(&tree.read(&path)?).map(str::to_owned));
        }
    }
    let mut complaints = Vec::new();
    for path in tree.files("", ".md")? {
        let text = tree.read(&path)?;
        for (number, line) in (1..).zip(text.lines()) {
            let quoted = line.split('`').skip(1).step_by(2).flat_map(words);
            for name in quoted.filter(|name| name.matches('_').count() >= 2) {
                let is_name = name.bytes().all(|byte| !byte.is_ascii_uppercase());
                if is_name && !name.starts_with(METRICS) && !known.contains(name) {
                    complaints.push(format!(
                        "{}:{number}: nothing is called {name}",
                        tree.name(&path)
                    ));
                }
            }
        }
    }
    Ok(complaints)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_in_word = |at: char| at.is_ascii_alphanumeric() || at == '_';
    text.split(move |at| !is_in_word(at))
}
