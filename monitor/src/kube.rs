//! Kubernetes objects: from their JSON form to what the core works with.
//!
//! - [`decode`]: one object, checked as the API server would.
//! - [`manifests`]: files and directories of YAML and JSON.

pub mod decode;
pub mod manifests;
