//! What is remarked on many containers in the same way, on one line.

use crate::{columns::plain, units};

/// A remark, and the containers that it is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alike {
    /// What is said of all, or of the first where they differ in numbers.
    pub(super) remark: String,
    /// All of them, in the order of the report.
    pub(super) titles: Vec<String>,
    /// How many are named, if they are too many to name all.
    examples: usize,
}

impl Alike {
    /// Containers up to this number are all named.
    pub(super) const NAMED: usize = 3;

    /// The same remark on all containers.
    pub(super) const fn new(remark: String, titles: Vec<String>) -> Self {
        Self { remark, titles, examples: Self::NAMED }
    }

    /// A remark on the first, from which those on the others differ.
    pub(super) const fn like_first(remark: String, titles: Vec<String>) -> Self {
        Self { remark, titles, examples: 1 }
    }

    /// Whether [`Self::line`] names all.
    pub(super) const fn is_named(&self) -> bool {
        self.titles.len() <= Self::NAMED
    }

    /// The names, or how many there are of what `noun` says with some names, and the remark.
    pub(super) fn line(&self, noun: &str) -> String {
        let shown = if self.is_named() { Self::NAMED } else { self.examples };
        let names: Vec<String> = self.titles.iter().take(shown).map(|title| plain(title)).collect();
        let (names, remark) = (names.join(", "), plain(&self.remark));
        if self.is_named() {
            format!("{names}: {remark}")
        } else {
            format!("{}, such as {names}: {remark}", units::count(self.titles.len(), noun))
        }
    }
}

/// A heading and a line for each group. Behind the heading is where to find what the lines leave out.
pub(super) fn section(heading: &str, noun: &str, groups: &[Alike]) -> String {
    let hint = if groups.iter().all(Alike::is_named) { "" } else { " (each: -o wide)" };
    let lines = groups.iter().map(|group| format!("  {}\n", group.line(noun)));
    if groups.is_empty() {
        String::new()
    } else {
        format!("\n{heading}{hint}:\n{}", lines.collect::<String>())
    }
}
