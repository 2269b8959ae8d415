//! `autocomplete top -i`: a typing session in the terminal.
//!
//! One thread reads keys, one loop keeps the state ([`Editor`], pure), asks the cluster over one stream, and draws. Keys that came while an
//! answer was awaited are taken together, so that the cluster is asked for what is on the screen now and not for what was.
//!
//! The terminal is put back in order when the session ends, by whatever way: [`screen::Screen`] does so when it is dropped.

mod editor;
mod keys;
mod screen;

use api::v1;
use client::{Client, ClientError};
use runtime::Runtime;

use editor::{Action, Editor, Key};
use keys::Keys;
use screen::Screen;

/// Runs a session that starts with the request's prefix.
pub(crate) async fn run(
    runtime: &Runtime,
    client: &Client,
    request: v1::GetTopKRequest,
) -> Result<(), anyhow::Error> {
    let mut screen = Screen::open()?;
    let mut keys = Keys::start(runtime)?;
    let mut session = client.top_k_stream();
    let mut editor = Editor::new(request.prefix.clone());
    loop {
        if let Some(prefix) = editor.question() {
            let request = v1::GetTopKRequest {
                prefix,
                ..request.clone()
            };
            match session.ask(request).await {
                Ok(response) => editor.answered(response),
                Err(error) => editor.failed(&error.to_string()),
            }
        }
        screen.draw(&editor)?;
        // Everything that was typed meanwhile, at least one key.
        for key in keys.next().await? {
            match editor.press(key) {
                Action::None => {}
                Action::Leave => return Ok(()),
                Action::Record(term) => match record(client, &request.namespace, term).await {
                    Ok(response) => editor.recorded(response.count),
                    Err(error) => editor.failed(&error.to_string()),
                },
            }
        }
    }
}

async fn record(
    client: &Client,
    namespace: &str,
    term: String,
) -> Result<v1::RecordResponse, ClientError> {
    client
        .record(v1::RecordRequest {
            term,
            count: 1,
            namespace: namespace.to_owned(),
            request_id: None,
        })
        .await
}

/// What is in an empty line after an answer, so many steps down its list and the key that completes.
pub(crate) fn completed(response: v1::GetTopKResponse, steps: usize) -> String {
    let mut editor = Editor::new(String::new());
    editor.answered(response);
    for _ in 0..steps {
        editor.press(Key::Down);
    }
    editor.press(Key::Complete);
    editor.text().to_owned()
}
