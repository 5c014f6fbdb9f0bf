//! The pages for people: README, the other pages at the root, and docs/.
//!
//! A comment `<!-- output: FILE -->` on the line before a fenced block says that the block is a part of a file of expected output.
//!
//! A fenced block of the language `sh` has commands. A comment on the line before it says if it does not run on a host:
//! `<!-- run on: cluster -->`, or `<!-- not run: REASON -->`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};

/// Where the commands of a block are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runner {
    /// On a host with systemd and without a cluster.
    Host,
    /// With the kubeconfig of a cluster.
    Cluster,
    /// Nowhere, with the reason.
    Nowhere(String),
}

/// A fenced block.
#[derive(Clone, Debug)]
pub struct Block {
    /// Line of its first line of text, from 1.
    pub line: usize,
    /// The language behind the fence; empty for output.
    pub language: String,
    /// The file that has this output, by a comment `<!-- output: FILE -->` on the line before.
    pub output_of: Option<String>,
    /// Where its commands are run, if it has commands.
    pub place: Runner,
    pub text: String,
}

#[derive(Clone, Debug)]
pub struct Page {
    /// Its path in the repository.
    pub path: String,
    pub text: String,
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// All pages, by path.
pub fn all() -> Vec<Page> {
    let mut paths = BTreeSet::new();
    for folder in ["", "docs", "docs/runbooks", ".github", ".github/ISSUE_TEMPLATE"] {
        for entry in fs::read_dir(root().join(folder)).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                paths.insert(path);
            }
        }
    }
    let page = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        Page { path: path.strip_prefix(root()).unwrap().display().to_string(), text }
    };
    paths.into_iter().map(page).collect()
}

impl Page {
    /// Its fenced blocks.
    ///
    /// # Errors
    /// When a block does not end, or a comment before one is not understood.
    pub fn blocks(&self) -> Result<Vec<Block>> {
        let mut blocks = Vec::new();
        let mut before = "";
        let mut lines = self.text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            if let Some(language) = line.strip_prefix("```") {
                let place = place(before).with_context(|| format!("{}:{number}", self.path))?;
                let mut text = String::new();
                loop {
                    let (_, line) = lines
                        .next()
                        .with_context(|| format!("{}:{}: a block without end", self.path, number + 1))?;
                    if line == "```" {
                        break;
                    }
                    text.push_str(line);
                    text.push('\n');
                }
                let output_of =
                    before.strip_prefix("<!-- output: ").and_then(|rest| rest.strip_suffix(" -->"));
                let output_of = output_of.map(str::to_owned);
                blocks.push(Block {
                    line: number + 2,
                    language: language.to_owned(),
                    output_of,
                    place,
                    text,
                });
            }
            before = line;
        }
        Ok(blocks)
    }

    /// Its blocks of commands for this place.
    ///
    /// # Errors
    /// As [`Self::blocks`].
    pub fn commands(&self, place: &Runner) -> Result<Vec<Block>> {
        let mut blocks = self.blocks()?;
        blocks.retain(|block| block.language == "sh" && block.place == *place);
        Ok(blocks)
    }
}

fn place(comment: &str) -> Result<Runner> {
    let Some(comment) = comment.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) else {
        return Ok(Runner::Host);
    };
    if !comment.contains("run") {
        return Ok(Runner::Host);
    }
    if let Some(reason) = comment.strip_prefix("not run: ") {
        ensure!(reason.len() > 10, "{reason:?} is no reason");
        return Ok(Runner::Nowhere(reason.to_owned()));
    }
    match comment {
        "run on: cluster" => Ok(Runner::Cluster),
        other => bail!("{other:?}: neither `run on: cluster` nor `not run: REASON`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Page {
        Page { path: "page.md".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn blocks_have_a_place() {
        let text = "# A\n\n```sh\na\n\nb\n```\n<!-- run on: cluster -->\n```sh\nc\n```\n<!-- not run: takes a whole day -->\n```sh\nd\n```\n```text\ne\n```\n";
        let page = page(text);
        let found: Vec<(usize, String)> =
            page.blocks().unwrap().into_iter().map(|block| (block.line, block.text)).collect();
        let expected = [(4, "a\n\nb\n"), (10, "c\n"), (14, "d\n"), (17, "e\n")];
        assert_eq!(found, expected.map(|(line, text)| (line, text.to_owned())));
        assert_eq!(page.commands(&Runner::Host).unwrap().len(), 1);
        assert_eq!(page.commands(&Runner::Cluster).unwrap().len(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        for text in
            ["```sh\na\n", "<!-- run on: moon -->\n```sh\na\n```\n", "<!-- not run: no -->\n```sh\n```\n"]
        {
            assert!(page(text).blocks().is_err(), "{text}");
        }
    }
}
