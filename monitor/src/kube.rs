//! Kubernetes objects: from their JSON form to what the core works with.
//!
//! - [`decode`]: one object, checked as the API server would.
//! - [`manifests`]: files and directories of YAML and JSON.
//! - `live`: a cluster's API server (feature `kube`).

pub mod decode;
#[cfg(feature = "kube")]
pub mod live;
pub mod manifests;
