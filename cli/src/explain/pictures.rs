//! Pictures of block characters, or of ASCII where the terminal has no others.

use unicode_width::UnicodeWidthStr as _;

use super::sentences::{cpu_amount, memory_amount, percent};
use crate::{
    columns::plain,
    recommend::{
        detail::{CpuDetail, Detail, MemoryDetail},
        report::Entry,
    },
    terminal::{Style, Terminal},
    units,
};

/// Columns of a picture, where the terminal is not narrower.
const MAX_WIDTH: usize = 48;
/// Columns of the words beside it.
const WORDS: usize = 36;

/// Columns of a picture in this terminal.
fn width(terminal: Terminal) -> usize {
    terminal.width.map_or(MAX_WIDTH, |width| width.saturating_sub(WORDS).clamp(8, MAX_WIDTH))
}

/// A bar for each amount, all on one scale.
struct Bars<'b> {
    rows: Vec<(&'b str, String, f64, Style)>,
}

impl Bars<'_> {
    fn text(&self, terminal: Terminal) -> String {
        let most = self.rows.iter().map(|(_, _, value, _)| *value).fold(0.0, f64::max);
        let names = self.rows.iter().map(|(name, ..)| name.width()).max().unwrap_or(0);
        let amounts = self.rows.iter().map(|(_, amount, ..)| amount.width()).max().unwrap_or(0);
        let line = |(name, amount, value, style): &(&str, String, f64, Style)| {
            let share = if most > 0.0 { value / most } else { 0.0 };
            let bar = terminal.paint(*style, &terminal.bar(share, width(terminal)));
            format!("  {name:names$}  {amount:>amounts$}  {bar}\n")
        };
        self.rows.iter().map(line).collect()
    }
}

/// Usage, limits and requests of memory on one scale.
pub(super) fn memory_bars(entry: &Entry, memory: &MemoryDetail, terminal: Terminal) -> String {
    let highest = memory.highest.bytes;
    let mut rows = vec![("highest usage", units::bytes(highest as f64), highest as f64, Style::Heading)];
    let too_low = |limit: u64| if limit <= highest { Style::Danger } else { Style::Faint };
    if let Some(limit) = entry.current.memory_limit {
        rows.push(("current limit", memory_amount(limit), limit as f64, too_low(limit)));
    }
    if let Some(request) = entry.current.memory_request.filter(|it| Some(*it) != entry.current.memory_limit) {
        rows.push(("current request", memory_amount(request), request as f64, Style::Faint));
    }
    if let Some(limit) = entry.recommended.memory_limit {
        rows.push(("recommended limit", memory_amount(limit), limit as f64, Style::Good));
    }
    Bars { rows }.text(terminal)
}

/// The highest usage over time, with OOM kills below it.
pub(super) fn memory_over_time(detail: &Detail, terminal: Terminal) -> String {
    let (columns, seconds) = detail.peaks_in(width(terminal));
    let Some(memory) = detail.memory.as_ref().filter(|_| columns.len() > 1) else { return String::new() };
    let Some((first, last)) = memory.peaks.first().zip(memory.peaks.last()) else { return String::new() };
    let mut text = format!("  {}\n", terminal.columns(&columns));
    let mut marks = vec![' '; columns.len()];
    for kill in &detail.oom_kills {
        let at = kill.at.checked_sub(first.at).and_then(|since| usize::try_from(since / seconds).ok());
        if let Some(mark) = at.and_then(|at| marks.get_mut(at)) {
            *mark = 'x';
        }
    }
    let has_kills = marks.contains(&'x');
    if has_kills {
        let marks: String = marks.into_iter().collect();
        text += &format!("  {}\n", terminal.paint(Style::Danger, marks.trim_end()));
    }
    text += &format!(
        "  highest usage from {} to {}, {} a column{}\n",
        units::time(first.at),
        units::time(last.at),
        units::hours(seconds),
        if has_kills { "; x: OOM kill" } else { "" }
    );
    text
}

/// The distribution of CPU usage, a line per power of two, and the requests that are in it.
pub(super) fn cpu_distribution(entry: &Entry, cpu: &CpuDetail, terminal: Terminal) -> String {
    let most = cpu.distribution.iter().map(|row| row.share).fold(0.0, f64::max);
    let cores: Vec<String> = cpu.distribution.iter().map(|row| units::cores(row.up_to)).collect();
    let shares: Vec<String> = cpu.distribution.iter().map(|row| percent(row.share)).collect();
    let widest = |texts: &[String]| texts.iter().map(String::len).max().unwrap_or(0);
    let (core_width, share_width) = (widest(&cores), widest(&shares));
    let requests = [
        ("current request", entry.current.cpu_request),
        ("recommended request", entry.recommended.cpu_request),
    ];
    let mut text = String::new();
    let mut from = 0.0;
    for ((row, upper), share) in cpu.distribution.iter().zip(cores).zip(shares) {
        let bar = terminal.bar(if most > 0.0 { row.share / most } else { 0.0 }, width(terminal));
        let is_here = |request: u64| {
            let cores = request as f64 / 1000.0;
            cores > from && cores <= row.up_to
        };
        let here: Vec<String> = requests
            .iter()
            .filter_map(|(name, request)| Some((name, request.filter(|it| is_here(*it))?)))
            .map(|(name, request)| format!("{name} {}", cpu_amount(request)))
            .collect();
        let mark = if here.is_empty() {
            String::new()
        } else {
            let arrow = if terminal.is_ascii { "<-" } else { "←" };
            format!("  {arrow} {}", here.join(", "))
        };
        let line = format!("  up to {upper:>core_width$}  {share:>share_width$}  {bar}{mark}");
        text += &format!("{}\n", line.trim_end());
        from = row.up_to;
    }
    text
}

/// Throttling by simulated CPU limits: up to the first that throttles nothing.
pub(super) fn quotas(entry: &Entry, detail: &Detail, terminal: Terminal) -> String {
    let mut rows: Vec<(&str, String, f64, Style, String)> = Vec::new();
    for outcome in detail.quotas.iter().filter(|outcome| outcome.periods < 0.995) {
        let is = |limit: Option<u64>| limit == Some(outcome.quota);
        let name = if is(entry.recommended.cpu_limit) {
            "recommended limit"
        } else if is(entry.current.cpu_limit) {
            "current limit"
        } else {
            ""
        };
        let style = if outcome.periods > entry.asked_risk.throttled { Style::Warning } else { Style::Good };
        let delayed = humantime::format_duration(std::time::Duration::from_millis(outcome.delayed_millis));
        let words = format!("{} throttled, {delayed} of CPU time delayed", percent(outcome.periods));
        rows.push((name, cpu_amount(outcome.quota), outcome.periods, style, words));
        if outcome.periods == 0.0 {
            break;
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let amounts = rows.iter().map(|(_, amount, ..)| amount.len()).max().unwrap_or(0);
    let bars = width(terminal) / 2;
    let mut text = "  What a CPU limit would have done, simulated:\n".to_owned();
    for (name, amount, share, style, words) in rows {
        let bar = terminal.bar(share, bars);
        let padding = " ".repeat(bars.saturating_sub(bar.width()));
        let name = if name.is_empty() { String::new() } else { format!("  ({name})") };
        text += &format!("  {amount:>amounts$}  {}{padding}  {words}{name}\n", terminal.paint(style, &bar));
    }
    text
}

/// OOM kills, one a line.
pub(super) fn kills(detail: &Detail) -> String {
    /// Kills that are listed, the latest ones.
    const LISTED: usize = 10;
    let earlier = detail.oom_kills.len().saturating_sub(LISTED);
    let mut text = String::new();
    if earlier > 0 {
        text += &format!("  {}, the latest of them:\n", units::count(detail.oom_kills.len(), "OOM kill"));
    }
    for kill in detail.oom_kills.iter().skip(earlier) {
        let limit = kill.limit.map_or_else(
            || "an unknown memory limit".to_owned(),
            |limit| format!("a memory limit of {}", units::bytes(limit as f64)),
        );
        text += &format!("  OOM kill at {limit} in {} at {}\n", plain(&kill.pod), units::time(kill.at));
    }
    text
}
