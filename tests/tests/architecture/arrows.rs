//! Which module of a crate uses which: read from the tokens of its sources, `use` declarations and paths within code alike.
//!
//! Only code that is built without tests counts: items under `#[cfg(test)]` and the files that they declare are left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::Path,
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A module by its path in the crate; the crate's root is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Module(pub(crate) Vec<String>);

impl Module {
    /// `exporters::otlp` and the like.
    pub(crate) fn new(path: &str) -> Self {
        Self(path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect())
    }

    pub(crate) fn is_within(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("the crate's root") } else { f.write_str(&self.0.join("::")) }
    }
}

/// The modules of a crate, and what each uses of the others.
#[derive(Debug)]
pub(crate) struct Crate {
    pub(crate) modules: BTreeSet<Module>,
    /// From, to, and one of the names that are used.
    pub(crate) arrows: BTreeMap<(Module, Module), String>,
}

/// What the sources of one file say.
#[derive(Debug, Default)]
struct Found {
    /// Paths that begin at the crate's root.
    paths: Vec<Vec<String>>,
    /// Modules that are declared for tests alone.
    for_tests: Vec<Module>,
}

impl Crate {
    /// Reads all files below a `src` folder. Of `lib.rs` and `main.rs`, `root` is the one whose crate is meant.
    pub(crate) fn read(src: &Path, root: &str) -> Self {
        let mut files = Vec::new();
        let mut folders = vec![src.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let below = path.strip_prefix(src).unwrap().with_extension("");
                    let mut module: Vec<String> =
                        below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
                    let is_root = module.len() == 1 && ["lib", "main"].contains(&module[0].as_str());
                    if is_root && module[0] != root {
                        continue;
                    }
                    if is_root || module.last().is_some_and(|last| last == "mod") {
                        module.pop();
                    }
                    files.push((Module(module), fs::read_to_string(&path).unwrap()));
                }
            }
        }
        Self::of_sources(&files)
    }

    /// The same of texts, each with its module.
    pub(crate) fn of_sources(files: &[(Module, String)]) -> Self {
        let modules: BTreeSet<Module> = files.iter().map(|(module, _)| module.clone()).collect();
        let found: Vec<(&Module, Found)> = files
            .iter()
            .map(|(module, text)| {
                let tokens = text.parse().unwrap_or_else(|error| panic!("{module}: {error}"));
                let mut found = Found::default();
                scan(tokens, module, module, &mut found);
                (module, found)
            })
            .collect();
        let for_tests: Vec<Module> = found.iter().flat_map(|(_, found)| found.for_tests.clone()).collect();
        let is_tested = |module: &Module| for_tests.iter().any(|test| module.is_within(test));
        let mut arrows = BTreeMap::new();
        for (from, found) in found.iter().filter(|(from, _)| !is_tested(from)) {
            for path in &found.paths {
                let to = (0..=path.len())
                    .rev()
                    .map(|length| Module(path[..length].to_vec()))
                    .find(|module| modules.contains(module));
                if let Some(to) = to.filter(|to| to != *from) {
                    arrows.entry(((*from).clone(), to)).or_insert_with(|| path.join("::"));
                }
            }
        }
        Self { modules: modules.into_iter().filter(|module| !is_tested(module)).collect(), arrows }
    }
}

/// Finds the paths in tokens of a file's module. `here` is the module that `self` stands for, `file` that of the file.
fn scan(tokens: TokenStream, here: &Module, file: &Module, found: &mut Found) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        if let Some((text, after)) = attribute(&tokens, at) {
            if is_for_tests(&text) {
                at = skip_item(&tokens, at, here, file, found);
            } else {
                at = after;
            }
            continue;
        }
        match &tokens[at] {
            TokenTree::Ident(word) if word == "use" && !follows_path(&tokens, at) => {
                let end = (at..tokens.len()).find(|end| is_punct(&tokens, *end, ';')).unwrap_or(tokens.len());
                for path in use_tree(&tokens[at + 1..end]) {
                    found.paths.extend(absolute(&path, here));
                }
                at = end + 1;
            }
            TokenTree::Ident(word) if word == "mod" => {
                // `mod name { … }` is another module in the same file.
                if let (Some(TokenTree::Ident(name)), Some(TokenTree::Group(body))) =
                    (tokens.get(at + 1), tokens.get(at + 2))
                {
                    let mut inner = here.clone();
                    inner.0.push(name.to_string());
                    scan(body.stream(), &inner, file, found);
                    at += 3;
                } else {
                    at += 1;
                }
            }
            TokenTree::Ident(word)
                if ["crate", "super", "self"].contains(&word.to_string().as_str())
                    && !follows_path(&tokens, at)
                    && is_path_separator(&tokens, at + 1) =>
            {
                let (path, after) = path_at(&tokens, at);
                found.paths.extend(absolute(&path, here));
                at = after;
            }
            TokenTree::Group(group) => {
                scan(group.stream(), here, file, found);
                at += 1;
            }
            _ => at += 1,
        }
    }
}

/// The words of an attribute at a place, and the place after it.
fn attribute(tokens: &[TokenTree], at: usize) -> Option<(String, usize)> {
    if !is_punct(tokens, at, '#') {
        return None;
    }
    let group = if is_punct(tokens, at + 1, '!') { at + 2 } else { at + 1 };
    match tokens.get(group) {
        Some(TokenTree::Group(text)) if text.delimiter() == Delimiter::Bracket => {
            Some((text.stream().to_string(), group + 1))
        }
        _ => None,
    }
}

fn is_for_tests(attribute: &str) -> bool {
    let plain: String = attribute.chars().filter(|c| !c.is_whitespace()).collect();
    plain == "cfg(test)" || plain.starts_with("cfg(all(test,")
}

/// Passes over an item with its attributes; notes the file that it declares.
fn skip_item(tokens: &[TokenTree], at: usize, here: &Module, file: &Module, found: &mut Found) -> usize {
    let mut at = at;
    let mut path = None;
    while let Some((text, after)) = attribute(tokens, at) {
        let plain: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        path = path.or(plain.strip_prefix("path=\"").map(|rest| rest.trim_end_matches(".rs\"").to_owned()));
        at = after;
    }
    let mut declared = None;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            TokenTree::Ident(word) if word == "mod" => {
                declared = tokens.get(at).map(ToString::to_string);
            }
            // A body ends the item; the braces of a `use` or of a value are followed by a semicolon.
            TokenTree::Group(group)
                if group.delimiter() == Delimiter::Brace && !is_punct(tokens, at, ';') =>
            {
                return at;
            }
            TokenTree::Punct(punct) if punct.as_char() == ';' => {
                if let Some(name) = declared {
                    let mut module = here.clone();
                    match path {
                        // A path is seen from the folder that the file is in.
                        Some(path) => {
                            module = Module(file.0[..file.0.len().saturating_sub(1)].to_vec());
                            module.0.extend(path.split('/').map(str::to_owned));
                        }
                        None => module.0.push(name),
                    }
                    found.for_tests.push(module);
                }
                return at;
            }
            _ => {}
        }
    }
    at
}

fn is_punct(tokens: &[TokenTree], at: usize, sign: char) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == sign)
}

fn is_path_separator(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens, at, ':') && is_punct(tokens, at + 1, ':')
}

/// Whether what is at a place is a part of a longer path, as the second word of `a::self` is, or of `pub(in crate::a)`.
fn follows_path(tokens: &[TokenTree], at: usize) -> bool {
    at >= 2 && is_path_separator(tokens, at - 2)
}

/// The words of a path, and the place after it.
fn path_at(tokens: &[TokenTree], at: usize) -> (Vec<String>, usize) {
    let mut path = Vec::new();
    let mut at = at;
    while let Some(TokenTree::Ident(word)) = tokens.get(at) {
        path.push(word.to_string());
        if !is_path_separator(tokens, at + 1) {
            return (path, at + 1);
        }
        at += 3;
    }
    (path, at)
}

/// All paths of a `use` declaration, whatever they are renamed to.
fn use_tree(tokens: &[TokenTree]) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for branch in tokens.split(|token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',')) {
        let mut path = Vec::new();
        let mut is_whole = true;
        for token in branch {
            match token {
                TokenTree::Ident(word) if word == "as" => break,
                TokenTree::Ident(word) => path.push(word.to_string()),
                TokenTree::Group(group) => {
                    is_whole = false;
                    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    let below = use_tree(&inner).into_iter();
                    paths.extend(below.map(|rest| path.iter().cloned().chain(rest).collect()));
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
        if is_whole && !path.is_empty() {
            paths.push(path);
        }
    }
    paths
}

/// A path from the crate's root; `None` for one that leads out of the crate, or to a child by its name alone.
fn absolute(path: &[String], here: &Module) -> Option<Vec<String>> {
    let mut words = path.iter().map(String::as_str).peekable();
    let mut base = match words.next()? {
        "crate" => Vec::new(),
        "self" => here.0.clone(),
        "super" => {
            let mut base = here.0.clone();
            base.pop()?;
            base
        }
        _ => return None,
    };
    while words.next_if_eq(&"super").is_some() {
        base.pop()?;
    }
    base.extend(words.filter(|word| *word != "self").map(str::to_owned));
    Some(base)
}
