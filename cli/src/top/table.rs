//! The table of `snug top`.

use super::{rows::ContainerRow, usage_history::bars};
use crate::{
    columns::{self, Align, plain},
    units::{self, NONE},
};

const HEADINGS: [(&str, Align); 11] = [
    ("NAMESPACE", Align::Left),
    ("POD/UNIT", Align::Left),
    ("CONTAINER", Align::Left),
    ("CPU", Align::Right),
    ("CPU LIMIT", Align::Right),
    ("THROTTLED", Align::Right),
    ("MEMORY", Align::Right),
    ("PEAK", Align::Right),
    ("MEM LIMIT", Align::Right),
    ("OOM KILLS", Align::Right),
    ("WORKLOAD", Align::Left),
];
/// Characters of a container id that are shown.
const SHORT_ID: usize = 12;

/// Renders rows with aligned columns, without control characters.
pub(crate) fn render(rows: &[ContainerRow]) -> String {
    let cells: Vec<_> = rows.iter().map(cells).collect();
    if rows.iter().all(|row| row.cpu_history_cores.is_none()) {
        return columns::render(&HEADINGS, &cells);
    }
    let headings: Vec<_> = HEADINGS.into_iter().chain([("CPU HISTORY", Align::Left)]).collect();
    let with_history = rows.iter().zip(cells).map(|(row, cells)| {
        let usage_history = bars(row.cpu_history_cores.as_deref().unwrap_or_default());
        cells.into_iter().chain([usage_history]).collect::<Vec<_>>()
    });
    columns::render(&headings, &with_history.collect::<Vec<_>>())
}

fn cells(row: &ContainerRow) -> [String; 11] {
    let number = |value: Option<f64>, show: fn(f64) -> String| value.map_or_else(|| NONE.to_owned(), show);
    let id = match row.id.char_indices().nth(SHORT_ID) {
        Some((end, _)) if row.id.chars().all(|c| c.is_ascii_hexdigit()) => {
            row.id.get(..end).unwrap_or(&row.id)
        }
        _ => &row.id,
    };
    // A row without a pod is a systemd unit, or a container that is known by its id alone.
    let pod = if row.pod.is_empty() { id } else { &row.pod };
    let container = match (row.container.as_str(), row.kind.as_str()) {
        ("", "") if !row.pod.is_empty() => id.to_owned(),
        ("", kind) => kind.to_owned(),
        (name, "" | "app") => name.to_owned(),
        (name, kind) => format!("{name} ({kind})"),
    };
    let workload = match (row.workload_kind.as_str(), row.workload.as_str()) {
        (_, "") => String::new(),
        ("", name) => name.to_owned(),
        (kind, name) => format!("{kind}/{name}"),
    };
    [
        plain(&row.namespace),
        plain(pod),
        plain(&container),
        number(row.cpu_cores, units::cores),
        number(row.cpu_limit_cores, units::cores),
        number(row.throttled_share, units::percent),
        number(row.memory_working_set_bytes, units::bytes),
        number(row.memory_peak_bytes, units::bytes),
        number(row.memory_limit_bytes, units::bytes),
        number(row.oom_kills, |kills| format!("{kills:.0}")),
        plain(&workload),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [
            ContainerRow {
                namespace: "shop".into(),
                pod: "web-7c9f-x2x".into(),
                container: "web".into(),
                kind: "app".into(),
                workload_kind: "Deployment".into(),
                workload: "web".into(),
                id: "0123456789abcdef".into(),
                cpu_cores: Some(1.25),
                cpu_limit_cores: Some(2.0),
                throttled_share: Some(0.031),
                memory_working_set_bytes: Some(67_108_864.0),
                memory_peak_bytes: Some(134_217_728.0),
                memory_limit_bytes: Some(268_435_456.0),
                oom_kills: Some(1.0),
                cpu_history_cores: None,
            },
            ContainerRow { id: "cron.service".into(), cpu_cores: Some(0.001), ..ContainerRow::default() },
            ContainerRow { id: "0123456789abcdef0123".into(), ..ContainerRow::default() },
        ];
        let expected = "\
NAMESPACE  POD/UNIT      CONTAINER   CPU  CPU LIMIT  THROTTLED  MEMORY   PEAK  MEM LIMIT  OOM KILLS  WORKLOAD
shop       web-7c9f-x2x  web        1.25       2.00       3.1%    64Mi  128Mi      256Mi          1  Deployment/web
-          cron.service  -            1m          -          -       -      -          -          -  -
-          0123456789ab  -             -          -          -       -      -          -          -  -
";
        assert_eq!(render(&rows), expected);
    }

    #[test]
    fn cpu_history_is_a_column_with_last() {
        let rows = [
            ContainerRow {
                pod: "a".into(),
                cpu_history_cores: Some(vec![None, Some(0.5), Some(1.0)]),
                ..ContainerRow::default()
            },
            ContainerRow {
                pod: "b".into(),
                cpu_history_cores: Some(vec![None; 3]),
                ..ContainerRow::default()
            },
        ];
        let text = render(&rows);
        let ends: Vec<&str> =
            text.lines().map(|line| line.split_once("OOM KILLS").map_or(line, |(_, end)| end)).collect();
        assert_eq!(ends[0], "  WORKLOAD  CPU HISTORY");
        assert!(ends[1].ends_with("   ▄█") && ends[2].ends_with('-'), "{text}");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let row = ContainerRow {
            pod: "a\x1b[2Jb".into(),
            container: "c".into(),
            kind: "init".into(),
            ..ContainerRow::default()
        };
        let text = render(&[row]);
        assert!(text.contains("a[2Jb") && text.contains("c (init)"), "{text}");
    }
}
