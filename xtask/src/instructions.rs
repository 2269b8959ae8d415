//! Counts the instructions of the hot paths under valgrind, and compares them with those that are kept: times vary by a factor on a busy
//! machine, instructions by some in a thousand.
//!
//! What always holds: nothing is written to the tree; whoever accepts new figures puts what is printed into
//! `crates/shard-server/benches/instructions.toml`. They hold for one compiler and one processor type.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use crate::tree::{Tree, cargo, said};

const KEPT: &str = "crates/shard-server/benches/instructions.toml";
/// More than this many thousandths of what is kept is a regression.
const TOLERATED: u64 = 1_050;

/// Counts all paths, or those of these names. `false` if one takes more than it did.
pub(crate) fn run(tree: &Tree, names: &[String]) -> anyhow::Result<bool> {
    let kept: toml::Table = tree.read(&tree.path(Path::new(KEPT)))?.parse()?;
    let program = program(tree)?;
    let all = said(Command::new(&program))?;
    let chosen = |name: &&str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    let mut is_good = true;
    let mut out = std::io::stdout();
    for name in all.lines().filter(chosen) {
        let now = count(&program, name)?;
        let before = kept.get(name).and_then(toml::Value::as_integer);
        let before = before.and_then(|count| u64::try_from(count).ok());
        let verdict = match before {
            None => "not kept yet".to_owned(),
            Some(before) => {
                let thousandths = now * 1_000 / before.max(1);
                is_good &= thousandths <= TOLERATED;
                let word = if thousandths > TOLERATED {
                    ", MORE"
                } else {
                    ""
                };
                let (whole, part) = (thousandths / 1_000, thousandths % 1_000);
                format!("{whole}.{part:03} of what is kept{word}")
            }
        };
        writeln!(out, "{name} = {now} # {verdict}")?;
    }
    Ok(is_good)
}

/// Builds the program, and says where it is.
fn program(tree: &Tree) -> anyhow::Result<String> {
    let mut build = cargo();
    build
        .args(["bench", "--no-run", "--locked", "--workspace"])
        .args(["--bench", "instructions", "--message-format", "json"])
        .current_dir(tree.path(Path::new("")));
    let messages = said(build)?;
    let found = messages.lines().rev().find_map(|line| {
        let (_, rest) = line.split_once("\"executable\":\"")?;
        let (path, _) = rest.split_once('"')?;
        path.contains("instructions-").then(|| path.to_owned())
    });
    found.context("the build names no program")
}

/// Instructions of going through a path once.
fn count(program: &str, name: &str) -> anyhow::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args([
            "--collect-atstart=no",
            "--toggle-collect=*instructions::measured*",
        ])
        .args([program, name])
        .output()
        .context("running valgrind, of Debian's package of this name")?;
    let text = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{name}: {text}");
    let counted = text.lines().find_map(|line| line.split_once("Collected :"));
    let (_, counted) = counted.context("valgrind has counted nothing")?;
    let counted: u64 = counted.trim().parse().context("what valgrind counted")?;
    let operations = String::from_utf8_lossy(&output.stdout);
    let operations: u64 = operations.trim().parse().context("how often it was done")?;
    anyhow::ensure!(counted > 0, "{name}: nothing of it was counted");
    Ok(counted / operations.max(1))
}
