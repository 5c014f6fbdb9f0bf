//! The columns of the list: which of them fit, and their cells.

use super::{
    Sort,
    look::{Look, Spans},
    rows::ContainerRow,
    severity::{self, Severity},
    state::Line,
    text,
};
use crate::units::{self, NONE};

/// Cells between two columns.
const GAP: usize = 2;
/// The sign before a name, and a space.
const SIGN: usize = 2;
/// The sign of a row whose agent does not respond.
const STALE: char = '?';

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Name,
    Namespace,
    Node,
    Count,
    Cpu,
    CpuLimit,
    Throttled,
    Memory,
    Peak,
    MemoryLimit,
    MemoryShare,
    Oom,
    Receive,
    Transmit,
    Workload,
    History,
}

/// From left to right.
const ORDER: [Column; 16] = [
    Column::Name,
    Column::Namespace,
    Column::Node,
    Column::Count,
    Column::Cpu,
    Column::CpuLimit,
    Column::Throttled,
    Column::Memory,
    Column::Peak,
    Column::MemoryLimit,
    Column::MemoryShare,
    Column::Oom,
    Column::Receive,
    Column::Transmit,
    Column::Workload,
    Column::History,
];

/// The most important first. What does not fit is left out.
const IMPORTANCE: [Column; 15] = [
    Column::Cpu,
    Column::Memory,
    Column::Count,
    Column::MemoryLimit,
    Column::Throttled,
    Column::CpuLimit,
    Column::Oom,
    Column::Namespace,
    Column::History,
    Column::MemoryShare,
    Column::Node,
    Column::Peak,
    Column::Receive,
    Column::Transmit,
    Column::Workload,
];

impl Column {
    const fn title(self) -> &'static str {
        match self {
            Self::Name => "NAME",
            Self::Namespace => "NAMESPACE",
            Self::Node => "NODE",
            Self::Count => "COUNT",
            Self::Cpu => "CPU",
            Self::CpuLimit => "CPU LIM",
            Self::Throttled => "THROT",
            Self::Memory => "MEMORY",
            Self::Peak => "PEAK",
            Self::MemoryLimit => "MEM LIM",
            Self::MemoryShare => "%LIM",
            Self::Oom => "OOM",
            Self::Receive => "RX/s",
            Self::Transmit => "TX/s",
            Self::Workload => "WORKLOAD",
            Self::History => "CPU HISTORY",
        }
    }

    /// Cells of a column of numbers; `None` for words, whose width depends on them.
    const fn number_width(self) -> Option<usize> {
        match self {
            Self::Name | Self::Namespace | Self::Node | Self::Workload | Self::History => None,
            Self::Count | Self::Oom => Some(5),
            Self::Cpu | Self::Throttled | Self::Memory | Self::Peak | Self::Receive | Self::Transmit => {
                Some(6)
            }
            Self::MemoryShare => Some(4),
            Self::CpuLimit | Self::MemoryLimit => Some(7),
        }
    }

    /// The largest number of cells that a column of words takes beside others.
    const fn max_width(self) -> usize {
        match self {
            Self::Namespace => 16,
            Self::Node => 24,
            Self::Workload => 40,
            Self::History => 60,
            _ => usize::MAX,
        }
    }

    const fn sort(self) -> Option<Sort> {
        match self {
            Self::Name => Some(Sort::Name),
            Self::Cpu => Some(Sort::Cpu),
            Self::Throttled => Some(Sort::Throttled),
            Self::Memory => Some(Sort::Memory),
            Self::MemoryShare => Some(Sort::Limit),
            Self::Oom => Some(Sort::Oom),
            _ => None,
        }
    }

    fn text(self, line: &Line) -> String {
        let row = &line.row;
        let number =
            |value: Option<f64>, show: fn(f64) -> String| value.map_or_else(|| NONE.to_owned(), show);
        let name = |name: &str| if name.is_empty() { NONE.to_owned() } else { text::shown(name) };
        match self {
            Self::Name => name(&row.name),
            Self::Namespace => name(&row.namespace),
            Self::Node => name(&row.node),
            Self::Count => line.count.map_or_else(String::new, |count| count.to_string()),
            Self::Cpu => number(row.cpu_cores, units::cores),
            Self::CpuLimit => number(row.cpu_limit_cores, units::cores),
            Self::Throttled => number(row.throttled_share, units::percent),
            Self::Memory => number(row.memory_working_set_bytes, units::bytes),
            Self::Peak => number(row.memory_peak_bytes, units::bytes),
            Self::MemoryLimit => number(row.memory_limit_bytes, units::bytes),
            Self::MemoryShare => number(row.memory_share(), |share| format!("{:.0}%", share * 100.0)),
            Self::Oom => number(row.oom_kills, |kills| format!("{kills:.0}")),
            Self::Receive => number(row.network_receive_bytes_per_second, units::bytes),
            Self::Transmit => number(row.network_transmit_bytes_per_second, units::bytes),
            Self::Workload => name(&row.workload_title()),
            Self::History => text::bars(row.cpu_history_cores.as_deref().unwrap_or_default()),
        }
    }

    fn severity(self, row: &ContainerRow) -> Severity {
        match self {
            Self::Throttled => severity::throttling(row),
            Self::Memory | Self::MemoryShare => severity::memory(row),
            Self::Oom => severity::oom_kills(row),
            _ => Severity::Normal,
        }
    }
}

/// The columns that fit into a width, with their widths.
#[derive(Clone, Debug)]
pub(crate) struct Grid {
    columns: Vec<(Column, usize)>,
}

impl Grid {
    /// For lines of which `is_grouped` says whether they are groups, on one node or on several.
    pub(crate) fn new(lines: &[Line], width: usize, is_grouped: bool, has_nodes: bool) -> Self {
        let has = |name: fn(&ContainerRow) -> bool| lines.iter().any(|line| name(&line.row));
        let is_wanted = |column: &Column| match column {
            Column::Count => is_grouped,
            Column::Namespace => !is_grouped && has(|row| !row.namespace.is_empty()),
            Column::Node => !is_grouped && has_nodes,
            Column::Workload => !is_grouped && has(|row| !row.workload.is_empty()),
            Column::Peak => !is_grouped,
            Column::History => !is_grouped && has(|row| row.cpu_history_cores.is_some()),
            Column::Receive => has(|row| row.network_receive_bytes_per_second.is_some()),
            Column::Transmit => has(|row| row.network_transmit_bytes_per_second.is_some()),
            _ => true,
        };
        let widest = |column: Column| {
            let title = text::width(column.title());
            lines.iter().map(|line| text::width(&column.text(line))).max().unwrap_or(0).max(title)
        };
        let longest_name = widest(Column::Name);
        let mut name = longest_name.min(if width < 80 { 14 } else { 18 });
        let mut left = width.saturating_sub(SIGN + name);
        let mut widths = vec![(Column::Name, 0)];
        for column in IMPORTANCE.into_iter().filter(is_wanted) {
            let cells = column.number_width().unwrap_or_else(|| widest(column).min(column.max_width()));
            if cells + GAP <= left {
                left -= cells + GAP;
                widths.push((column, cells));
            }
        }
        // What is left makes names longer. A screen without room for two columns has nothing but names.
        name = (name + left).min(if widths.len() == 1 { width.saturating_sub(SIGN) } else { longest_name });
        let width_of = |wanted: Column| {
            let found = widths.iter().find(|(column, _)| *column == wanted);
            found.map(|(_, cells)| (wanted, if wanted == Column::Name { name } else { *cells }))
        };
        Self { columns: ORDER.into_iter().filter_map(width_of).collect() }
    }

    /// The headings; the column by which lines are sorted stands out.
    pub(crate) fn headings(&self, sort: Option<Sort>) -> Spans {
        let start = Spans::plain(" ".repeat(SIGN));
        self.cells(start, |column| {
            let is_sorted = sort.is_some() && column.sort() == sort;
            let look = if is_sorted { Look::Sorted } else { Look::Strong };
            (column.title().to_owned(), look)
        })
    }

    /// The cells of a line, after the sign of its severity.
    pub(crate) fn line(&self, line: &Line) -> Spans {
        let row = &line.row;
        let sign = if row.is_stale { STALE } else { line.severity.sign() };
        let start = Spans::default().and(sign, line.severity.into()).and(" ", Look::Plain);
        self.cells(start, |column| {
            let look = match column.severity(row) {
                // A value of a whole group may be harmless while that of one container is not.
                _ if row.is_stale => Look::Dim,
                Severity::Normal if matches!(column, Column::Namespace | Column::Node | Column::Workload) => {
                    Look::Dim
                }
                Severity::Normal if column == Column::History => Look::Bar,
                severity => severity.into(),
            };
            (column.text(line), look)
        })
    }

    fn cells(&self, start: Spans, cell: impl Fn(Column) -> (String, Look)) -> Spans {
        let mut spans = start;
        for (number, (column, width)) in self.columns.iter().enumerate() {
            let gap = if number == 0 { 0 } else { GAP };
            let (text, look) = cell(*column);
            let is_number = column.number_width().is_some();
            let text =
                if *column == Column::Name { text::ends(&text, *width) } else { text::head(&text, *width) };
            let padded = text::pad(&text, *width, is_number);
            let (before, rest) = padded.split_at(padded.len() - padded.trim_start().len());
            // Underlines only what is there.
            let (word, after) = rest.split_at(rest.trim_end().len());
            spans = spans.and(" ".repeat(gap) + before, Look::Plain).and(word, look).and(after, Look::Plain);
        }
        spans
    }
}
