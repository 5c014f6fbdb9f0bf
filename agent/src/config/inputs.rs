//! The values given for each option, by source.

use std::collections::BTreeMap;

use super::{
    errors::{ConfigError, OptionOrigin},
    kinds::{Kind, Raw},
};

/// A value given for one option in one source.
#[derive(Clone, Debug)]
struct Given {
    raw: Raw,
    origin: OptionOrigin,
}

/// All given values, and the errors in them.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    /// By key, the source with the highest precedence first.
    given: BTreeMap<&'static str, Vec<Given>>,
    /// The origin of each current value.
    pub(super) origins: BTreeMap<&'static str, OptionOrigin>,
    pub(super) errors: Vec<ConfigError>,
}

impl Inputs {
    /// Adds a value for an option. Sources must add theirs in the order of precedence.
    pub(super) fn give(&mut self, key: &'static str, raw: Raw, origin: OptionOrigin) {
        self.given.entry(key).or_default().push(Given { raw, origin });
    }

    /// Reads one option from the source with the highest precedence. Overridden values are parsed too: an error in them is reported.
    pub(super) fn read<K: Kind>(&mut self, key: &'static str, default: &str, kind: &K) -> Option<K::Value> {
        let mut values = self.given.remove(key).unwrap_or_default();
        if values.is_empty() {
            values.push(Given { raw: Raw::Text(default.to_owned()), origin: OptionOrigin::Default });
        }
        let mut current = None;
        for (rank, Given { raw, origin }) in values.into_iter().enumerate() {
            match kind.parse(&raw) {
                Ok(value) if rank == 0 => {
                    self.origins.insert(key, origin);
                    current = Some(value);
                }
                Ok(_) => {}
                Err(why) => {
                    let allowed = kind.allowed();
                    self.errors.push(ConfigError::Value {
                        origin,
                        key,
                        value: kind.refused(&raw),
                        why,
                        allowed,
                    });
                }
            }
        }
        current
    }

    /// The origin of the current value.
    pub(super) fn origin(&self, key: &str) -> OptionOrigin {
        self.origins.get(key).cloned().unwrap_or(OptionOrigin::Default)
    }
}
