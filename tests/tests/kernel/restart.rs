//! x
pub(crate) fn entry() {}
