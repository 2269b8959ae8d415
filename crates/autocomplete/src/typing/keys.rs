//! Reads keys on a thread of its own: reading a terminal blocks.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use runtime::Runtime;
use tokio::sync::mpsc;

use super::editor::Key;
use crate::signals::Signals;

/// Keys that wait at most; a paste beyond it waits in the terminal.
const QUEUE_KEYS: usize = 256;

/// How soon the thread notices that nobody listens any more.
const POLL: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Keys {
    receiver: mpsc::Receiver<io::Result<Key>>,
    stop: Arc<AtomicBool>,
    signals: Signals,
}

impl Keys {
    pub(super) fn start(runtime: &Runtime) -> io::Result<Self> {
        let signals = Signals::new()?;
        let (sender, receiver) = mpsc::channel(QUEUE_KEYS);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        runtime.spawn_thread("keys", move || {
            while !stopped.load(Ordering::Relaxed) {
                let result = match read() {
                    Ok(None) => continue,
                    Ok(Some(key)) => Ok(key),
                    Err(error) => Err(error),
                };
                let failed = result.is_err();
                if sender.blocking_send(result).is_err() || failed {
                    return;
                }
            }
        })?;
        Ok(Self {
            receiver,
            stop,
            signals,
        })
    }

    /// The keys that have come, at least one. A terminal that is gone, or a signal to end, is [`Key::Leave`].
    pub(super) async fn next(&mut self) -> io::Result<Vec<Key>> {
        let first = tokio::select! {
            first = self.receiver.recv() => first,
            () = self.signals.next() => None,
        };
        let Some(first) = first else {
            return Ok(vec![Key::Leave]);
        };
        let mut keys = vec![first?];
        while let Ok(key) = self.receiver.try_recv() {
            keys.push(key?);
        }
        Ok(keys)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Waits a moment for a key that means something.
fn read() -> io::Result<Option<Key>> {
    if !event::poll(POLL)? {
        return Ok(None);
    }
    match event::read()? {
        Event::Key(key) if key.kind != KeyEventKind::Release => Ok(meaning(key)),
        Event::Resize(_, _) => Ok(Some(Key::Resized)),
        Event::Key(_)
        | Event::FocusGained
        | Event::FocusLost
        | Event::Mouse(_)
        | Event::Paste(_) => Ok(None),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a keyboard has many keys, and most mean nothing here"
)]
fn meaning(key: KeyEvent) -> Option<Key> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c' | 'd') => Some(Key::Leave),
            KeyCode::Char('u') => Some(Key::EraseAll),
            KeyCode::Char('w' | 'h') => Some(Key::EraseWord),
            KeyCode::Char('n') => Some(Key::Down),
            KeyCode::Char('p') => Some(Key::Up),
            _ => None,
        };
    }
    if key.modifiers.contains(KeyModifiers::ALT) {
        return None;
    }
    match key.code {
        KeyCode::Char(character) => Some(Key::Character(character)),
        KeyCode::Backspace => Some(Key::Backspace),
        KeyCode::Enter => Some(Key::Enter),
        KeyCode::Tab => Some(Key::Complete),
        KeyCode::Up => Some(Key::Up),
        KeyCode::Down => Some(Key::Down),
        KeyCode::Esc => Some(Key::Leave),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_people_expect() {
        let press = |code, modifiers| meaning(KeyEvent::new(code, modifiers));
        let none = KeyModifiers::NONE;
        assert_eq!(
            press(KeyCode::Char('É'), KeyModifiers::SHIFT),
            Some(Key::Character('É'))
        );
        assert_eq!(press(KeyCode::Esc, none), Some(Key::Leave));
        assert_eq!(press(KeyCode::F(1), none), None);
        assert_eq!(
            press(KeyCode::Char('c'), KeyModifiers::CONTROL),
            Some(Key::Leave)
        );
        assert_eq!(press(KeyCode::Char('x'), KeyModifiers::CONTROL), None);
        assert_eq!(press(KeyCode::Char('x'), KeyModifiers::ALT), None);
    }
}
