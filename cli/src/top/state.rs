//! What the live view shows: pure, without a terminal and without agents.

use std::collections::BTreeMap;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{
    Group, Sort,
    details::Details,
    rows::{self, ContainerRow},
    severity::Severity,
};

/// Rows and agents at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Picture {
    pub(crate) rows: Vec<ContainerRow>,
    pub(crate) agents: Vec<AgentStatus>,
    /// Seconds between the measurements of the rates.
    pub(crate) interval_seconds: f64,
}

/// Whether an agent responds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct AgentStatus {
    /// Name of the node, or the address if the agent never responded.
    pub(crate) name: String,
    /// Seconds since the last response, and why there is none.
    pub(crate) away: Option<(u64, String)>,
    /// Seconds for which it was away, shortly after it came back.
    pub(crate) back_after: Option<u64>,
}

/// One line of the list.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    /// A container, or the sum of a group.
    pub(crate) row: ContainerRow,
    /// The most serious state in it.
    pub(crate) severity: Severity,
    /// Containers in a group; `None` for a container.
    pub(crate) count: Option<usize>,
}

/// Identifies a line between two pictures: node and cgroup, or the name of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
enum LineKey {
    Container(String, String),
    Group(String),
}

impl Line {
    fn key(&self) -> LineKey {
        match self.count {
            None => LineKey::Container(self.row.node.clone(), self.row.id.clone()),
            Some(_) => LineKey::Group(self.row.name.clone()),
        }
    }
}

/// What the loop has to do after a key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    None,
    Quit,
    Suspend,
    Redraw,
    /// Request the details of this container.
    Open(Box<ContainerRow>),
}

/// The list or the details of one container.
#[derive(Debug, Default)]
pub(crate) struct View {
    picture: Picture,
    /// The newest picture while the view is paused.
    newer: Option<Picture>,
    is_paused: bool,
    pub(crate) sort: Sort,
    pub(crate) group: Group,
    /// The group whose containers are listed.
    pub(crate) inside: Option<String>,
    pub(crate) filter: String,
    /// Whether keys go into the filter.
    pub(crate) is_typing: bool,
    lines: Vec<Line>,
    selected: usize,
    first: usize,
    /// Lines that are visible at once.
    height: usize,
    /// The container whose details are shown, and the details once they are there.
    open: Option<(Box<ContainerRow>, Option<Details>)>,
    /// The first line of the details that is visible.
    pub(crate) scroll: usize,
}

impl View {
    pub(crate) fn new(sort: Sort, group: Group) -> Self {
        Self { sort, group, height: 1, ..Self::default() }
    }

    /// Takes the next picture. A paused view keeps the old one.
    pub(crate) fn update(&mut self, picture: Picture) {
        if self.is_paused {
            self.newer = Some(picture);
        } else {
            self.picture = picture;
            self.arrange();
        }
    }

    /// Takes the details of a container, unless another one is open by now.
    pub(crate) fn take_details(&mut self, node: &str, id: &str, details: Details) {
        if let Some((row, known)) = &mut self.open
            && row.node == node
            && row.id == id
        {
            *known = Some(details);
        }
    }

    pub(crate) fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The visible lines, and which of them is selected.
    pub(crate) fn visible(&self) -> (&[Line], Option<usize>) {
        let end = self.lines.len().min(self.first + self.height);
        let visible = self.lines.get(self.first..end).unwrap_or_default();
        (visible, self.selected.checked_sub(self.first).filter(|at| *at < visible.len()))
    }

    /// Numbers of the first and the last visible line, from 1.
    pub(crate) fn range(&self) -> (usize, usize) {
        ((self.first + 1).min(self.lines.len()), self.lines.len().min(self.first + self.height))
    }

    pub(crate) fn picture(&self) -> &Picture {
        &self.picture
    }

    pub(crate) const fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// The open container, with the row of the last picture, and its details.
    pub(crate) fn open(&self) -> Option<(&ContainerRow, Option<&Details>)> {
        let (row, details) = self.open.as_ref()?;
        Some((row, details.as_ref()))
    }

    /// Whether lines are groups.
    pub(crate) fn is_grouped(&self) -> bool {
        self.group != Group::None && self.inside.is_none()
    }

    /// Adapts the visible part to the number of lines that the screen has.
    pub(crate) fn fit(&mut self, height: usize) {
        self.height = height.max(1);
        self.keep_selection_visible();
    }

    fn keep_selection_visible(&mut self) {
        self.selected = self.selected.min(self.lines.len().saturating_sub(1));
        self.first = self.first.min(self.selected).max((self.selected + 1).saturating_sub(self.height));
        // No empty lines below the last one while lines above are hidden.
        self.first = self.first.min(self.lines.len().saturating_sub(self.height));
    }

    /// Filters, groups and sorts the rows of the picture. The selection stays with its line.
    fn arrange(&mut self) {
        let selected = self.lines.get(self.selected).map(Line::key);
        if let Some((open, _)) = &mut self.open
            && let Some(row) = self.picture.rows.iter().find(|row| row.node == open.node && row.id == open.id)
        {
            **open = row.clone();
        }
        let needle = self.filter.to_lowercase();
        let rows = self.picture.rows.iter().filter(|row| matches(row, &needle));
        let mut lines: Vec<Line> = if self.is_grouped() {
            groups(rows, self.group)
        } else {
            let inside = |row: &&ContainerRow| {
                self.inside.as_ref().is_none_or(|group| *group == group_of(row, self.group))
            };
            let line =
                |row: &ContainerRow| Line { severity: Severity::of(row), row: row.clone(), count: None };
            rows.filter(inside).map(line).collect()
        };
        lines.sort_by(|a, b| rows::order(self.sort, &a.row, &b.row));
        self.lines = lines;
        if self.first == 0 && self.selected == 0 {
            // Whoever has not moved wants to see what is at the top.
        } else if let Some(at) = selected.and_then(|key| self.lines.iter().position(|line| line.key() == key))
        {
            self.selected = at;
        }
        self.keep_selection_visible();
    }

    fn rearrange(&mut self) {
        (self.selected, self.first) = (0, 0);
        self.arrange();
    }

    /// Reacts to a key.
    pub(crate) fn press(&mut self, key: KeyEvent) -> Action {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c' | 'C') => Action::Quit,
                KeyCode::Char('z' | 'Z') => Action::Suspend,
                KeyCode::Char('l' | 'L') => Action::Redraw,
                _ => Action::None,
            };
        }
        if self.is_typing {
            self.type_filter(key.code);
            return Action::None;
        }
        match (key.code, &self.open) {
            (KeyCode::Char('q'), _) => return Action::Quit,
            (KeyCode::Char('p' | ' '), _) => self.pause(),
            (KeyCode::Esc | KeyCode::Backspace | KeyCode::Left | KeyCode::Enter, Some(_)) => self.open = None,
            (code, Some(_)) => self.scroll = moved(self.scroll, code, self.height, usize::MAX),
            (KeyCode::Enter | KeyCode::Right, None) => return self.enter(),
            (KeyCode::Esc | KeyCode::Backspace | KeyCode::Left, None) => self.go_back(),
            (KeyCode::Char('s'), None) => {
                self.sort = self.sort.next();
                self.rearrange();
            }
            (KeyCode::Char('g'), None) => {
                (self.group, self.inside) = (self.group.next(), None);
                self.rearrange();
            }
            (KeyCode::Char('/'), None) => self.is_typing = true,
            (code, None) => {
                let last = self.lines.len().saturating_sub(1);
                self.selected = moved(self.selected, code, self.height, last);
                self.keep_selection_visible();
            }
        }
        Action::None
    }

    fn pause(&mut self) {
        self.is_paused = !self.is_paused;
        if let Some(newer) = self.newer.take() {
            self.update(newer);
        }
    }

    fn enter(&mut self) -> Action {
        let Some(line) = self.lines.get(self.selected) else { return Action::None };
        if line.count.is_some() {
            self.inside = Some(line.row.name.clone());
            self.rearrange();
            return Action::None;
        }
        let row = Box::new(line.row.clone());
        self.scroll = 0;
        self.open = Some((row.clone(), None));
        Action::Open(row)
    }

    fn go_back(&mut self) {
        if self.inside.take().is_none() {
            self.filter.clear();
        }
        self.rearrange();
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) => self.filter.push(c),
            _ => return,
        }
        self.rearrange();
    }
}

/// A position after a key.
fn moved(at: usize, code: KeyCode, page: usize, last: usize) -> usize {
    let moved = match code {
        KeyCode::Up | KeyCode::Char('k') => at.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') => at.saturating_add(1),
        KeyCode::PageUp => at.saturating_sub(page),
        KeyCode::PageDown => at.saturating_add(page),
        KeyCode::Home => 0,
        KeyCode::End => last,
        _ => at,
    };
    moved.min(last)
}

fn matches(row: &ContainerRow, needle: &str) -> bool {
    let names = [&row.name, &row.namespace, &row.pod, &row.container, &row.workload, &row.node];
    needle.is_empty() || names.iter().any(|name| name.to_lowercase().contains(needle))
}

/// The group of a row. Containers outside of a namespace or a workload are a group of their own.
fn group_of(row: &ContainerRow, group: Group) -> String {
    let name = match group {
        Group::None => String::new(),
        Group::Node => row.node.clone(),
        Group::Namespace => row.namespace.clone(),
        Group::Workload => match row.workload_kind.as_str() {
            _ if row.workload.is_empty() => String::new(),
            "Container" => row.name.clone(),
            kind @ ("Unit" | "Cgroup") => format!("{kind} {}", row.workload),
            kind => format!("{}/{kind}/{}", row.namespace, row.workload),
        },
    };
    if name.is_empty() { "-".to_owned() } else { name }
}

fn groups<'r>(rows: impl Iterator<Item = &'r ContainerRow>, group: Group) -> Vec<Line> {
    let mut groups: BTreeMap<String, Line> = BTreeMap::new();
    for row in rows {
        let severity = Severity::of(row);
        let name = group_of(row, group);
        match groups.get_mut(&name) {
            Some(line) => {
                line.row.add(row);
                line.severity = line.severity.max(severity);
                line.count = line.count.map(|count| count + 1);
            }
            None => {
                let row = ContainerRow {
                    name: name.clone(),
                    memory_peak_bytes: None,
                    cpu_history_cores: None,
                    ..row.clone()
                };
                groups.insert(name, Line { row, severity, count: Some(1) });
            }
        }
    }
    groups.into_values().collect()
}

#[cfg(test)]
mod tests;
