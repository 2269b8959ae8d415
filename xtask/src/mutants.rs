//! Puts the bugs of `crates/sim/mutants.toml` into a copy of the sources, one at a time, and says which the simulation catches.
//!
//! What always holds: the work tree is not touched; the copy is a git work tree of what is committed, below `target/mutants`, and is
//! as it was after each bug. A bug that does not compile counts as missed, so that the bank cannot rot unseen.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::tree::{Tree, cargo};

const BANK: &str = "crates/sim/mutants.toml";
/// Seeds that a bug may need to show.
const SEEDS: u64 = 150;
/// How the kernel ends a process that has used up its processor time.
const SIGXCPU: i32 = 24;

/// A bug: one text in place of another.
#[derive(Debug)]
struct Mutant {
    name: String,
    file: PathBuf,
    from: String,
    to: String,
}

/// Each bug's text must stand exactly once in its file.
pub(crate) fn complaints(tree: &Tree) -> anyhow::Result<Vec<String>> {
    let mut complaints = Vec::new();
    for mutant in bank(tree)? {
        let text = tree.read(&tree.path(&mutant.file))?;
        let count = text.matches(&mutant.from).count();
        if count != 1 {
            let (name, file) = (&mutant.name, mutant.file.display());
            complaints.push(format!(
                "{BANK}: the text of {name} stands {count} times in {file}"
            ));
        }
    }
    Ok(complaints)
}

/// Tries the bugs of these names, or all. `false` if one was missed.
pub(crate) fn run(tree: &Tree, names: &[String]) -> anyhow::Result<bool> {
    let all = bank(tree)?;
    let chosen = |mutant: &&Mutant| names.is_empty() || names.contains(&mutant.name);
    let copy = copy(tree)?;
    let mut missed = 0;
    let mut tried = 0;
    for mutant in all.iter().filter(chosen) {
        let path = copy.join(&mutant.file);
        let text = tree.read(&path)?;
        write(&path, &text.replacen(&mutant.from, &mutant.to, 1))?;
        let verdict = verdict(tree, &copy);
        write(&path, &text)?;
        let verdict = verdict?;
        tried += 1;
        missed += usize::from(!verdict.is_caught);
        writeln!(std::io::stdout(), "{}: {}", mutant.name, verdict.text)?;
    }
    writeln!(std::io::stdout(), "{tried} bugs tried, {missed} missed")?;
    Ok(missed == 0 && tried > 0)
}

struct Verdict {
    is_caught: bool,
    text: String,
}

fn verdict(tree: &Tree, copy: &Path) -> anyhow::Result<Verdict> {
    let target = tree.path(Path::new("target/mutants/build"));
    let mut build = cargo();
    build
        // The features of the whole workspace, so that libraries are compiled as they are for tests.
        .args([
            "build",
            "--quiet",
            "--locked",
            "--workspace",
            "--bin",
            "sim",
        ])
        .env("CARGO_TARGET_DIR", &target)
        // A bug is a line or two: what depends on it is the same as before.
        .env("CARGO_INCREMENTAL", "1")
        .stderr(Stdio::null())
        .current_dir(copy);
    if !build.status().context("running cargo")?.success() {
        let text = "does not compile".to_owned();
        return Ok(Verdict {
            is_caught: false,
            text,
        });
    }
    for seed in 0..SEEDS {
        if let Some(problem) = problem(&target.join("debug/sim"), seed)? {
            let text = format!("caught by seed {seed}: {problem}");
            return Ok(Verdict {
                is_caught: true,
                text,
            });
        }
    }
    let text = format!("MISSED by {SEEDS} seeds");
    Ok(Verdict {
        is_caught: false,
        text,
    })
}

/// What a seed shows, if it shows anything. Without a bug none does: the same seeds are run with every change.
fn problem(simulation: &Path, seed: u64) -> anyhow::Result<Option<String>> {
    let output = Command::new(simulation)
        .args(["report", &seed.to_string()])
        .output()
        .context("running the simulation")?;
    let status = output.status;
    let said = String::from_utf8_lossy(&output.stdout);
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(None),
        (Some(1), _) => {
            let problems = said.split_once("\"problems\":[\"");
            let first = problems.and_then(|(_, rest)| rest.split('"').next());
            let first = first.context("a report without problems")?;
            Ok(Some(first.chars().take(160).collect()))
        }
        (None, Some(SIGXCPU)) => Ok(Some("it does not end".to_owned())),
        (_, _) => anyhow::bail!("seed {seed} ended with {status}: {said}"),
    }
}

/// A work tree of what is committed.
fn copy(tree: &Tree) -> anyhow::Result<PathBuf> {
    let copy = tree.path(Path::new("target/mutants/tree"));
    let git = |arguments: &[&str], inside: &Path| -> anyhow::Result<()> {
        let status = Command::new("git")
            .args(arguments)
            .current_dir(inside)
            .status();
        let status = status.context("running git")?;
        anyhow::ensure!(status.success(), "git {arguments:?} ended with {status}");
        Ok(())
    };
    let root = tree.path(Path::new(""));
    if copy.exists() {
        let head = Command::new("git")
            .args(["rev-parse", "HEAD"])
            .current_dir(&root)
            .output()?;
        let head = String::from_utf8(head.stdout)?;
        git(
            &["checkout", "--quiet", "--force", "--detach", head.trim()],
            &copy,
        )?;
    } else {
        let path = copy.to_string_lossy();
        git(&["worktree", "prune"], &root)?;
        git(&["worktree", "add", "--quiet", "--detach", &path], &root)?;
    }
    Ok(copy)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a copy of the sources; the vfs crate is for data that must survive"
)]
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn bank(tree: &Tree) -> anyhow::Result<Vec<Mutant>> {
    let text = tree.read(&tree.path(Path::new(BANK)))?;
    let table: toml::Table = text.parse().with_context(|| format!("reading {BANK}"))?;
    let listed = table.get("mutant").and_then(toml::Value::as_array);
    let listed = listed.with_context(|| format!("{BANK} lists nothing"))?;
    let read = |entry: &toml::Value| {
        let field = |name: &str| {
            let value = entry.get(name).and_then(toml::Value::as_str);
            value
                .map(ToOwned::to_owned)
                .with_context(|| format!("{BANK}: {entry} has no {name}"))
        };
        Ok(Mutant {
            name: field("name")?,
            file: field("file")?.into(),
            from: field("from")?,
            to: field("to")?,
        })
    };
    listed.iter().map(read).collect()
}
