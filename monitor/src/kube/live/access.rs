//! Where the API server is, and who this is to it.

use std::{
    env,
    path::{Path, PathBuf},
};

use kube::{
    Client, Config,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};

use crate::config::Kubernetes;

/// The token of a pod's service account.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// Set in every pod (Kubernetes documentation, "Accessing the Kubernetes API from a Pod").
const HOST: &str = "KUBERNETES_SERVICE_HOST";

/// How to reach an API server.
#[derive(Clone, Debug)]
pub struct Access(Config);

/// Why an API server cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file of `kubectl`.
    #[error("--kubeconfig {}: {}", path.display(), super::fault::chain(source))]
    File {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        source: KubeconfigError,
    },
    /// What `kubectl` would use.
    #[error(
        "--kubernetes on: this is no pod with a service account, and KUBECONFIG or ~/.kube/config: {}",
        super::fault::chain(source)
    )]
    Default {
        /// What is wrong with it.
        source: KubeconfigError,
    },
    /// A pod's service account.
    #[error(
        "the pod's service account: {}; `--kubernetes off` runs without a cluster",
        super::fault::chain(source)
    )]
    InCluster {
        /// What is wrong with it.
        source: InClusterError,
    },
}

// === impl Access ===

impl Access {
    /// The API server that is asked for; `None` where none is.
    pub async fn find(
        wanted: Kubernetes,
        kubeconfig: Option<&Path>,
    ) -> Result<Option<Self>, AccessError> {
        if wanted == Kubernetes::Off {
            return Ok(None);
        }
        let options = KubeConfigOptions::default();
        if let Some(path) = kubeconfig {
            let failed = |source| AccessError::File {
                path: path.to_owned(),
                source,
            };
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            let config = Config::from_custom_kubeconfig(file, &options).await;
            return Ok(Some(Self::new(config.map_err(failed)?)));
        }
        if is_pod() {
            let config = Config::incluster().map_err(|source| AccessError::InCluster { source })?;
            return Ok(Some(Self::new(config)));
        }
        if wanted == Kubernetes::Auto {
            return Ok(None);
        }
        let config = Config::from_kubeconfig(&options).await;
        let config = config.map_err(|source| AccessError::Default { source })?;
        Ok(Some(Self::new(config)))
    }

    fn new(mut config: Config) -> Self {
        // Told apart in the server's audit log.
        let agent = concat!("nodewatch/", env!("CARGO_PKG_VERSION"));
        let agent = hyper::header::HeaderValue::from_static(agent);
        config.headers.push((hyper::header::USER_AGENT, agent));
        Self(config)
    }

    /// A server that is asked without encryption.
    #[cfg(test)]
    pub(super) fn plain(address: std::net::SocketAddr) -> Self {
        let url = format!("http://{address}");
        Self::new(Config::new(url.parse().expect("an address is one")))
    }

    /// The server's address.
    pub(super) fn server(&self) -> String {
        self.0.cluster_url.to_string()
    }

    /// A client with these credentials, which follows them as they are replaced.
    pub(super) fn client(&self) -> Result<Client, kube::Error> {
        Client::try_from(self.0.clone())
    }
}

/// Whether this is a pod with a service account.
fn is_pod() -> bool {
    env::var_os(HOST).is_some_and(|host| !host.is_empty()) && Path::new(TOKEN).exists()
}
