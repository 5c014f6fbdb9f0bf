//! The live view: threads for the keys, the signals and the agents, and a loop that draws.

use std::{
    io,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use crossterm::event::{self, Event, KeyEventKind};

use super::{
    details::Details,
    fleet::Fleet,
    frame,
    look::Theme,
    rows::ContainerRow,
    screen::Screen,
    state::{Action, Picture, View},
};

/// Time between two requests for the details of the open container.
const DETAILS_INTERVAL: Duration = Duration::from_secs(5);
/// The first rates come after this time, if the interval is longer.
const FIRST: Duration = Duration::from_secs(1);

enum Message {
    Input(Event),
    InputEnded(io::Error),
    Picture(Picture),
    Details(Box<ContainerRow>, Box<Details>),
    #[cfg(unix)]
    Signal(i32),
}

enum Request {
    Open(Box<ContainerRow>),
    Close,
}

/// Shows the view until the user quits or a signal ends it.
///
/// # Errors
/// When no agent responds at the start, or the terminal fails.
pub(crate) fn run(mut fleet: Fleet, interval: Duration, mut view: View, theme: Theme) -> Result<()> {
    // Before the screen is taken: an error is to be seen.
    view.update(fleet.poll()?);
    let (sender, messages) = mpsc::channel();
    let (requests, asked) = mpsc::channel();
    #[cfg(unix)]
    signals::watch(sender.clone())?;
    let mut screen = Screen::enter().context("cannot use the terminal; --once prints a table")?;
    let keys = sender.clone();
    thread::spawn(move || read_keys(&keys));
    thread::spawn(move || poll(fleet, interval, &asked, &sender));
    loop {
        let draw = |frame: &mut ratatui_core::terminal::Frame<'_>| {
            let area = frame.area();
            let lines = frame::lines(&mut view, area.width.into(), area.height.into());
            theme.draw(&lines, area, frame.buffer_mut());
        };
        screen.draw(draw).context("cannot draw")?;
        // All that has happened meanwhile is one redraw.
        let first = messages.recv().context("the threads of the view have ended")?;
        for message in std::iter::once(first).chain(messages.try_iter()) {
            let was_open = view.open().is_some();
            let action = match message {
                Message::Picture(picture) => {
                    view.update(picture);
                    Action::None
                }
                Message::Details(row, details) => {
                    view.take_details(&row.node, &row.id, *details);
                    Action::None
                }
                Message::Input(Event::Key(key)) if key.kind != KeyEventKind::Release => view.press(key),
                Message::Input(_) => Action::None,
                Message::InputEnded(error) => return Err(error).context("cannot read keys"),
                #[cfg(unix)]
                Message::Signal(signal) => match signals::action(signal) {
                    Some(action) => action,
                    None => {
                        drop(screen);
                        return signals::end_by(signal);
                    }
                },
            };
            match action {
                Action::None => {}
                Action::Quit => return Ok(()),
                Action::Suspend => suspend(&mut screen)?,
                Action::Redraw => screen.retake().context("cannot use the terminal")?,
                // If the thread has ended, its panic has ended the program.
                Action::Open(row) => drop(requests.send(Request::Open(row))),
            }
            if was_open && view.open().is_none() {
                drop(requests.send(Request::Close));
            }
        }
    }
}

fn suspend(screen: &mut Screen) -> Result<()> {
    #[cfg(unix)]
    {
        screen.release();
        signals::stop();
    }
    screen.retake().context("cannot use the terminal")
}

fn read_keys(sender: &Sender<Message>) {
    loop {
        let message = event::read().map_or_else(Message::InputEnded, Message::Input);
        let is_over = matches!(message, Message::InputEnded(_));
        if sender.send(message).is_err() || is_over {
            return;
        }
    }
}

fn poll(mut fleet: Fleet, interval: Duration, requests: &Receiver<Request>, sender: &Sender<Message>) {
    let mut open: Option<(Box<ContainerRow>, Instant)> = None;
    let mut next = Instant::now() + interval.min(FIRST);
    let details = |fleet: &mut Fleet, row: &ContainerRow| {
        Message::Details(Box::new(row.clone()), Box::new(fleet.details(row)))
    };
    loop {
        let message = match requests.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(Request::Open(row)) => {
                let message = details(&mut fleet, &row);
                open = Some((row, Instant::now()));
                message
            }
            Ok(Request::Close) => {
                open = None;
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {
                // A late response does not make the next ones early.
                let result = fleet.poll();
                next = (next + interval).max(Instant::now());
                match (result, &mut open) {
                    (Ok(picture), open) => {
                        if sender.send(Message::Picture(picture)).is_err() {
                            return;
                        }
                        match open {
                            Some((row, at)) if at.elapsed() >= DETAILS_INTERVAL => {
                                *at = Instant::now();
                                details(&mut fleet, row)
                            }
                            _ => continue,
                        }
                    }
                    // Once an agent has responded, there is always a picture.
                    (Err(_), _) => continue,
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if sender.send(message).is_err() {
            return;
        }
    }
}

#[cfg(unix)]
mod signals {
    use std::{sync::mpsc::Sender, thread};

    use anyhow::{Context as _, Result};
    use signal_hook::{
        consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP},
        iterator::Signals,
        low_level::emulate_default_handler,
    };

    use super::{Action, Message};

    /// Sends a message for each signal from now on.
    pub(super) fn watch(sender: Sender<Message>) -> Result<()> {
        let signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGTSTP, SIGCONT]);
        let mut signals = signals.context("cannot handle signals")?;
        thread::spawn(move || {
            for signal in signals.forever() {
                if sender.send(Message::Signal(signal)).is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    /// What to do after a signal; `None` to end.
    pub(super) const fn action(signal: i32) -> Option<Action> {
        match signal {
            SIGTSTP => Some(Action::Suspend),
            // Whoever had the terminal meanwhile may have changed its modes.
            SIGCONT => Some(Action::Redraw),
            _ => None,
        }
    }

    /// Stops the process until it is continued.
    pub(super) fn stop() {
        let _ = emulate_default_handler(SIGTSTP);
    }

    /// Ends the process as the signal would have.
    pub(super) fn end_by(signal: i32) -> Result<()> {
        emulate_default_handler(signal).context("cannot end")
    }
}
