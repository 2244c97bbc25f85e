//! The `stratafs` command.
fn main() {}
