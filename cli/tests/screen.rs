//! The terminal after a panic: this test runs itself as a program that takes the terminal and panics.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as the tests do")]

#[expect(dead_code, unreachable_pub, reason = "it is a module of the system tests, which use more of it")]
#[path = "../../tests/src/tmux.rs"]
mod tmux;

use std::{env, process::Command, thread, time::Duration};

use snug::top::screen::Screen;

/// Set for the program: `main`, or `thread` for a panic in another thread.
const PANICS_IN: &str = "SNUG_TEST_PANICS_IN";

/// Not a test: the program.
#[test]
fn takes_the_terminal_and_panics() {
    let Ok(place) = env::var(PANICS_IN) else { return };
    let mut screen = Screen::enter().unwrap();
    screen
        .draw(|frame| {
            frame.buffer_mut().set_string(0, 0, "taken", ratatui_core::style::Style::new());
        })
        .unwrap();
    thread::sleep(Duration::from_millis(500));
    let panics = || panic!("by intent");
    if place == "main" {
        panics();
    }
    // As in a release build, where a panic ends the process at once: nothing is dropped.
    let _ = thread::spawn(panics).join();
    std::process::abort();
}

#[test]
fn a_panic_gives_the_terminal_back_and_its_message_is_seen() {
    if Command::new("tmux").arg("-V").output().is_err() {
        let is_required = env::var_os("CI").is_some_and(|ci| !ci.is_empty());
        assert!(!is_required, "a required test cannot run: tmux is not installed");
        eprintln!("skipped: tmux is not installed");
        return;
    }
    let program = env::current_exe().unwrap();
    for place in ["main", "thread"] {
        let terminal = tmux::Terminal::start(80, 24);
        terminal.run(&format!("{PANICS_IN}={place} {} takes_the_terminal --nocapture", program.display()));
        terminal.until("the program has the terminal", |text| text.starts_with("taken"));
        assert_eq!(terminal.modes(), (true, false));
        terminal.until("the message", |text| text.contains("by intent"));
        terminal.is_restored();
    }
}
