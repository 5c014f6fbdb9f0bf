//! The `snug` command.
fn main() {}
