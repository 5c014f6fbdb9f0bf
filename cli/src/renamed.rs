//! Fields of JSON output that were renamed. Both names are written for one version, the new one first.

use serde::{
    Serialize, Serializer,
    ser::{Error as _, SerializeMap as _},
};

fn under<S: Serializer>(
    names: [&'static str; 2],
    value: &impl Serialize,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(names.len()))?;
    names.iter().try_for_each(|name| map.serialize_entry(name, value))?;
    map.end()
}

/// `skipped`, formerly `withheld`.
pub(crate) fn skipped<S: Serializer>(value: &impl Serialize, serializer: S) -> Result<S::Ok, S::Error> {
    under(["skipped", "withheld"], value, serializer)
}

/// `warnings`, formerly `cautions`.
pub(crate) fn warnings<S: Serializer>(value: &impl Serialize, serializer: S) -> Result<S::Ok, S::Error> {
    under(["warnings", "cautions"], value, serializer)
}

/// The tag `violation`, formerly `objection`.
pub(crate) fn violation<S: Serializer>(value: &impl Serialize, serializer: S) -> Result<S::Ok, S::Error> {
    let mut value = serde_json::to_value(value).map_err(S::Error::custom)?;
    if let Some(tag) = value.get("violation").cloned() {
        value["objection"] = tag;
    }
    value.serialize(serializer)
}

/// `cpu_history_cores`, formerly `cpu_course_cores`; neither without `--last`.
pub(crate) fn cpu_history_cores<S: Serializer>(
    value: &Option<impl Serialize>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let value = value.as_ref().ok_or_else(|| S::Error::custom("there is no CPU history"))?;
    under(["cpu_history_cores", "cpu_course_cores"], value, serializer)
}
