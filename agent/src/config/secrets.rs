//! Kinds of values that can have secrets. Neither the current configuration nor an error message shows them.

use hyper::header::{HeaderName, HeaderValue};

use super::kinds::{Kind, Pairs, Raw};

const HIDDEN: &str = "***";

/// An HTTP or HTTPS URL. Its user, password and query are secrets.
pub(super) struct Url;

impl Kind for Url {
    type Value = String;

    fn allowed(&self) -> String {
        "URL, such as http://collector.monitoring:4318".to_owned()
    }

    fn parse(&self, raw: &Raw) -> Result<String, String> {
        let text = raw.text()?;
        let url: hyper::Uri = text.parse().map_err(|error| format!("{error}"))?;
        match (url.scheme_str(), url.host()) {
            (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(text.to_owned()),
            _ => Err("the URL must begin with http:// or https:// and name a host".to_owned()),
        }
    }

    fn show(&self, value: &String) -> Option<toml::Value> {
        Some(without_secrets(value).into())
    }

    fn refused(&self, raw: &Raw) -> String {
        match raw {
            Raw::Text(text) => format!("{:?}", without_secrets(text)),
            Raw::List(_) => "(a list)".to_owned(),
        }
    }
}

/// A URL, or what was meant to be one, without its user, password and query.
pub fn without_secrets(url: &str) -> String {
    let (url, query) = url.split_once('?').map_or((url, ""), |(url, _)| (url, "?***"));
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let separator = if scheme.is_empty() { "" } else { "://" };
    // A password may have any characters where somebody has forgotten to encode them.
    let rest = rest.rsplit_once('@').map_or_else(|| rest.to_owned(), |(_, host)| format!("{HIDDEN}@{host}"));
    format!("{scheme}{separator}{rest}{query}")
}

/// HTTP headers as [`Pairs`]. Their values are secrets; so are names that no header can have.
pub(super) struct Headers;

impl Kind for Headers {
    type Value = Vec<(String, String)>;
    const LIST: bool = true;

    fn allowed(&self) -> String {
        Pairs.allowed()
    }

    fn parse(&self, raw: &Raw) -> Result<Self::Value, String> {
        let pairs = Pairs.parse(raw).map_err(|_| "not name=value, or not UTF-8".to_owned())?;
        for (number, (name, value)) in (1..).zip(&pairs) {
            if HeaderName::try_from(name).is_err() {
                return Err(format!(
                    "item {number} does not begin with the name of a header and an equals sign"
                ));
            }
            if HeaderValue::try_from(value).is_err() {
                return Err(format!(
                    "the value of item {number} has characters that are not allowed in headers"
                ));
            }
        }
        Ok(pairs)
    }

    fn show(&self, value: &Self::Value) -> Option<toml::Value> {
        let pair = |(name, _): &(String, String)| format!("{name}={HIDDEN}").into();
        Some(toml::Value::Array(value.iter().map(pair).collect()))
    }

    fn refused(&self, _: &Raw) -> String {
        HIDDEN.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls() {
        for (url, shown) in [
            ("http://a:4318/x", "http://a:4318/x"),
            ("https://user:pass@a:4318/x", "https://***@a:4318/x"),
            ("https://user:p@ss/word@a", "https://***@a"),
            ("https://a/x?key=secret", "https://a/x?***"),
            ("user:secret@a", "***@a"),
            ("", ""),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }

    const SECRET: &str = "s3cr3tT0ken";

    /// How a secret can be given, rightly or wrongly.
    fn headers() -> impl Strategy<Value = String> {
        let secret = prop::sample::select(vec![
            "Authorization=Bearer%20#",
            "Authorization: Bearer #",
            "Authorization: Bearer #==",
            "#",
            "#=",
            "=#",
            "a=#,b",
            "X-Key=#,Authorization: #=",
            "a=%ff#",
            "a=%0a#",
        ]);
        (secret, ".{0,10}").prop_map(|(form, noise)| format!("{}{noise}", form.replace('#', SECRET)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn no_value_of_a_header_is_shown(text in headers()) {
            for raw in [Raw::Text(text.clone()), Raw::List(vec![text])] {
                let shown = match Headers.parse(&raw) {
                    // A secret in the place of a name is one only to those who misread the documentation.
                    Ok(pairs) if pairs.iter().any(|(name, _)| name.contains(SECRET)) => String::new(),
                    Ok(pairs) => format!("{:?}", Headers.show(&pairs)),
                    Err(why) => format!("{} {why}", Headers.refused(&raw)),
                };
                prop_assert!(!shown.contains(SECRET), "{}", shown);
            }
        }

        #[test]
        fn no_password_is_shown(user in "[a-z]{0,5}", noise in "[a-z/@:%#]{0,8}", host in "[a-z.]{1,10}") {
            let raw = Raw::Text(format!("https://{user}:{SECRET}{noise}@{host}/path?token={SECRET}"));
            let shown = Url.parse(&raw).map(|url| format!("{:?}", Url.show(&url)));
            let shown = shown.unwrap_or_else(|why| format!("{} {why}", Url.refused(&raw)));
            prop_assert!(!shown.contains(SECRET), "{}", shown);
        }
    }
}
