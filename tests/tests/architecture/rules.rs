//! Each rule of advice has code, a proof and a paragraph of documentation.

/// The rules of one `rules!` block.
#[derive(Debug, PartialEq)]
struct Rules {
    name: String,
    rules: Vec<String>,
}

/// The `rules!` block of a file; `None` without one.
fn block(text: &str) -> Option<Rules> {
    let (_, block) = text.split_once("rules! {")?;
    let code = block.lines().map(str::trim).filter(|line| !line.starts_with("//") && !line.is_empty());
    let mut code = code.filter(|line| !line.starts_with("#["));
    let name = code.next()?.trim_end_matches('{').split_whitespace().next_back()?.to_owned();
    let rules = code.map_while(|line| line.strip_suffix(',').map(str::to_owned)).collect();
    Some(Rules { name, rules })
}

/// What rules lack. `code` are the sources of the crate, `documentation` is `docs/recommendations.md`.
fn missing(Rules { name, rules }: &Rules, code: &str, documentation: &str) -> Vec<String> {
    let code: String = code.split_whitespace().collect();
    let documentation = documentation.split_whitespace().collect::<Vec<_>>().join(" ");
    let lacks = |rule: &String| {
        let has = [
            (code.contains(&format!("{name}::{rule}.is_on()")), "code behind `is_on()`"),
            (code.contains(&format!("{name}::{rule}.prove(")), "test with `prove`"),
            (
                documentation.contains(&format!("(Rule `{rule}`")),
                "paragraph in docs/recommendations.md that ends with (Rule `…`.)",
            ),
        ];
        has.into_iter()
            .filter(|(has, _)| !has)
            .map(|(_, what)| format!("{name}::{rule}: no {what}"))
            .collect::<Vec<_>>()
    };
    rules.iter().flat_map(lacks).collect()
}

/// Names that occur several times.
fn several(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    let mut found: Vec<String> =
        names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone()).collect();
    found.dedup();
    found
}

#[test]
fn each_rule_of_advice_has_code_a_proof_and_a_paragraph() {
    let documentation = std::fs::read_to_string(crate::root().join("docs/recommendations.md")).unwrap();
    let (mut lacks, mut names) = (Vec::new(), Vec::new());
    for (folder, enums) in [("agent/src", 1), ("cli/src", 1), ("sizing/src", 2)] {
        let sources = crate::sources(folder);
        let code: String = sources.iter().map(|(_, text)| text.as_str()).collect();
        let blocks: Vec<Rules> = sources
            .iter()
            .filter(|(path, _)| !path.ends_with("sizing/src/rules.rs"))
            .filter_map(|(_, text)| block(text))
            .collect();
        assert_eq!(blocks.len(), enums, "{folder}: {blocks:?}");
        assert!(blocks.iter().all(|rules| !rules.rules.is_empty()), "{blocks:?}");
        lacks.extend(blocks.iter().flat_map(|rules| missing(rules, &code, &documentation)));
        names.extend(blocks.into_iter().flat_map(|rules| rules.rules));
    }
    // The documentation names rules without their enum.
    lacks.extend(several(names).into_iter().map(|name| format!("several enums have a rule {name}")));
    assert!(lacks.is_empty(), "{}", lacks.join("\n"));
}

#[test]
fn a_rule_without_one_of_them_is_found() {
    let text = "rules! {\n    /// Rules.\n    pub(crate) Some {\n        /// A rule,\n        One,\n        Two,\n    }\n}\n";
    let rules = block(text).unwrap();
    assert_eq!(rules, Rules { name: "Some".to_owned(), rules: vec!["One".to_owned(), "Two".to_owned()] });
    let code = "if Some::One.is_on() {}\nSome::One\n    .prove(&cases);";
    assert_eq!(missing(&rules, code, "One is so. (Rule\n`One`.)").len(), 3, "all of Two");
    assert_eq!(missing(&rules, code, "").len(), 4);
    assert_eq!(block("fn main() {}"), None);
    assert_eq!(several(["One", "Two", "One", "One"].map(str::to_owned).into()), ["One"]);
}
