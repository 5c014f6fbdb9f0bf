//! What was given for each option, place by place.

use std::collections::BTreeMap;

use super::{
    errors::{ConfigError, Origin},
    kinds::{Kind, Raw},
};

/// What was given for one option in one place.
#[derive(Clone, Debug)]
struct Given {
    raw: Raw,
    origin: Origin,
}

/// Everything that was given, and what was wrong with it.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    /// By key, the strongest place first.
    given: BTreeMap<&'static str, Vec<Given>>,
    /// Where each value that is in force comes from.
    pub(super) origins: BTreeMap<&'static str, Origin>,
    pub(super) errors: Vec<ConfigError>,
}

impl Inputs {
    /// Adds what a place gives for an option; the strongest place comes first.
    pub(super) fn give(&mut self, key: &'static str, raw: Raw, origin: Origin) {
        self.given.entry(key).or_default().push(Given { raw, origin });
    }

    /// Reads one option from the strongest place. Weaker places are read too: a mistake there is still one.
    pub(super) fn read<K: Kind>(&mut self, key: &'static str, default: &str, kind: &K) -> Option<K::Value> {
        let mut places = self.given.remove(key).unwrap_or_default();
        if places.is_empty() {
            places.push(Given { raw: Raw::Text(default.to_owned()), origin: Origin::Default });
        }
        let mut strongest = None;
        for (place, Given { raw, origin }) in places.into_iter().enumerate() {
            match kind.parse(&raw) {
                Ok(value) if place == 0 => {
                    self.origins.insert(key, origin);
                    strongest = Some(value);
                }
                Ok(_) => {}
                Err(why) => {
                    let allowed = kind.allowed();
                    self.errors.push(ConfigError::Value { origin, key, value: raw.shown(), why, allowed });
                }
            }
        }
        strongest
    }

    /// Where the value in force comes from.
    pub(super) fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }
}
