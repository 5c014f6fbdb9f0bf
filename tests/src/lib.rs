//! Guards and helpers that the whole-system tests share.
