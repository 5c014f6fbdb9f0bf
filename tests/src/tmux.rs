//! Programs in a real terminal: a tmux server of its own, with one window and a shell.

use std::{
    ffi::OsStr,
    fs,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

/// Time limit for what is awaited.
const WITHIN: Duration = Duration::from_secs(20);

/// A terminal. The server ends when this value is dropped.
#[derive(Debug)]
pub struct Terminal {
    folder: tempfile::TempDir,
}

impl Terminal {
    /// Starts an interactive shell in a terminal of this size.
    ///
    /// # Panics
    /// When tmux does not work.
    pub fn start(width: u16, height: u16) -> Self {
        let terminal = Self { folder: tempfile::tempdir().unwrap() };
        let (width, height) = (width.to_string(), height.to_string());
        let shell = "PS1='READY> ' exec bash --norc --noprofile -i";
        terminal.tmux(["-f", "/dev/null", "new-session", "-d", "-x", &width, "-y", &height, shell]);
        terminal.tmux(["set-option", "-g", "window-size", "manual"]);
        terminal.until("the shell is ready", |text| text.contains("READY>"));
        terminal
    }

    fn tmux<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let output = self.try_tmux(arguments);
        assert!(output.status.success(), "tmux: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn try_tmux<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        let mut tmux = Command::new("tmux");
        tmux.arg("-u").arg("-S").arg(self.folder.path().join("socket")).args(arguments);
        tmux.env("LC_ALL", "C.UTF-8").env_remove("TMUX").env_remove("NO_COLOR").output().unwrap()
    }

    /// Types a line and Enter.
    ///
    /// # Panics
    /// When tmux does not work.
    pub fn run(&self, line: &str) {
        self.tmux(["send-keys", "-l", line]);
        self.press("Enter");
    }

    /// Presses a key, by its name in tmux.
    ///
    /// # Panics
    /// When tmux does not work.
    pub fn press(&self, key: &str) {
        self.tmux(["send-keys", key]);
    }

    /// Changes the size.
    ///
    /// # Panics
    /// When tmux does not work.
    pub fn resize(&self, width: u16, height: u16) {
        self.tmux(["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    /// What the terminal shows.
    ///
    /// # Panics
    /// When tmux does not work.
    pub fn text(&self) -> String {
        self.tmux(["capture-pane", "-p"])
    }

    /// What the terminal shows, with the escapes of colours and styles.
    ///
    /// # Panics
    /// When tmux does not work.
    pub fn styled(&self) -> String {
        self.tmux(["capture-pane", "-p", "-e"])
    }

    /// Waits until the terminal shows something, and returns what it shows.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn until(&self, what: &str, is_shown: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + WITHIN;
        loop {
            let text = self.text();
            if is_shown(&text) {
                return text;
            }
            assert!(Instant::now() < end, "{what}: not within {WITHIN:?}; the terminal shows\n{text}");
            thread::sleep(Duration::from_millis(30));
        }
    }

    /// Whether a program has the alternate screen, and whether the cursor is visible.
    ///
    /// # Panics
    /// When tmux does not work.
    pub fn modes(&self) -> (bool, bool) {
        let modes = self.tmux(["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        let mut modes = modes.split_whitespace().map(|mode| mode == "1");
        (modes.next().unwrap(), modes.next().unwrap())
    }

    /// Waits until the terminal is as it was before a program had it: the shell answers on its own screen, in a mode that echoes.
    ///
    /// # Panics
    /// When it is not.
    pub fn is_restored(&self) {
        let end = Instant::now() + WITHIN;
        while self.modes() != (false, true) {
            assert!(Instant::now() < end, "modes {:?}; the terminal shows\n{}", self.modes(), self.text());
            thread::sleep(Duration::from_millis(30));
        }
        self.run("stty -a | grep -o ' icanon\\| echo ' | tr -d '\\n'; echo .");
        self.until("the terminal is in the mode of a shell", |text| text.contains(" icanon echo ."));
    }

    /// The process in the foreground: the only child of the shell.
    ///
    /// # Panics
    /// When there is none.
    pub fn child(&self) -> u32 {
        let shell = self.tmux(["display-message", "-p", "#{pane_pid}"]);
        let shell = shell.trim();
        let end = Instant::now() + WITHIN;
        loop {
            let children =
                fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap_or_default();
            if let Some(pid) = children.split_whitespace().next() {
                return pid.parse().unwrap();
            }
            assert!(Instant::now() < end, "the shell {shell} has no child");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.try_tmux(["kill-server"]);
    }
}
