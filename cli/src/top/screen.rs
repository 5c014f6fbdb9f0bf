//! The terminal while the live view has it: the alternate screen in raw mode. It is restored however the view ends.

use std::{
    io::{self, BufWriter, Stdout, Write as _},
    panic,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use crossterm::{
    cursor::{Hide, Show},
    execute,
    terminal::{
        Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
    },
};
use ratatui_core::terminal::{Frame, Terminal};
use ratatui_crossterm::CrosstermBackend;

/// Bytes of one redraw of a large screen.
const BUFFER: usize = 64 << 10;

/// Whether the terminal is ours, for the panic hook.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

/// The terminal. Dropping this value, and a panic in any thread, gives it back.
pub struct Screen {
    terminal: Output,
}

type Output = Terminal<CrosstermBackend<BufWriter<Stdout>>>;

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When standard output is no terminal, or its modes cannot be changed.
    pub fn enter() -> io::Result<Self> {
        HOOK.call_once(|| {
            let print = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                // Before the message, which would be lost with the alternate screen.
                restore();
                print(info);
            }));
        });
        take()?;
        let terminal = terminal();
        if terminal.is_err() {
            restore();
        }
        Ok(Self { terminal: terminal? })
    }

    /// Draws the whole screen; only changes are written to the terminal.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw).map(drop)
    }

    /// Takes the terminal again, after another program had it, and forgets what is on it.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn retake(&mut self) -> io::Result<()> {
        // A shell may have set other modes meanwhile.
        restore();
        take()?;
        // Not `Terminal::clear`: it asks the terminal where the cursor is, and the thread that reads keys would get the answer.
        self.terminal = terminal()?;
        Ok(())
    }

    /// Gives the terminal back until [`Self::retake`].
    pub fn release(&mut self) {
        restore();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

fn terminal() -> io::Result<Output> {
    Terminal::new(CrosstermBackend::new(BufWriter::with_capacity(BUFFER, io::stdout())))
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    IS_TAKEN.store(true, Ordering::SeqCst);
    let taken = execute!(io::stdout(), EnterAlternateScreen, Clear(ClearType::All), Hide);
    if taken.is_err() {
        restore();
    }
    taken
}

/// Once for each time that it was taken. Errors are of no use here: the terminal may be gone.
fn restore() {
    if IS_TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
        let _ = io::stdout().flush();
    }
}
