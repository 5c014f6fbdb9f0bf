//! `snug-agent`.
fn main() {}
