//! Restarting by a command of the operator's.

use std::process::Stdio;

use futures::future::BoxFuture;

use super::{Restart, RestartError, Restarter};
use crate::fleet::NodeTarget;

/// A command line with places for a node's name, number and address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandTemplate {
    program: String,
    arguments: Vec<String>,
}

/// Why a text is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// There is no word in it.
    #[error("must name a program")]
    Empty,
    /// A quote is not closed.
    #[error("has an open {0}")]
    OpenQuote(char),
    /// The program is a place to be filled in.
    #[error("must not take the program from a node")]
    ProgramFromNode,
}

const PLACES: [&str; 3] = ["{node}", "{node_id}", "{address}"];

impl CommandTemplate {
    /// Splits a command at spaces; single and double quotes keep words together.
    ///
    /// # Errors
    ///
    /// Refuses a text without a word, with an open quote, or with a place for the program.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut words: Vec<String> = Vec::new();
        let mut word: Option<String> = None;
        let mut quote = None;
        for c in text.chars() {
            match quote {
                Some(open) if c == open => quote = None,
                Some(_) => word.get_or_insert_default().push(c),
                None if c == '"' || c == '\'' => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                None if c.is_whitespace() => words.extend(word.take()),
                None => word.get_or_insert_default().push(c),
            }
        }
        if let Some(open) = quote {
            return Err(TemplateError::OpenQuote(open));
        }
        words.extend(word);
        let mut words = words.into_iter();
        let program = words
            .next()
            .filter(|program| !program.is_empty())
            .ok_or(TemplateError::Empty)?;
        if PLACES.iter().any(|place| program.contains(place)) {
            return Err(TemplateError::ProgramFromNode);
        }
        Ok(Self {
            program,
            arguments: words.collect(),
        })
    }

    /// The arguments for a node. Each stays one argument, whatever the node is called; what was filled in is not looked at again.
    fn arguments(&self, node: &NodeTarget) -> Vec<String> {
        let id = node.id.to_string();
        let values = [node.name.as_str(), id.as_str(), node.address.as_str()];
        self.arguments
            .iter()
            .map(|argument| fill_in(argument, values))
            .collect()
    }
}

fn fill_in(argument: &str, values: [&str; 3]) -> String {
    let mut filled = String::with_capacity(argument.len());
    let mut rest = argument;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        filled.push_str(before);
        let found = PLACES
            .iter()
            .zip(values)
            .find_map(|(place, value)| Some((value, from.strip_prefix(place)?)));
        rest = match found {
            Some((value, after)) => {
                filled.push_str(value);
                after
            }
            None => {
                filled.push('{');
                from.get(1..).unwrap_or_default()
            }
        };
    }
    filled.push_str(rest);
    filled
}

/// Runs a command for each restart, and waits for its end.
#[derive(Debug)]
pub struct Command {
    template: CommandTemplate,
}

impl Command {
    /// A restarter that runs the command.
    #[must_use]
    pub fn new(template: CommandTemplate) -> Self {
        Self { template }
    }
}

impl Restarter for Command {
    fn restart<'a>(&'a self, node: &'a NodeTarget) -> BoxFuture<'a, Result<Restart, RestartError>> {
        Box::pin(async move {
            // Its standard output is not ours to fill; what it complains of stands beside our log. Pipes would keep us waiting for a
            // server that it leaves behind.
            let mut child = tokio::process::Command::new(&self.template.program)
                .args(self.template.arguments(node))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .map_err(RestartError::NotRun)?;
            let status = child.wait().await.map_err(RestartError::NotRun)?;
            if status.success() {
                Ok(Restart::Begun)
            } else {
                Err(RestartError::Failed { status })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use cluster::NodeId;

    use super::*;

    fn node() -> NodeTarget {
        NodeTarget {
            id: NodeId(7),
            name: "a b; rm {address}".to_owned(),
            address: "host:1".to_owned(),
            replaced: false,
        }
    }

    #[test]
    fn words_quotes_and_places() {
        let template = CommandTemplate::parse(
            r#"  run  'one two' --n={node}/{node_id} "" {address} {other} {{node_id}} "#,
        )
        .unwrap();
        assert_eq!(template.program, "run");
        let expected = [
            "one two",
            "--n=a b; rm {address}/7",
            "",
            "host:1",
            "{other}",
            "{7}",
        ];
        assert_eq!(template.arguments(&node()), expected);
    }

    #[test]
    fn what_is_no_command_is_refused() {
        assert_eq!(CommandTemplate::parse("  "), Err(TemplateError::Empty));
        assert_eq!(CommandTemplate::parse("'' x"), Err(TemplateError::Empty));
        assert_eq!(
            CommandTemplate::parse("run 'x"),
            Err(TemplateError::OpenQuote('\''))
        );
        assert_eq!(
            CommandTemplate::parse("{node} x"),
            Err(TemplateError::ProgramFromNode)
        );
    }

    #[tokio::test]
    async fn how_the_command_ends_decides() {
        let run = |text: &str| Command::new(CommandTemplate::parse(text).unwrap());
        assert_eq!(
            run("test {node_id} = 7").restart(&node()).await.unwrap(),
            Restart::Begun
        );
        assert!(matches!(
            run("test {node_id} = 8").restart(&node()).await,
            Err(RestartError::Failed { .. })
        ));
        assert!(matches!(
            run("/nowhere/at/all").restart(&node()).await,
            Err(RestartError::NotRun(_))
        ));
    }
}
