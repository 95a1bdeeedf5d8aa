//! Which kinds of objects are watched.

/// A kind of object as the API server knows it.
#[derive(Debug)]
pub struct Resource {
    /// Its name in the API: plural, lower case.
    pub name: &'static str,
    /// Its group; empty for the core group.
    pub group: &'static str,
    /// Versions that can be read, the best first: servers have some of them.
    pub versions: &'static [&'static str],
    /// `kind` of its objects, which a list leaves out.
    pub kind: &'static str,
    /// Whether its first list is handed on only after those of all others: what the objects are
    /// judged by is to be known before them.
    pub(super) is_last: bool,
}

/// Every kind that is watched. The rights to list and watch them are in `deploy`.
pub const RESOURCES: &[Resource] = &[
    Resource::new("namespaces", "", &["v1"], "Namespace"),
    Resource::new("nodes", "", &["v1"], "Node"),
    Resource::new("services", "", &["v1"], "Service"),
    // Servers before 1.21 have only the beta version.
    Resource::new(
        "endpointslices",
        "discovery.k8s.io",
        &["v1", "v1beta1"],
        "EndpointSlice",
    ),
    Resource::new(
        "networkpolicies",
        "networking.k8s.io",
        &["v1"],
        "NetworkPolicy",
    ),
    Resource::new(
        "adminnetworkpolicies",
        "policy.networking.k8s.io",
        &["v1alpha1"],
        "AdminNetworkPolicy",
    ),
    Resource::new(
        "baselineadminnetworkpolicies",
        "policy.networking.k8s.io",
        &["v1alpha1"],
        "BaselineAdminNetworkPolicy",
    ),
    Resource::new(
        "clusternetworkpolicies",
        "policy.networking.k8s.io",
        &["v1beta1", "v1alpha2"],
        "ClusterNetworkPolicy",
    ),
    Resource {
        is_last: true,
        ..Resource::new("pods", "", &["v1"], "Pod")
    },
];

// === impl Resource ===

impl Resource {
    const fn new(
        name: &'static str,
        group: &'static str,
        versions: &'static [&'static str],
        kind: &'static str,
    ) -> Self {
        Self {
            name,
            group,
            versions,
            kind,
            is_last: false,
        }
    }

    /// Path of all its objects in all namespaces.
    pub(super) fn path(&self, version: &str) -> String {
        match self.group {
            "" => format!("/api/{version}/{}", self.name),
            group => format!("/apis/{group}/{version}/{}", self.name),
        }
    }

    /// `apiVersion` of its objects.
    pub(super) fn api_version(&self, version: &str) -> String {
        match self.group {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        }
    }
}
