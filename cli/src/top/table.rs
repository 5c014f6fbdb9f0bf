//! The printed table of `snug top`.

use super::{grid::Grid, rows::ContainerRow, severity::Severity, state::Line, text};
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

/// Renders rows for a file or another program: with whole names, however long, and without control characters.
pub(crate) fn render(rows: &[ContainerRow], has_nodes: bool) -> String {
    let has_history = rows.iter().any(|row| row.cpu_history_cores.is_some());
    let node = has_nodes.then_some(("NODE", Align::Left));
    let history = has_history.then_some(("CPU HISTORY", Align::Left));
    let headings: Vec<_> = node.into_iter().chain(HEADINGS).chain(history).collect();
    let cells = rows.iter().map(|row| {
        let node = has_nodes.then(|| plain(&row.node));
        let history = || text::bars(row.cpu_history_cores.as_deref().unwrap_or_default());
        node.into_iter().chain(cells(row)).chain(has_history.then(history)).collect::<Vec<_>>()
    });
    columns::render(&headings, &cells.collect::<Vec<_>>())
}

/// Renders rows for a terminal of this width: short names, and the columns that fit.
pub(crate) fn fitted(rows: &[ContainerRow], width: usize, has_nodes: bool) -> String {
    let line = |row: &ContainerRow| Line { severity: Severity::of(row), row: row.clone(), count: None };
    let lines: Vec<Line> = rows.iter().map(line).collect();
    let grid = Grid::new(&lines, width, false, has_nodes);
    let all = std::iter::once(grid.headings(None)).chain(lines.iter().map(|line| grid.line(line)));
    all.map(|spans| text::head(&spans.text(), width) + "\n").collect()
}

fn cells(row: &ContainerRow) -> [String; 11] {
    let number = |value: Option<f64>, show: fn(f64) -> String| value.map_or_else(|| NONE.to_owned(), show);
    // A row without a pod is a systemd unit, a plain cgroup, or a container that is known by its id alone.
    let pod = if row.pod.is_empty() { &row.name } else { &row.pod };
    let container = match (row.container.as_str(), row.kind.as_str()) {
        ("", kind) => kind.to_owned(),
        (name, "" | "app") => name.to_owned(),
        (name, kind) => format!("{name} ({kind})"),
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
        plain(&row.workload_title()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> [ContainerRow; 3] {
        [
            ContainerRow {
                name: "web-x2x".into(),
                namespace: "shop".into(),
                pod: "web-7c9f-x2x".into(),
                container: "web".into(),
                kind: "app".into(),
                workload_kind: "Deployment".into(),
                workload: "web".into(),
                cpu_cores: Some(1.25),
                cpu_limit_cores: Some(2.0),
                throttled_share: Some(0.031),
                memory_working_set_bytes: Some(67_108_864.0),
                memory_peak_bytes: Some(134_217_728.0),
                memory_limit_bytes: Some(268_435_456.0),
                oom_kills: Some(1.0),
                ..ContainerRow::default()
            },
            ContainerRow {
                name: "cron.service".into(),
                kind: "unit".into(),
                cpu_cores: Some(0.001),
                ..ContainerRow::default()
            },
            ContainerRow {
                name: "docker 0123456789ab".into(),
                kind: "container".into(),
                ..ContainerRow::default()
            },
        ]
    }

    #[test]
    fn columns_are_aligned() {
        let expected = "\
NAMESPACE  POD/UNIT             CONTAINER   CPU  CPU LIMIT  THROTTLED  MEMORY   PEAK  MEM LIMIT  OOM KILLS  WORKLOAD
shop       web-7c9f-x2x         web        1.25       2.00       3.1%    64Mi  128Mi      256Mi          1  Deployment/web
-          cron.service         unit         1m          -          -       -      -          -          -  -
-          docker 0123456789ab  container     -          -          -       -      -          -          -  -
";
        assert_eq!(render(&rows(), false), expected);
        assert!(render(&rows(), true).starts_with("NODE  NAMESPACE"));
    }

    #[test]
    fn a_terminal_gets_lines_that_fit() {
        let expected = "
  NAME                 NAMESPACE     CPU  CPU LIM   THROT  MEMORY  MEM LIM    OOM
* web-x2x              shop         1.25     2.00    3.1%    64Mi    256Mi      1
  cron.service         -              1m        -       -       -        -      -
  docker 0123456789ab  -               -        -       -       -        -      -
";
        assert_eq!(format!("\n{}", fitted(&rows(), 81, false)), expected);
        for width in 0..200 {
            assert!(fitted(&rows(), width, true).lines().all(|line| text::width(line) <= width));
        }
    }

    #[test]
    fn cpu_history_is_a_column_with_last() {
        let with = |pod: &str, history| ContainerRow {
            pod: pod.into(),
            cpu_history_cores: Some(history),
            ..ContainerRow::default()
        };
        let text = render(&[with("a", vec![None, Some(0.5), Some(1.0)]), with("b", vec![None; 3])], false);
        let ends: Vec<&str> =
            text.lines().map(|line| line.split_once("OOM KILLS").map_or(line, |(_, end)| end)).collect();
        assert_eq!(ends[0], "  WORKLOAD  CPU HISTORY");
        assert!(ends[1].ends_with("   ▄█") && ends[2].ends_with('-'), "{text}");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let row = ContainerRow {
            name: "a\x1b[2Jb".into(),
            pod: "a\x1b[2Jb".into(),
            container: "c".into(),
            kind: "init".into(),
            ..ContainerRow::default()
        };
        let text = render(std::slice::from_ref(&row), false);
        assert!(text.contains("a[2Jb") && text.contains("c (init)"), "{text}");
        assert!(!fitted(&[row], 100, false).contains('\x1b'));
    }
}
