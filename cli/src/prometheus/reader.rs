//! Reading a history in parts, so that no query is large: one query at a time, each of a bounded number of samples and points.

use std::{
    cell::Cell,
    io::{IsTerminal as _, stderr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use snug_sizing::evidence::HOUR;

use super::{
    error::PrometheusError,
    query::{At, Labels, Points, Query, QueryApi, Series},
};
use crate::advice::CommandRule;

/// Points per series and query. The limit of Prometheus is 11,000.
const MAX_POINTS: u64 = 10_000;
/// Points of all series of a query together.
const MAX_RESULT: u64 = 2_000_000;
/// Samples that the server reads for a query. The default limit of Prometheus is 50 million.
const MAX_SAMPLES: u64 = 20_000_000;
/// Time without output before progress is reported.
const QUIET: Duration = Duration::from_secs(2);
/// Time between lines of progress in a file, and on a terminal.
const LINE: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

/// The period that is read, in seconds, aligned to the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Period {
    /// The beginning: a whole hour, and a whole window.
    pub(super) from: u64,
    /// The end of the last whole hour.
    pub(super) hours_end: u64,
    /// The end: a whole window.
    pub(super) end: u64,
    /// Length of a window of CPU usage; an hour has a whole number of them.
    pub(super) window: u64,
}

impl Period {
    /// The last `since` seconds of whole hours before `now`, and the hour that is not over, in windows of at least `min_window` seconds.
    pub(super) fn new(now: u64, since: u64, min_window: u64) -> Self {
        let window = whole_part_of_an_hour(min_window);
        let aligned = |to: u64| if CommandRule::AlignedWindows.is_on() { now / to * to } else { now };
        let unit = window.max(HOUR);
        // The first hour changes together with the last one.
        let from = (now / HOUR * HOUR).saturating_sub(since) / unit * unit;
        Self { from, hours_end: (now / HOUR * HOUR).max(from), end: aligned(window).max(from), window }
    }

    /// The last windows before `now`, for metrics that begin now.
    pub(super) fn of_first_windows(self, now: u64) -> Self {
        let from = now.saturating_sub(2 * self.window);
        Self { from, hours_end: from, end: now, window: self.window }
    }
}

/// The smallest length of at least `seconds` of which an hour is a multiple; else whole hours.
fn whole_part_of_an_hour(seconds: u64) -> u64 {
    (seconds.max(1)..HOUR)
        .find(|length| HOUR.is_multiple_of(*length))
        .unwrap_or(seconds.max(1).div_ceil(HOUR) * HOUR)
}

/// Reads from a server, part by part.
pub(super) struct Reader<'a> {
    api: &'a dyn QueryApi,
    /// Series of one metric, about: one for each container.
    series: Cell<u64>,
    /// The scrape interval, seconds.
    interval: Cell<u64>,
    /// Longest part that the server has not refused, seconds.
    longest: Cell<u64>,
    progress: Progress,
}

impl<'a> Reader<'a> {
    /// Without reports of progress.
    pub(super) fn new(api: &'a dyn QueryApi) -> Self {
        let (series, interval, longest) = (Cell::new(1), Cell::new(1), Cell::new(u64::MAX));
        Self { api, series, interval, longest, progress: Progress::silent() }
    }

    /// Reports on standard error what takes longer than two seconds.
    pub(super) fn reporting(self) -> Self {
        let progress = Progress::of(self.api.base());
        Self { progress, ..self }
    }

    pub(super) fn api(&self) -> &dyn QueryApi {
        self.api
    }

    /// Sets the size of the history, from which the length of parts follows.
    pub(super) fn set_size(&self, series: u64, interval: u64) {
        self.series.set(series.max(1));
        self.interval.set(interval.max(1));
    }

    /// What is read now, for messages of progress.
    pub(super) fn begin(&self, what: &'static str) {
        self.progress.begin(what);
    }

    pub(super) fn query(&self, query: &Query, at: At) -> Result<Vec<Series>, PrometheusError> {
        self.progress.next();
        self.api.query(query, at).map_err(|error| match error {
            PrometheusError::TooLarge { base, text, seconds: 0 } => PrometheusError::TooLarge {
                base,
                text,
                seconds: query.function.map_or(0, |(_, seconds)| seconds),
            },
            other => other,
        })
    }

    /// The values of a query at one time.
    pub(super) fn values(&self, query: &Query, at: At) -> Result<Vec<(Labels, f64)>, PrometheusError> {
        let series = self.query(query, at)?;
        Ok(series
            .into_iter()
            .filter_map(|it| Some((it.points().first()?.1, it.metric)))
            .map(|(value, labels)| (labels, value))
            .collect())
    }

    /// The values of a query at the end of each step from `from` to `to`, part by part. Times are those of the ends.
    pub(super) fn steps(
        &self,
        query: &Query,
        (from, to): (u64, u64),
        step: u64,
        mut each: impl FnMut(Vec<(Labels, Points)>),
    ) -> Result<(), PrometheusError> {
        self.parts((from, to), step, |begin, end| {
            if end < begin + step {
                return Ok(());
            }
            let at = At::Range { from: begin + step, to: end, step };
            let series = self.query(query, at)?;
            each(
                series
                    .into_iter()
                    .map(|it| (it.points(), it.metric))
                    .map(|(points, labels)| (labels, points))
                    .collect(),
            );
            Ok(())
        })
    }

    /// The values of a query over whole parts from `from` to `to`. `query` makes the query for a number of seconds; values come
    /// with the time of the end of the part.
    pub(super) fn whole(
        &self,
        query: impl Fn(u64) -> Query,
        (from, to): (u64, u64),
        mut each: impl FnMut(Vec<(Labels, f64)>, u64),
    ) -> Result<(), PrometheusError> {
        // One point for each part.
        self.parts((from, to), u64::MAX, |begin, end| {
            each(self.values(&query(end - begin), At::Time(end))?, end);
            Ok(())
        })
    }

    /// Calls `run` with the beginning and end of each part. A part that the server refuses as too large is halved, down to an
    /// hour or one step.
    ///
    /// # Errors
    /// Those of `run`.
    pub(super) fn parts(
        &self,
        (from, to): (u64, u64),
        step: u64,
        mut run: impl FnMut(u64, u64) -> Result<(), PrometheusError>,
    ) -> Result<(), PrometheusError> {
        let step = if step == u64::MAX { HOUR } else { step.max(1) };
        let mut begin = from;
        while begin < to {
            let length = self.length(step);
            let end = begin.saturating_add(length).min(to);
            match run(begin, end) {
                Ok(()) => begin = end,
                Err(PrometheusError::TooLarge { base, text, .. }) => {
                    let shorter = whole_steps((end - begin) / 2, step);
                    if end - begin <= shorter || !CommandRule::SmallerParts.is_on() {
                        return Err(PrometheusError::TooLarge { base, text, seconds: end - begin });
                    }
                    self.longest.set(shorter);
                }
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    /// Length of the next part, seconds: whole hours, at least one step.
    fn length(&self, step: u64) -> u64 {
        let (series, interval) = (self.series.get(), self.interval.get());
        let samples = (MAX_SAMPLES / series).saturating_mul(interval);
        let points = MAX_POINTS.min(MAX_RESULT / series).saturating_mul(step);
        whole_steps(samples.min(points).min(self.longest.get()), step)
    }
}

/// A length of about `seconds`: whole hours where possible, whole steps, at least one.
fn whole_steps(seconds: u64, step: u64) -> u64 {
    let seconds = if seconds >= HOUR { seconds / HOUR * HOUR } else { HOUR };
    (seconds / step * step).max(step)
}

/// Reports on standard error what takes long, from a thread of its own: one query may take long, too.
struct Progress {
    shared: Arc<(AtomicU64, Mutex<&'static str>)>,
    /// Ends the thread when it is dropped.
    running: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Counts queries, and reports nothing.
    fn silent() -> Self {
        Self { shared: Arc::new((AtomicU64::new(0), Mutex::new("containers"))), running: None }
    }

    /// Reports after [`QUIET`].
    fn of(base: &str) -> Self {
        let shared = Arc::clone(&Self::silent().shared);
        let (end, ended) = channel::<()>();
        let (counted, base) = (Arc::clone(&shared), base.to_owned());
        let report = move || {
            let is_terminal = stderr().is_terminal();
            let mut pause = QUIET;
            while matches!(ended.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
                let what = counted.1.lock().map_or("", |what| *what);
                let text =
                    format!("snug: reading {what} from {base}: query {}", counted.0.load(Ordering::Relaxed));
                // One line, written over, on a terminal.
                if is_terminal {
                    eprint!("\r\x1b[K{text}");
                    pause = SECOND;
                } else {
                    eprintln!("{text}");
                    pause = LINE;
                }
            }
            if is_terminal && pause != QUIET {
                eprint!("\r\x1b[K");
            }
        };
        // Without a thread, nothing is reported.
        let thread = thread::Builder::new().name("progress".to_owned()).spawn(report).ok();
        Self { shared, running: thread.map(|thread| (end, thread)) }
    }

    fn begin(&self, what: &'static str) {
        if let Ok(mut text) = self.shared.1.lock() {
            *text = what;
        }
    }

    fn next(&self) {
        self.shared.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.running.take() {
            drop(end);
            // It has written its last line.
            let _ = thread.join();
        }
    }
}
