//! House rules that no compiler checks: `cargo xtask tidy`.
//!
//! Each rule is a function from the work tree to a list of complaints, and all of them run as a test too, so that a
//! rule that is broken fails the suite. What always holds: nothing here writes to the tree.

mod house;
mod rules;
mod tree;

use std::io::{self, Write};
use std::process::ExitCode;

use tree::Tree;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("tidy"), None) => match tidy() {
            Ok(code) => code,
            Err(error) => {
                let _ = writeln!(io::stderr(), "xtask: {error:#}");
                ExitCode::FAILURE
            }
        },
        _ => {
            let _ = writeln!(io::stderr(), "usage: cargo xtask tidy");
            ExitCode::from(64)
        }
    }
}

fn tidy() -> anyhow::Result<ExitCode> {
    let complaints = all_complaints(&Tree::here()?)?;
    let mut out = io::stdout().lock();
    for complaint in &complaints {
        writeln!(out, "{complaint}")?;
    }
    if complaints.is_empty() {
        writeln!(out, "tidy: every house rule holds")?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "tidy: {} complaints", complaints.len())?;
    Ok(ExitCode::FAILURE)
}

fn all_complaints(tree: &Tree) -> anyhow::Result<Vec<String>> {
    let mut complaints = house::directions(tree)?;
    complaints.extend(rules::file_lengths(tree)?);
    complaints.extend(rules::module_docs(tree)?);
    complaints.extend(rules::proto_packages(tree)?);
    complaints.extend(rules::confessed_suppressions(tree)?);
    complaints.extend(rules::relative_links(tree)?);
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
