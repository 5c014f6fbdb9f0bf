//! What queries of the API have in common.

/// Whether a name is the one asked for, if one is.
pub(super) fn is_wanted(wanted: &Option<String>, name: Option<&str>) -> bool {
    wanted.is_none() || wanted.as_deref() == name
}
