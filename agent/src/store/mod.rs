//! The store: one writer, one published view.
pub mod published;
