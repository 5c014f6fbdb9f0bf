//! Limits of the log: how many lines each place in the code may write, and how long a line may be.
//!
//! What a container, a client or the API server does can cause a line each time. The first lines say what happens; more would only fill the disk
//! of the node and cost its collectors.

use std::{
    collections::HashMap,
    io::{self, Write},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{Event, Level, Subscriber, callsite::Identifier};
use tracing_subscriber::{Layer, fmt::MakeWriter, layer::Context};

use crate::{
    messages::{self, is_hidden},
    rate_limit::RateLimit,
};

/// Lines that one place in the code may write at once.
const MAX_LINES: u32 = 30;
/// Time for one more line.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
const MAX_LINE_BYTES: usize = 8 * 1024;

/// Leaves out lines above the limit, and says how many. Debugging and tracing are not limited.
#[derive(Debug, Default)]
pub(super) struct LogLimit(Mutex<HashMap<Identifier, Budget>>);

/// The lines that one place may still write.
#[derive(Clone, Copy, Debug)]
struct Budget {
    limit: RateLimit,
    left_out: u64,
}

impl Budget {
    const fn new() -> Self {
        Self { limit: RateLimit::new(MAX_LINES, LINE_INTERVAL), left_out: 0 }
    }

    /// Whether a line may be written now; if so, the number of lines that were left out before it.
    fn take(&mut self, now: Instant) -> Option<u64> {
        if self.limit.take(now) {
            return Some(std::mem::take(&mut self.left_out));
        }
        self.left_out += 1;
        None
    }
}

impl LogLimit {
    fn admit(&self, place: Identifier, now: Instant) -> Option<u64> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.entry(place).or_insert(Budget::new()).take(now)
    }
}

impl<S: Subscriber> Layer<S> for LogLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        if *event.metadata().level() > Level::INFO {
            return true;
        }
        let admitted = self.admit(event.metadata().callsite(), Instant::now());
        if let Some(lines @ 1..) = admitted {
            let (file, line) = (event.metadata().file(), event.metadata().line());
            tracing::info!(lines, file, line, "lines like the next one were left out");
        }
        admitted.is_some()
    }
}

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineFormat {
    Text,
    /// With sequences that colour a terminal.
    Colours,
    Json,
}

/// Writes each line to standard error, cut off above [`MAX_LINE_BYTES`].
#[derive(Clone, Copy, Debug)]
pub(super) struct BoundedLines(pub(super) LineFormat);

impl<'a> MakeWriter<'a> for BoundedLines {
    type Writer = LineWriter<io::Stderr>;

    fn make_writer(&'a self) -> Self::Writer {
        LineWriter { out: io::stderr(), format: self.0 }
    }
}

/// Writes one line.
pub(super) struct LineWriter<W> {
    out: W,
    format: LineFormat,
}

impl<W: Write> Write for LineWriter<W> {
    /// The formatter passes one whole line.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = bounded(&String::from_utf8_lossy(bytes), self.format);
        self.out.write_all(line.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn bounded(line: &str, format: LineFormat) -> String {
    let bytes = line.len();
    let start = messages::start(line, MAX_LINE_BYTES);
    if format == LineFormat::Json {
        if bytes <= MAX_LINE_BYTES {
            return line.to_owned();
        }
        let start: String = start.chars().take(MAX_LINE_BYTES / 8).collect();
        let message = format!("a line of {bytes} bytes was cut off");
        return format!("{}\n", serde_json::json!({ "level": "WARN", "message": message, "start": start }));
    }
    let is_kept = |c: char| match c {
        '\n' | '\t' => true,
        '\u{1b}' => format == LineFormat::Colours,
        c => !is_hidden(c),
    };
    let mut text: String = start.chars().filter(|c| is_kept(*c)).collect();
    if start.len() < bytes {
        text.push_str(&format!("… ({bytes} bytes)\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    const PART: &str = "[a-z\u{1b}\u{202e}\u{7f}ä]{0,40}";

    proptest! {
        #[test]
        fn no_place_writes_more_than_its_lines(pauses in prop::collection::vec(0..30_000_u64, 0..400)) {
            let start = Instant::now();
            let (mut budget, mut now) = (Budget::new(), start);
            let (mut written, mut left_out, mut reported) = (0_u64, 0, 0);
            for pause in &pauses {
                now += Duration::from_millis(pause / 10);
                match budget.take(now) {
                    Some(before) => {
                        written += 1;
                        reported += before;
                    }
                    None => left_out += 1,
                }
            }
            let allowed = f64::from(MAX_LINES) + (now - start).as_secs_f64() / LINE_INTERVAL.as_secs_f64();
            prop_assert!(written as f64 <= allowed + 1e-6);
            prop_assert_eq!(written + left_out, pauses.len() as u64);
            prop_assert_eq!(reported + budget.left_out, left_out, "each line that was left out is reported");
        }

        #[test]
        fn a_line_is_bounded_and_plain(part in PART, times in 0..400_usize) {
            let line = part.repeat(times);
            for format in [LineFormat::Text, LineFormat::Json] {
                let line = match format {
                    LineFormat::Json => format!("{}\n", serde_json::json!({ "message": line })),
                    _ => format!("{line}\n"),
                };
                let mut out = Vec::new();
                LineWriter { out: &mut out, format }.write_all(line.as_bytes()).unwrap();
                let text = String::from_utf8(out).unwrap();
                prop_assert!(text.len() <= MAX_LINE_BYTES + 40 && text.ends_with('\n'));
                match format {
                    LineFormat::Json => drop(serde_json::from_str::<serde_json::Value>(&text).unwrap()),
                    _ => prop_assert!(!text.trim_end_matches('\n').chars().any(is_hidden)),
                }
            }
        }
    }

    #[test]
    fn one_place_does_not_silence_another() {
        let lines = Counted::default();
        let log = tracing_subscriber::registry().with(LogLimit::default());
        let log = log.with(tracing_subscriber::fmt::layer().with_writer(lines.clone()).with_ansi(false));
        tracing::subscriber::with_default(log, || {
            for number in 0..1000 {
                tracing::warn!(number, "noisy");
            }
            tracing::warn!("quiet");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let number = |what: &str| text.lines().filter(|line| line.contains(what)).count();
        assert_eq!((number("noisy"), number("quiet")), (MAX_LINES as usize, 1));
    }

    #[derive(Clone, Default)]
    struct Counted(std::sync::Arc<Mutex<Vec<u8>>>);

    impl Write for Counted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Counted {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }
}
