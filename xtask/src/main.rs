//! House rules that no compiler checks: `cargo xtask tidy`. Bugs put in on purpose, to try the simulation: `cargo xtask mutants`. How many
//! instructions the hot paths take: `cargo xtask instructions`. And a build with a profile of the programs at work: `cargo xtask pgo`.
//!
//! Each rule is a function from the work tree to a list of complaints, and all of them run as a test too, so that a
//! rule that is broken fails the suite. What always holds: nothing here writes to the tree.

mod house;
mod instructions;
mod mutants;
mod pgo;
mod rules;
mod tree;

use std::io::{self, Write};
use std::process::ExitCode;

use tree::Tree;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((verb, [])) if verb == "tidy" => tidy(),
        Some((verb, names)) if verb == "mutants" => {
            Tree::here().and_then(|tree| mutants::run(&tree, names))
        }
        Some((verb, names)) if verb == "instructions" => {
            Tree::here().and_then(|tree| instructions::run(&tree, names))
        }
        Some((verb, [])) if verb == "pgo" => Tree::here().and_then(|tree| pgo::run(&tree)),
        _ => {
            let usage =
                "usage: cargo xtask tidy | mutants [NAME...] | instructions [NAME...] | pgo";
            let _ = writeln!(io::stderr(), "{usage}");
            return ExitCode::from(64);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn tidy() -> anyhow::Result<bool> {
    let complaints = all_complaints(&Tree::here()?)?;
    let mut out = io::stdout().lock();
    for complaint in &complaints {
        writeln!(out, "{complaint}")?;
    }
    if complaints.is_empty() {
        writeln!(out, "tidy: every house rule holds")?;
        return Ok(true);
    }
    writeln!(out, "tidy: {} complaints", complaints.len())?;
    Ok(false)
}

fn all_complaints(tree: &Tree) -> anyhow::Result<Vec<String>> {
    let mut complaints = house::directions(tree)?;
    complaints.extend(rules::file_lengths(tree)?);
    complaints.extend(rules::module_docs(tree)?);
    complaints.extend(rules::merge_marks(tree)?);
    complaints.extend(rules::proto_packages(tree)?);
    complaints.extend(rules::confessed_suppressions(tree)?);
    complaints.extend(rules::relative_links(tree)?);
    complaints.extend(rules::names_in_documents(tree)?);
    complaints.extend(mutants::complaints(tree)?);
    Ok(complaints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_house_rule_holds() {
        let complaints = all_complaints(&Tree::here().unwrap()).unwrap();
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    }
}
