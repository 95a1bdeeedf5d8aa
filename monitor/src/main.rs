//! nodewatch.
fn main() {}
