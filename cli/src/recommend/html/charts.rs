//! Charts as inline SVG, each with its content as a text for those who do not see it.

use std::fmt::Write as _;

use super::escape;
use crate::{
    recommend::{
        detail::{CpuDetail, Detail, MemoryDetail},
        report::{Entry, Quantities},
    },
    units,
};

/// Size of a chart.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 220.0;
/// Space for the axes.
const LEFT: f64 = 56.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 28.0;
/// Points of a line: more are not seen.
const POINTS: usize = 240;

/// The plot inside the axes.
struct Plot {
    text: String,
    /// The value at the top.
    most: f64,
}

impl Plot {
    /// `id` names the texts of the chart, which the page refers to.
    fn new(id: &str, title: &str, description: &str, most: f64) -> Self {
        let most = if most > 0.0 { most * 1.06 } else { 1.0 };
        let text = format!(
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\" data-top=\"{most}\">\
             <title id=\"{id}-t\">{}</title><desc id=\"{id}-d\">{}</desc>",
            escape::text(title),
            escape::text(description)
        );
        Self { text, most }
    }

    fn y(&self, value: f64) -> f64 {
        let share = (value / self.most).clamp(0.0, 1.0);
        TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - share)
    }

    fn horizontal(&mut self, class: &str, value: f64, label: &str) {
        let y = self.y(value);
        let _ = write!(
            self.text,
            "<line class=\"{class}\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - 4.0,
            if y < TOP + 12.0 { y + 12.0 } else { y - 4.0 },
            escape::text(label)
        );
    }

    fn label(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let text = escape::text(text);
        let _ = write!(
            self.text,
            "<text class=\"axis\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        );
    }

    fn finish(mut self) -> String {
        self.text.push_str("</svg>");
        self.text
    }
}

/// The amounts of memory of an entry that are lines of a chart: class, bytes and label.
fn memory_lines(entry: &Entry) -> Vec<(&'static str, u64, String)> {
    let [now, then] = [entry.current, entry.recommended].map(Quantities::from);
    let line = |class, bytes: Option<u64>, name: &str, quantity: Option<String>| {
        Some((class, bytes?, format!("{name} {}", quantity?)))
    };
    [
        line("now", entry.current.memory_limit, "current limit", now.limits.memory),
        line("then", entry.recommended.memory_limit, "recommended limit", then.limits.memory),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The highest memory usage over time, with limits, OOM kills and starts.
pub(super) fn memory(id: &str, entry: &Entry, detail: &Detail, memory: &MemoryDetail) -> String {
    let (columns, seconds) = detail.peaks_in(POINTS);
    let Some((first, last)) = memory.peaks.first().zip(memory.peaks.last()) else { return String::new() };
    let lines = memory_lines(entry);
    let highest = columns.iter().flatten().copied().fold(0.0, f64::max);
    let most = lines.iter().map(|(_, bytes, _)| *bytes as f64).fold(highest, f64::max);
    let of_lines: Vec<&str> = lines.iter().map(|(_, _, label)| label.as_str()).collect();
    let description = format!(
        "Highest usage from {} to {}: at most {}. {}. {}.",
        units::time(first.at),
        units::time(last.at),
        units::bytes(memory.highest.bytes as f64),
        of_lines.join(", "),
        units::count(detail.oom_kills.len(), "OOM kill")
    );
    let mut plot = Plot::new(id, "Memory over time", &description, most);
    let bottom = HEIGHT - BOTTOM;
    let each = (WIDTH - LEFT) / columns.len().max(1) as f64;
    let mut path = String::new();
    for (at, value) in columns.iter().enumerate() {
        let Some(value) = value else { continue };
        let (x, y) = (LEFT + at as f64 * each, plot.y(*value));
        let _ = write!(path, "M{x:.1} {bottom}V{y:.1}h{:.1}V{bottom}z", each.max(0.5));
    }
    let _ = write!(plot.text, "<path class=\"usage\" d=\"{path}\"/>");
    for (class, bytes, label) in &lines {
        plot.horizontal(class, *bytes as f64, label);
    }
    // The page moves this one.
    let _ = write!(
        plot.text,
        "<line class=\"try\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{bottom}\" y2=\"{bottom}\" visibility=\"hidden\"/>"
    );
    let x_of = |at: u64| {
        let place = at.checked_sub(first.at)? as f64 / seconds as f64;
        (place < columns.len() as f64 + 1.0).then(|| (LEFT + place * each).min(WIDTH))
    };
    for starts in &detail.starts {
        if let Some(x) = x_of(starts.at) {
            let _ = write!(
                plot.text,
                "<line class=\"start\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{:.1}\"/>",
                bottom + 6.0
            );
        }
    }
    for kill in &detail.oom_kills {
        if let Some(x) = x_of(kill.at) {
            let y = kill.limit.map_or(TOP, |limit| plot.y(limit as f64));
            let _ = write!(
                plot.text,
                "<path class=\"kill\" d=\"M{:.1} {:.1}l8 8m0 -8l-8 8\"><title>OOM kill at {} in {}</title></path>",
                x - 4.0,
                y - 4.0,
                units::time(kill.at),
                escape::text(&kill.pod)
            );
        }
    }
    plot.label(LEFT - 6.0, TOP + 8.0, "end", &units::bytes(plot.most));
    plot.label(LEFT - 6.0, bottom, "end", "0");
    plot.label(LEFT, HEIGHT - 6.0, "start", &units::time(first.at));
    plot.label(WIDTH, HEIGHT - 6.0, "end", &units::time(last.at));
    plot.finish()
}

/// The distribution of CPU usage, with requests.
pub(super) fn cpu(id: &str, entry: &Entry, cpu: &CpuDetail) -> String {
    let most = cpu.distribution.iter().map(|row| row.share).fold(0.0, f64::max);
    let [now, then] = [entry.current, entry.recommended].map(Quantities::from);
    let requests = [
        ("now", entry.current.cpu_request, now.requests.cpu, "current request"),
        ("then", entry.recommended.cpu_request, then.requests.cpu, "recommended request"),
    ];
    let shares: Vec<String> = cpu
        .distribution
        .iter()
        .map(|row| format!("up to {}: {}", units::cores(row.up_to), units::percent(row.share)))
        .collect();
    let description =
        format!("Shares of {} windows of {} ms. {}", cpu.windows, cpu.window_millis, shares.join(", "));
    let mut plot = Plot::new(id, "CPU usage", &description, most);
    let bottom = HEIGHT - BOTTOM;
    let each = (WIDTH - LEFT) / cpu.distribution.len().max(1) as f64;
    for (at, row) in cpu.distribution.iter().enumerate() {
        let (x, y) = (LEFT + at as f64 * each, plot.y(row.share));
        let _ = write!(
            plot.text,
            "<rect class=\"usage\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            x + 1.0,
            (each - 2.0).max(1.0),
            bottom - y
        );
        plot.label(x + each / 2.0, HEIGHT - 6.0, "middle", &units::cores(row.up_to));
        plot.label(x + each / 2.0, y - 3.0, "middle", &units::percent(row.share));
    }
    for (number, (class, request, quantity, name)) in requests.into_iter().enumerate() {
        let Some((request, quantity)) = request.zip(quantity) else { continue };
        let x = LEFT + place(cpu, request as f64 / 1000.0) * each;
        let (anchor, shift) = if x > WIDTH * 0.7 { ("end", -4.0) } else { ("start", 4.0) };
        let _ = write!(
            plot.text,
            "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
             <text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            x + shift,
            TOP + 10.0 + 14.0 * number as f64,
            escape::text(&format!("{name} {quantity}"))
        );
    }
    plot.finish()
}

/// Where cores are on the axis of powers of two, in columns.
fn place(cpu: &CpuDetail, cores: f64) -> f64 {
    let count = cpu.distribution.len() as f64;
    let first = cpu.distribution.iter().position(|row| row.up_to > 0.0).unwrap_or(0);
    let Some(base) = cpu.distribution.get(first).filter(|row| row.up_to > 0.0) else { return count };
    if cores <= 0.0 {
        return 0.0;
    }
    (first as f64 + 1.0 + (cores / base.up_to).log2()).clamp(0.0, count)
}
