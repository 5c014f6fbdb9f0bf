//! The lines of the screen: pure.

use super::{
    Group, details,
    grid::Grid,
    look::{Look, Spans},
    rows::ContainerRow,
    state::{AgentStatus, View},
    text,
};
use crate::units;

/// Agents that are away or back, of which the screen has a line each.
const MAX_STATUS: usize = 3;

/// The lines of a screen of this size, from the top. Adapts the visible part of the view to it.
pub(crate) fn lines(view: &mut View, width: usize, height: usize) -> Vec<Spans> {
    // The title says which lines are visible, so it is made last.
    let mut lines = vec![Spans::default()];
    lines.extend(statuses(&view.picture().agents).take(MAX_STATUS.min(height / 6)));
    // Room for the keys at the bottom.
    let room = height.saturating_sub(lines.len() + 1);
    if let Some((row, known)) = view.open() {
        let all = details::lines(row, known, width, height);
        view.scroll = view.scroll.min(all.len().saturating_sub(room));
        view.fit(room);
        lines.extend(all.into_iter().skip(view.scroll).take(room));
    } else {
        view.fit(room.saturating_sub(1));
        let has_nodes = view.picture().agents.len() > 1;
        let grid = Grid::new(view.lines(), width, view.is_grouped(), has_nodes);
        lines.push(grid.headings(Some(view.sort)));
        let (visible, selected) = view.visible();
        lines.extend(
            visible
                .iter()
                .enumerate()
                .map(|(number, line)| Spans { is_selected: Some(number) == selected, ..grid.line(line) }),
        );
        if visible.is_empty() {
            lines.push(Spans::plain(nothing(view)));
        }
    }
    lines[0] = title(view);
    lines.truncate(height.saturating_sub(1));
    lines.resize(height.saturating_sub(1), Spans::default());
    lines.push(keys(view, width));
    lines.truncate(height);
    lines
}

fn title(view: &View) -> Spans {
    let picture = view.picture();
    let mut words = Vec::new();
    match picture.agents.as_slice() {
        [agent] => words.push(text::shown(&agent.name)),
        agents => words.push(units::count(agents.len(), "node")),
    }
    let all = picture.rows.len();
    let (first, last) = view.range();
    let (of, what) = (view.lines().len(), if view.is_grouped() { "group" } else { "container" });
    words.push(match (view.is_grouped(), of < all, first == 1 && last == of) {
        (false, false, true) => units::count(all, what),
        (false, true, true) => format!("{of} of {}", units::count(all, what)),
        (true, _, true) => format!("{} of {}", units::count(of, what), units::count(all, "container")),
        _ => format!("{first}-{last} of {}", units::count(of, what)),
    });
    let sum = |value: fn(&ContainerRow) -> Option<f64>| {
        view.lines().iter().filter_map(|line| value(&line.row)).sum::<f64>()
    };
    words.push(format!("CPU {}", units::cores(sum(|row| row.cpu_cores))));
    words.push(format!("memory {}", units::bytes(sum(|row| row.memory_working_set_bytes))));
    if let Some(inside) = &view.inside {
        words.push(format!("in {}", text::shown(inside)));
    }
    if !view.filter.is_empty() && !view.is_typing {
        words.push(format!("filter {}", text::shown(&view.filter)));
    }
    let seconds = picture.interval_seconds;
    if seconds > 0.0 {
        words.push(format!("over {seconds:.1} s"));
    }
    let paused = if view.is_paused() { "  PAUSED" } else { "" };
    Spans::strong("snug top").and(format!("  {}", words.join("  ")), Look::Plain).and(paused, Look::Warning)
}

fn statuses(agents: &[AgentStatus]) -> impl Iterator<Item = Spans> + '_ {
    let away = agents.iter().filter_map(|agent| {
        let (seconds, why) = agent.away.as_ref()?;
        let text =
            format!("? {} does not respond for {seconds} s: {}", text::shown(&agent.name), text::shown(why));
        Some(Spans::default().and(text, Look::Warning))
    });
    let back = agents.iter().filter_map(|agent| {
        let text = format!("  {} is back after {} s", text::shown(&agent.name), agent.back_after?);
        Some(Spans::default().and(text, Look::Strong))
    });
    let others = agents.iter().filter(|agent| agent.away.is_some()).count();
    let many = (others > MAX_STATUS)
        .then(|| Spans::default().and(format!("? {others} agents do not respond"), Look::Warning));
    many.into_iter().chain(away).chain(back)
}

fn nothing(view: &View) -> String {
    match view.picture().rows.len() {
        0 => "  no containers".to_owned(),
        all => format!("  none of {} matches; Esc clears the filter", units::count(all, "container")),
    }
}

/// The line at the bottom: what the keys do, the most important first.
fn keys(view: &View, width: usize) -> Spans {
    if view.is_typing {
        let typed = text::shown(&view.filter);
        return Spans::strong("/")
            .and(format!("{typed}_"), Look::Plain)
            .and("   Enter keeps the filter, Esc clears it", Look::Dim);
    }
    let pause = if view.is_paused() { "continue" } else { "pause" };
    let keys = if view.open().is_some() {
        vec![
            ("q", "quit".to_owned()),
            ("Esc", "back".to_owned()),
            ("p", pause.to_owned()),
            ("↑↓", "scroll".to_owned()),
        ]
    } else {
        let back = match (&view.inside, view.filter.is_empty()) {
            (Some(_), _) => Some(("Esc", "back".to_owned())),
            (None, false) => Some(("Esc", "clear filter".to_owned())),
            (None, true) => None,
        };
        let mut keys = vec![("q", "quit".to_owned())];
        keys.extend(back);
        keys.extend([
            ("Enter", if view.is_grouped() { "list" } else { "details" }.to_owned()),
            ("/", "filter".to_owned()),
            ("s", format!("sort: {}", view.sort.word())),
            ("g", format!("group: {}", view.group.word())),
            ("p", pause.to_owned()),
            ("↑↓", "select".to_owned()),
        ]);
        if view.group == Group::None {
            keys.push(("! danger", "* warning  ? no response".to_owned()));
        }
        keys
    };
    let mut line = Spans::default();
    for (key, what) in keys {
        let next = line.clone().and(key, Look::Strong).and(format!(" {what}  "), Look::Plain);
        if next.width() > width + 2 {
            break;
        }
        line = next;
    }
    line
}

#[cfg(test)]
mod tests;
