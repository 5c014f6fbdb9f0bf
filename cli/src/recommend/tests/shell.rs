//! How a shell reads the commands of `-o patch`.

use serde_json::Value;

/// The words of the commands in a script, without comments.
///
/// # Errors
/// For what is more than words and single quotes: such a script could do something else.
pub(super) fn commands(script: &str) -> Result<Vec<Vec<String>>, String> {
    let mut commands = Vec::new();
    for line in script.lines().filter(|line| !line.starts_with('#')) {
        let mut words: Vec<String> = Vec::new();
        let mut word: Option<String> = None;
        let mut is_quoted = false;
        for c in line.chars() {
            match c {
                '\'' => {
                    is_quoted = !is_quoted;
                    word.get_or_insert_default();
                }
                ' ' if !is_quoted => words.extend(word.take()),
                c if is_quoted || c.is_ascii_alphanumeric() || "-_./:%@,=".contains(c) => {
                    word.get_or_insert_default().push(c);
                }
                '&' | '>' if ["&&", ">", "%s\\n"].iter().any(|known| line.contains(known)) => {
                    word.get_or_insert_default().push(c);
                }
                other => return Err(format!("{other:?} in {line}")),
            }
        }
        if is_quoted {
            return Err(format!("an open quote in {line}"));
        }
        words.extend(word);
        commands.push(words);
    }
    Ok(commands)
}

/// Namespace, object and patch of each `kubectl patch` in a script.
///
/// # Errors
/// For any other command, and for an option that is none of these.
pub(super) fn patches(script: &str) -> Result<Vec<(String, String, Value)>, String> {
    let mut found = Vec::new();
    for words in commands(script)? {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (namespace, object, patch) = match words[..] {
            ["kubectl", "-n", namespace, "patch", object, "--type", "strategic", "--patch", patch]
            | [
                "kubectl",
                "-n",
                namespace,
                "patch",
                object,
                "--subresource",
                "resize",
                "--type",
                "strategic",
                "--patch",
                patch,
            ] => (namespace, object, patch),
            _ => return Err(format!("another command: {words:?}")),
        };
        let patch = serde_json::from_str(patch).map_err(|error| format!("{error} in {patch}"))?;
        found.push((namespace.to_owned(), object.to_owned(), patch));
    }
    Ok(found)
}
