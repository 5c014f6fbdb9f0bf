//! Edits of random YAML in random styles.

use proptest::prelude::*;

use snug::yaml::{
    Kind, New, Node, Step,
    edit::{Change, Edit, EditError, apply},
    parse,
};

fn edit(path: &[Step], change: Change) -> Edit {
    Edit { document: 0, path: path.to_vec(), change }
}

fn path(text: &str) -> Vec<Step> {
    text.split('.').map(|part| part.parse().map_or_else(|_| Step::from(part), Step::Index)).collect()
}

fn set(text: &str, at: &str, new: &str) -> Result<String, EditError> {
    apply(text, &[edit(&path(at), Change::Set(New::Text(new.to_owned())))])
}

fn remove(text: &str, at: &str) -> Result<String, EditError> {
    apply(text, &[edit(&path(at), Change::Remove)])
}

#[test]
fn only_the_value_changes() {
    for (old, at, new, expected) in [
        ("a: 1 # one\nb: 2\n", "a", "3", "a: 3 # one\nb: 2\n"),
        ("a:   '1'\r\nb: 2\r\n", "a", "5m", "a:   '5m'\r\nb: 2\r\n"),
        ("a: \"1\"", "a", "5m", "a: \"5m\""),
        ("a: {b: 1, c: 2}\n", "a.b", "250m", "a: {b: 250m, c: 2}\n"),
        ("a: &x 1\nb: 2\n", "b", "7", "a: &x 1\nb: 7\n"),
        ("a: &x 1\nb: *x\n", "b", "7m", "a: &x 1\nb: 7m\n"),
        ("- a: 1\n  b: 2\n", "0.b", "3", "- a: 1\n  b: 3\n"),
        ("a:\n# why\n  b:\n    c: 1\n", "a.b.c", "2", "a:\n# why\n  b:\n    c: 2\n"),
        ("\u{feff}a: 1\n", "a", "2", "\u{feff}a: 2\n"),
        ("%YAML 1.2\n---\na: 1\n...\n", "a", "2", "%YAML 1.2\n---\na: 2\n...\n"),
        ("{\"a\": {\"b\": \"1\"}}", "a.b", "2", "{\"a\": {\"b\": \"2\"}}"),
        ("a: ~ # none\n", "a", "5m", "a: 5m # none\n"),
        ("a: # none\nb: 1\n", "a", "5m", "a: 5m # none\nb: 1\n"),
        ("a:\nb: 1\n", "a", "5m", "a: 5m\nb: 1\n"),
    ] {
        assert_eq!(set(old, at, new).as_deref(), Ok(expected), "{old:?}");
    }
}

#[test]
fn missing_entries_are_inserted_in_the_style_around_them() {
    for (old, at, expected) in [
        ("a:\n  b: 1 # one\nc: 2\n", "a.x", "a:\n  b: 1 # one\n  x: 5m\nc: 2\n"),
        ("a:\n  b: 1", "a.x", "a:\n  b: 1\n  x: 5m"),
        ("a:\r\n    b: 1\r\n", "a.x", "a:\r\n    b: 1\r\n    x: 5m\r\n"),
        ("a:\n- n: 1\n  m: 2\n- n: 3\n", "a.0.x.z", "a:\n- n: 1\n  m: 2\n  x:\n    z: 5m\n- n: 3\n"),
        ("a: {}\nb: 1\n", "a.x", "a:\n  x: 5m\nb: 1\n"),
        ("a: {} # none yet\nb: 1\n", "a.x", "a: # none yet\n  x: 5m\nb: 1\n"),
        ("a: # none yet\nb: 1\n", "a.x", "a: # none yet\n  x: 5m\nb: 1\n"),
        ("a:\nb: 1\n", "a.x.z", "a:\n  x:\n    z: 5m\nb: 1\n"),
        ("a: {b: 1}\n", "a.x", "a: {b: 1, x: 5m}\n"),
        ("a: {b: {}}\n", "a.b.x", "a: {b: {x: 5m}}\n"),
        ("{\"a\": {\"b\": 1}}", "a.x", "{\"a\": {\"b\": 1, \"x\": \"5m\"}}"),
        (
            "{\n  \"a\": {\n    \"b\": 1\n  }\n}\n",
            "a.x",
            "{\n  \"a\": {\n    \"b\": 1,\n    \"x\": \"5m\"\n  }\n}\n",
        ),
        ("a:\n  t: |\n    text\nb: 1\n", "a.x", "a:\n  t: |\n    text\n  x: 5m\nb: 1\n"),
        ("a: [1, 2]\n", "a.2", "a: [1, 2, 5m]\n"),
        ("a:\n  - 1 # one\nb: 2\n", "a.1", "a:\n  - 1 # one\n  - 5m\nb: 2\n"),
        ("a:\n  b:\n    c:\n", "a.b.d", "a:\n  b:\n    c:\n    d: 5m\n"),
        ("a: &s {b: 1}\nc: *s\n", "c.x", "a: &s {b: 1}\nc:\n  b: \"1\"\n  x: 5m\n"),
        ("a: &s\n  b: 1m\nc:\n  <<: *s\n", "c.b", "a: &s\n  b: 1m\nc:\n  <<: *s\n  b: 5m\n"),
    ] {
        assert_eq!(set(old, at, "5m").as_deref(), Ok(expected), "{old:?}");
    }
}

#[test]
fn entries_are_removed_with_their_lines() {
    for (old, at, expected) in [
        ("a:\n  b: 1\n  # two\n  c: 2 # three\nd: 3\n", "a.c", "a:\n  b: 1\n  # two\nd: 3\n"),
        ("a:\n  b:\n    c: 1\n  d: 2", "a.d", "a:\n  b:\n    c: 1"),
        ("a: {b: 1, c: 2, d: 3}\n", "a.c", "a: {b: 1, d: 3}\n"),
        ("a: {b: 1, c: 2}\n", "a.c", "a: {b: 1}\n"),
        ("a: {b: 1, c: 2}\n", "a.b", "a: {c: 2}\n"),
        ("a: {b: 1}\n", "a.b", "a: {}\n"),
        ("- b: 1\n  c: 2\n", "0.b", "- c: 2\n"),
        ("a:\r\n  b: 1\r\n  c: 2\r\n", "a.b", "a:\r\n  c: 2\r\n"),
    ] {
        assert_eq!(remove(old, at).as_deref(), Ok(expected), "{old:?}");
    }
}

#[test]
fn what_others_share_is_not_changed() {
    for (text, at) in [("a: &s {b: 1}\nc: *s\n", "a.b"), ("a: &s\n  b: 1\nc:\n  <<: *s\n", "a.b")] {
        assert!(matches!(set(text, at, "2"), Err(EditError::Shared { .. })), "{text:?}");
    }
    let merged = "a: &s\n  b: 1\nc:\n  <<: *s\n  d: 2\n";
    assert!(remove(merged, "c.b").is_err());
    for (text, at) in [("a: 1\n", "a.b"), ("a: [1]\n", "a.b"), ("a: [1]\n", "a.5"), ("a: |\n  text\n", "a.b")]
    {
        assert!(set(text, at, "2").is_err(), "{text:?}");
    }
}

#[test]
fn texts_are_edited_where_they_are() {
    let old = "patches:\n- target: {kind: Deployment}\n  patch: |-\n    # why\n    a:\n      b: 1 # one\n\n      c: 2\n- path: x\n";
    let at = |steps: &str| {
        let mut path = path("patches.0.patch");
        path.push(Step::Text);
        path.extend(self::path(steps));
        path
    };
    let edits = [
        edit(&at("a.b"), Change::Set(New::Text("5m".to_owned()))),
        edit(&at("a.d"), Change::Set(New::Text("6m".to_owned()))),
    ];
    let new = apply(old, &edits).unwrap();
    assert_eq!(
        new,
        "patches:\n- target: {kind: Deployment}\n  patch: |-\n    # why\n    a:\n      b: 5m # one\n\n      c: 2\n      d: 6m\n- path: x\n"
    );
    assert!(apply(&old.replace("|-", ">-"), &edits).is_err(), "a folded text has other lines");
    let crlf = old.replace('\n', "\r\n");
    assert_eq!(apply(&crlf, &edits).unwrap(), new.replace('\n', "\r\n"));
    let at_end = "p: |\n  a: 1\n  b: 2";
    let path = [Step::from("p"), Step::Text, Step::from("c")];
    assert_eq!(
        apply(at_end, &[edit(&path, Change::Set(New::Text("5m".to_owned())))]).unwrap(),
        "p: |\n  a: 1\n  b: 2\n  c: 5m"
    );
}

#[test]
fn documents_are_edited_on_their_own() {
    let text = "# one\na: 1\n---\n# two\na: 1\n---\n\na: 1\n";
    let edits = [Edit { document: 1, ..edit(&path("a"), Change::Set(New::Text("2".to_owned()))) }];
    assert_eq!(apply(text, &edits).unwrap(), "# one\na: 1\n---\n# two\na: 2\n---\n\na: 1\n");
    assert_eq!(apply(text, &[]).unwrap(), text);
}

#[test]
fn what_is_no_yaml_is_an_error() {
    for text in ["a: [", "a: 1\na: 2\n", "{a: b}: c\n", "a: *b\n", "a: {{ .Values.x }}\n"] {
        assert!(parse(text).is_err(), "{text:?}");
    }
    let bomb = (0..40).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| {
        format!("{text}a{}: &a{} [*a{n}, *a{n}]\n", n + 1, n + 1)
    });
    assert!(parse(&bomb).unwrap()[0].value().is_err());
}

/// A tree in some style, as text.
#[derive(Clone, Debug)]
enum Tree {
    Scalar(String),
    Map(Vec<(String, Tree)>, Style),
    List(Vec<Tree>, Style),
}

#[derive(Clone, Debug)]
struct Style {
    is_flow: bool,
    /// A comment and its place.
    comment: Option<(bool, String)>,
    is_indented: bool,
}

fn style() -> impl Strategy<Value = Style> {
    (prop::bool::weighted(0.3), prop::option::of((any::<bool>(), "[ -~]{0,9}")), any::<bool>())
        .prop_map(|(is_flow, comment, is_indented)| Style { is_flow, comment, is_indented })
}

fn tree() -> impl Strategy<Value = Tree> {
    let scalar = prop_oneof![
        "[a-z]{1,6}",
        "[0-9]{1,4}",
        Just("''".to_owned()),
        Just("~".to_owned()),
        "'[a-z #:,]{0,6}'",
        "\"[a-z #:,\u{e9}]{0,6}\"",
        Just("{}".to_owned()),
        Just(String::new()),
    ];
    let leaf = scalar.prop_map(Tree::Scalar);
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            (prop::collection::btree_map("[a-k]{1,2}", inner.clone(), 1..5), style())
                .prop_map(|(map, style)| Tree::Map(map.into_iter().collect(), style)),
            (prop::collection::vec(inner, 1..4), style()).prop_map(|(items, style)| Tree::List(items, style)),
        ]
    })
}

/// Text in flow style.
fn flow(tree: &Tree) -> String {
    let scalar = |text: &str| if text.is_empty() { "null".to_owned() } else { text.to_owned() };
    match tree {
        Tree::Scalar(text) => scalar(text),
        Tree::Map(entries, _) => {
            let all: Vec<String> =
                entries.iter().map(|(key, tree)| format!("{key}: {}", flow(tree))).collect();
            format!("{{ {} }}", all.join(", "))
        }
        Tree::List(items, _) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
    }
}

/// Text behind a key or a dash, with a line end.
fn block(tree: &Tree, indent: usize, is_item: bool) -> String {
    let comment = |style: &Style| match &style.comment {
        Some((true, text)) => format!(" # {text}"),
        _ => String::new(),
    };
    let above = |style: &Style, pad: &str| match &style.comment {
        Some((false, text)) => format!("{pad}# {text}\n\n"),
        _ => String::new(),
    };
    match tree {
        Tree::Scalar(text) if text.is_empty() => "\n".to_owned(),
        Tree::Scalar(text) => format!(" {text}\n"),
        Tree::Map(_, style) | Tree::List(_, style) if style.is_flow => {
            format!(" {}{}\n", flow(tree), comment(style))
        }
        Tree::Map(entries, style) => {
            let below = if is_item { indent } else { indent + 2 };
            let pad = " ".repeat(below);
            let body: Vec<String> = entries
                .iter()
                .map(|(key, tree)| format!("{pad}{key}:{}", block(tree, below, false)))
                .collect();
            if is_item {
                format!(" {}", body.concat().trim_start())
            } else {
                format!("{}\n{}{}", comment(style), above(style, &pad), body.concat())
            }
        }
        Tree::List(items, style) => {
            let below = indent + if style.is_indented || is_item { 2 } else { 0 };
            let pad = " ".repeat(below);
            let body: Vec<String> =
                items.iter().map(|tree| format!("{pad}-{}", block(tree, below + 2, true))).collect();
            format!("{}\n{}{}", comment(style), above(style, &pad), body.concat())
        }
    }
}

/// Each path of a tree, that of the root first.
fn paths(node: &Node, path: &mut Vec<Step>, found: &mut Vec<Vec<Step>>) {
    found.push(path.clone());
    let below: Vec<(Step, &Node)> = match &node.kind {
        Kind::Mapping { entries, .. } => {
            entries.iter().map(|(key, value)| (Step::from(key.text().unwrap()), value)).collect()
        }
        Kind::Sequence { items, .. } => {
            items.iter().enumerate().map(|(n, item)| (Step::from(n), item)).collect()
        }
        _ => Vec::new(),
    };
    for (step, node) in below {
        path.push(step);
        paths(node, path, found);
        path.pop();
    }
}

/// Lines that two texts have in common at their begin and at their end.
fn common(old: &str, new: &str) -> (usize, usize) {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.split('\n').collect(), new.split('\n').collect());
    let begin = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let end = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
    (begin, end)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]
    #[test]
    fn a_random_document_differs_at_the_changed_path_alone(
        entries in prop::collection::btree_map("[a-k]{1,2}", tree(), 1..6),
        pick in any::<prop::sample::Index>(),
        action in 0..4_u8,
        is_crlf in any::<bool>(),
        has_end in any::<bool>(),
        is_second in any::<bool>(),
    ) {
        let mut text: String = entries.iter().map(|(key, tree)| format!("{key}:{}", block(tree, 0, false))).collect();
        let mut number = 0;
        if is_second {
            text = format!("# first\nx: 1\n---\n{text}");
            number = 1;
        }
        if is_crlf {
            text = text.replace('\n', "\r\n");
        }
        if !has_end {
            text.truncate(text.trim_end().len());
        }
        let documents = parse(&text).unwrap();
        let document = &documents[number];
        let old = document.value().unwrap();
        let mut found = Vec::new();
        paths(&document.root, &mut Vec::new(), &mut found);
        let path = pick.get(&found).clone();
        let node = document.root.at(&path).unwrap();
        let mut expected = old.clone();
        // What is changed: a scalar, a new entry, a new item, or a removed entry.
        let (path, change) = match (&node.kind, action) {
            (Kind::Scalar { .. }, 0 | 1) if !path.is_empty() => (path, Change::Set(New::Text("250m".to_owned()))),
            (Kind::Sequence { items, .. }, 0..=2) => {
                let at = items.len();
                ([path, vec![Step::Index(at)]].concat(), Change::Set(New::Map(vec![("n".to_owned(), New::Text("v".to_owned()))])))
            }
            (Kind::Mapping { .. }, 0..=2) => {
                ([path, vec!["limits".into(), "cpu".into()]].concat(), Change::Set(New::Text("250m".to_owned())))
            }
            (Kind::Scalar { .. }, _) if node.is_null() && !path.is_empty() && action == 2 => {
                ([path, vec!["limits".into(), "cpu".into()]].concat(), Change::Set(New::Text("250m".to_owned())))
            }
            _ if matches!(path.last(), Some(Step::Key(_))) => (path, Change::Remove),
            _ => return Ok(()),
        };
        let is_done = match &change {
            Change::Set(new) => expected.set(&path, new.value()),
            Change::Remove => expected.remove(&path),
        };
        prop_assert!(is_done);
        let edit = Edit { document: number, path: path.clone(), change: change.clone() };
        let new = match apply(&text, std::slice::from_ref(&edit)) {
            Ok(new) => new,
            Err(EditError::Unsupported { why: "an empty item is there", .. }) => return Ok(()),
            // The last entry of a mapping in block style goes with the mapping.
            Err(EditError::Unsupported { why, .. }) if change == Change::Remove => {
                prop_assert!(why.contains("only entry") || why.contains("line of another"), "{why}: {text:?}");
                return Ok(());
            }
            Err(error) => return Err(TestCaseError::fail(format!("{error}: {edit:?} {text:?}"))),
        };
        let after = parse(&new).unwrap();
        prop_assert_eq!(&after[number].value().unwrap(), &expected, "{:?} {}", edit, new);
        if is_second {
            prop_assert_eq!(after[0].value().unwrap(), documents[0].value().unwrap());
        }
        // Lines before and after what is there of the path are the same, byte for byte.
        let there = (0..=path.len()).rev().find_map(|n| document.root.at(&path[..n]).map(|node| (n, node))).unwrap();
        let line = |at: usize| text[..at].matches('\n').count();
        let source = document.range.start;
        prop_assert!(source <= there.1.range.start);
        let first = document.line(&path[..there.0]) - 1;
        let last = line(there.1.range.end);
        let (begin, end) = common(&text, &new);
        // A removed last line takes the end of the line before it; a line behind the last one gives it one.
        // An entry behind a dash makes room for the next one.
        let slack = usize::from(!has_end) + usize::from(is_crlf && !has_end) + usize::from(change == Change::Remove);
        prop_assert!(begin + slack >= first, "line {first} of {text:?} {new:?}");
        let lines = text.split('\n').count();
        prop_assert!(end + last + 1 + slack >= lines, "{end} after {last} of {lines}: {text:?} {new:?}");
        if is_crlf && text.contains("\r\n") {
            prop_assert_eq!(new.matches('\n').count(), new.matches("\r\n").count());
        }
        // A second time changes nothing.
        if let Change::Set(New::Text(_)) = change {
            prop_assert_eq!(apply(&new, &[edit]).unwrap(), new);
        }
    }
}
