//! A line on standard error that says what a command is doing, while that takes long. Only on a terminal.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::{LazyLock, Mutex},
    time::{Duration, Instant},
};

/// What is over sooner needs no line.
const QUIET: Duration = Duration::from_millis(400);
/// Time between two lines.
const INTERVAL: Duration = Duration::from_millis(100);
/// Characters of a line: it must not wrap.
const MAX_CHARS: usize = 78;

/// The line of this process.
static LINE: LazyLock<Mutex<Line>> = LazyLock::new(|| Mutex::new(Line::new(io::stderr().is_terminal())));

/// The state of the line.
#[derive(Debug)]
struct Line {
    is_on: bool,
    started: Instant,
    /// When it was last written; `None` while there is none.
    written: Option<Instant>,
}

impl Line {
    fn new(is_on: bool) -> Self {
        Self { is_on, started: Instant::now(), written: None }
    }

    /// What to write for a step at a time.
    fn step(&mut self, text: &str, at: Instant) -> Option<String> {
        let is_due = self.written.is_none_or(|written| at.duration_since(written) >= INTERVAL);
        if !self.is_on || at.duration_since(self.started) < QUIET || !is_due {
            return None;
        }
        self.written = Some(at);
        let short: String = text.chars().filter(|c| !c.is_control()).take(MAX_CHARS).collect();
        Some(format!("\r\u{1b}[K{short}"))
    }

    /// What to write to remove the line.
    fn clear(&mut self) -> Option<&'static str> {
        self.written.take().map(|_| "\r\u{1b}[K")
    }
}

/// Says what is done now, such as `reading the usage history: 3 of 12 agents`.
pub fn step(text: &str) {
    let Ok(mut line) = LINE.lock() else { return };
    if let Some(text) = line.step(text, Instant::now()) {
        write(&text);
    }
}

/// Removes the line, before anything else is written.
pub fn clear() {
    let Ok(mut line) = LINE.lock() else { return };
    if let Some(text) = line.clear() {
        write(text);
    }
}

/// Without its progress a command works as well, so an error is ignored.
fn write(text: &str) {
    let mut out = io::stderr();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_waits_is_short_and_is_removed() {
        let mut line = Line::new(true);
        let at = |millis| line_start(&line) + Duration::from_millis(millis);
        let (early, late, soon, later) = (at(10), at(500), at(550), at(700));
        assert_eq!(line.step("reading", early), None);
        assert_eq!(line.clear(), None);
        assert_eq!(line.step("reading", late).as_deref(), Some("\r\u{1b}[Kreading"));
        assert_eq!(line.step("reading more", soon), None);
        let long = line.step(&"x\u{1b}[2J".repeat(100), later).unwrap();
        assert!(long.len() < 90 && !long.contains("\u{1b}[2J"));
        assert_eq!((line.clear(), line.clear()), (Some("\r\u{1b}[K"), None));
        assert_eq!(Line::new(false).step("reading", later), None);
    }

    fn line_start(line: &Line) -> Instant {
        line.started
    }
}
