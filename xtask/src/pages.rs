//! `cargo xtask pages`: makes a site of the pages, with MkDocs. A link that leads nowhere is an error. The site loads nothing from
//! elsewhere.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};

use crate::{
    command, mkdocs,
    setup::{self, Need},
    workspace,
};

/// The page that lists the others.
const INDEX: &str = "docs/README.md";
/// Endings of files that pages show or link to.
const SHOWN: [&str; 5] = ["md", "svg", "png", "json", "yaml"];

/// Make a site of the pages in target/pages/site, and check its links.
#[derive(Debug, Parser)]
pub(crate) struct Options {}

/// Runs the task.
pub(crate) fn run(_: &Options) -> Result<()> {
    setup::ensure_all(&[Need::Pages])?;
    make()
}

/// Makes the site.
pub(crate) fn make() -> Result<()> {
    let folder = workspace::target_dir().join("pages");
    let (source, site) = (folder.join("source"), folder.join("site"));
    if source.exists() {
        fs::remove_dir_all(&source).with_context(|| format!("cannot remove {}", source.display()))?;
    }
    copy(workspace::root(), &source, false)?;
    copy(&workspace::root().join("docs"), &source.join("docs"), true)?;
    let index = fs::read_to_string(source.join(INDEX)).context(INDEX)?;
    let config = folder.join("mkdocs.yml");
    // YAML has the syntax of JSON.
    fs::write(&config, configuration(&source, &site, &navigation(&index)?).to_string())?;
    let mut build = command::new(mkdocs::program()?);
    // With --quiet it would not count warnings.
    command::capture(build.args(["build", "--strict", "--config-file"]).arg(&config))?;
    println!("{} has the pages", site.display());
    Ok(())
}

/// Copies what pages show: of this folder, or of the folders below it, too.
fn copy(from: &Path, to: &Path, below: bool) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let path = entry?.path();
        let target = to.join(path.file_name().context("no name")?);
        if path.is_dir() && below {
            copy(&path, &target, true)?;
        } else if path.extension().is_some_and(|ending| SHOWN.iter().any(|shown| ending == *shown)) {
            fs::copy(&path, &target).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}

fn configuration(source: &Path, site: &Path, navigation: &Value) -> Value {
    json!({
        "site_name": "Snug",
        "docs_dir": source,
        "site_dir": site,
        "use_directory_urls": false,
        "theme": { "name": "readthedocs", "highlightjs": false, "include_homepage_in_sidebar": false },
        "plugins": ["search"],
        "markdown_extensions": ["tables", "fenced_code"],
        "nav": navigation,
        "validation": {
            "nav": { "omitted_files": "ignore", "not_found": "warn", "absolute_links": "warn" },
            "links": { "not_found": "warn", "anchors": "warn", "absolute_links": "warn", "unrecognized_links": "warn" },
        },
    })
}

/// The pages by section, as the index lists them: sections are lines in bold, pages are links.
fn navigation(index: &str) -> Result<Value> {
    let mut sections: Vec<(String, Vec<Value>)> = vec![("Snug".to_owned(), vec![json!("README.md")])];
    for line in index.lines() {
        if let Some(title) = line.strip_prefix("**").and_then(|rest| rest.strip_suffix("**")) {
            sections.push((title.to_owned(), Vec::new()));
        }
        let Some((_, pages)) = sections.last_mut() else { continue };
        for part in line.split('[').skip(1) {
            let Some((title, rest)) = part.split_once("](") else { continue };
            let Some((target, _)) = rest.split_once(')') else { continue };
            let page = match target.strip_prefix("../") {
                Some(at_root) => at_root.to_owned(),
                None => format!("docs/{target}"),
            };
            pages.push(json!({ (title.replace('`', "")): page }));
        }
    }
    ensure!(sections.len() > 1, "{INDEX} has no sections");
    Ok(sections.into_iter().map(|(title, pages)| json!({ (title): pages })).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn navigation_is_what_the_index_lists() {
        let index = "# Documentation\n\n**Start**\n\n- [`a`](a.md), and [b](x/b.md) of c\n\n**More**\n\n[D.md](../D.md)\n";
        let expected = json!([
            { "Snug": ["README.md"] },
            { "Start": [{ "a": "docs/a.md" }, { "b": "docs/x/b.md" }] },
            { "More": [{ "D.md": "D.md" }] },
        ]);
        assert_eq!(navigation(index).unwrap(), expected);
        assert!(navigation("# Documentation\n").is_err());
    }

    #[test]
    fn only_what_pages_show_is_copied() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("images")).unwrap();
        for file in ["a.md", "b.rs", "images/c.png"] {
            fs::write(from.join(file), file).unwrap();
        }
        copy(&from, &to, true).unwrap();
        let there = ["a.md", "b.rs", "images/c.png"].map(|file| to.join(file).exists());
        assert_eq!(there, [true, false, true]);
    }
}
