//! Filters in queries of the API.

/// Whether a name matches a filter. `None` matches every name.
pub(super) fn matches_filter(filter: &Option<String>, name: Option<&str>) -> bool {
    filter.is_none() || filter.as_deref() == name
}
