//! A doc comment says more than the declaration below it: `/// The name.` above `name: String` is noise.

use std::collections::BTreeSet;

/// Words that add nothing.
const FILLERS: [&str; 27] = [
    "a", "all", "an", "and", "any", "are", "by", "each", "every", "for", "has", "how", "in", "is", "it",
    "its", "of", "one", "other", "that", "the", "these", "this", "those", "what", "which", "with",
];

/// Places where others read the text: the JSON schema of the API, and the help of options.
pub(crate) const SHOWN: [&str; 3] =
    ["agent/src/config/options.rs", "agent/src/exporters/api/", "cli/src/main.rs"];

/// Numbers of the lines with a doc comment of one line whose words are all in the declaration that follows. A comment with code, a
/// number or a dotted name says something.
pub(crate) fn empty_docs(text: &str) -> Vec<usize> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_comment = |line: Option<&&str>| line.is_some_and(|line| line.starts_with("//"));
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(doc) = line.strip_prefix("/// ") else { continue };
        let alone = !is_comment(index.checked_sub(1).and_then(|before| lines.get(before)))
            && !is_comment(lines.get(index + 1));
        let declaration = lines.iter().skip(index + 1).find(|line| !line.starts_with("#["));
        let names = words(declaration.and_then(|line| line.split('=').next()).unwrap_or_default());
        let plain = doc.trim_end_matches('.').chars().all(|c| c.is_alphabetic() || " ,-".contains(c));
        if alone && plain && words(doc).iter().all(|word| names.contains(word)) {
            found.push(index + 1);
        }
    }
    found
}

/// The words of a text without fillers, in lower case and without endings; `PodContainer` has two.
fn words(text: &str) -> BTreeSet<String> {
    let mut separated = String::new();
    for character in text.chars() {
        if character.is_uppercase() && !separated.ends_with(char::is_uppercase) {
            separated.push(' ');
        }
        separated.push(character);
    }
    let words = separated.split(|c: char| !c.is_alphabetic()).map(str::to_lowercase);
    words
        .filter(|word| !word.is_empty() && !FILLERS.contains(&word.as_str()))
        .map(|word| stem(&word))
        .collect()
}

fn stem(word: &str) -> String {
    let endings = ["ies", "es", "s", "ing", "ed"];
    let stems = endings.iter().filter_map(|ending| word.strip_suffix(ending));
    stems.filter(|stem| stem.len() > 2).min_by_key(|stem| stem.len()).unwrap_or(word).to_owned()
}

#[test]
fn what_says_nothing_is_found_and_the_rest_is_not() {
    let empty =
        ["/// The name.\nname: String,", "/// A pod container.\n#[derive(Debug)]\npub struct PodContainer {"];
    let useful = [
        "/// Bytes.\nlimit: u64,",
        "/// `shmem`.\nshmem_bytes: u64,",
        "/// The name.\n/// Unique on a node.\nname: String,",
        "/// Version 2.\nversion: u32,",
    ];
    for text in empty {
        assert_eq!(empty_docs(text), [1], "{text}");
    }
    for text in useful {
        assert!(empty_docs(text).is_empty(), "{text}");
    }
}
