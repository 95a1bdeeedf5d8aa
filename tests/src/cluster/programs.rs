//! The programs of Kubernetes: `cargo xtask kube` puts them into the cache directory.

pub use crate::lab::api_server::directory;

/// The first of these programs that is missing, with what brings it.
pub fn missing(names: &[&str]) -> Option<String> {
    let directory = directory();
    let name = names.iter().find(|name| !directory.join(name).is_file())?;
    Some(format!(
        "{} is missing: `cargo xtask kube` builds it (some minutes, once)",
        directory.join(name).display()
    ))
}
