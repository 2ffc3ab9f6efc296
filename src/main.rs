//! The `foretide` command.
fn main() {}
