//! The live cluster, where there is one and this build can watch it.

use monitor_core::engine::{Input, KubernetesStatus};
use tokio::sync::mpsc;

use crate::config::Config;

pub(super) use imp::{ClusterError, Source, find};

#[cfg(feature = "kube")]
mod imp {
    use super::{Config, Input, KubernetesStatus, mpsc};
    use crate::kube::live::{Access, AccessError, Live};

    /// Why the cluster cannot be asked.
    pub(in crate::runtime) type ClusterError = AccessError;

    /// The cluster; none where none is watched.
    pub(in crate::runtime) struct Source(Option<Live>);

    /// Finds the cluster that is to be watched.
    pub(in crate::runtime) async fn find(config: &Config) -> Result<Source, ClusterError> {
        let access = Access::find(config.kubernetes, config.kubeconfig.as_deref()).await?;
        Ok(Source(access.map(Live::new)))
    }

    impl Source {
        /// What is known of it before it was asked.
        pub(in crate::runtime) fn status(&self) -> Option<KubernetesStatus> {
            self.0.as_ref().map(Live::status)
        }

        /// Starts to watch it.
        pub(in crate::runtime) fn start(self, inputs: &mpsc::Sender<Input>) {
            if let Some(live) = self.0 {
                tracing::info!(server = live.status().server, "watching the cluster");
                tokio::spawn(live.run(inputs.downgrade()));
            }
        }
    }
}

#[cfg(not(feature = "kube"))]
mod imp {
    use super::{Config, Input, KubernetesStatus, mpsc};
    use crate::config::Kubernetes;

    /// Why the cluster cannot be asked.
    #[derive(Debug, thiserror::Error)]
    #[error("--kubernetes: this build cannot watch a cluster (feature `kube`)")]
    pub struct ClusterError;

    /// No cluster.
    pub(in crate::runtime) struct Source;

    /// Refuses to watch a cluster that is asked for.
    #[expect(clippy::unused_async, reason = "as with the feature")]
    pub(in crate::runtime) async fn find(config: &Config) -> Result<Source, ClusterError> {
        let is_asked_for = config.kubernetes == Kubernetes::On
            || config.kubernetes == Kubernetes::Auto && config.kubeconfig.is_some();
        if is_asked_for {
            return Err(ClusterError);
        }
        Ok(Source)
    }

    impl Source {
        #[expect(clippy::unused_self, reason = "as with the feature")]
        pub(in crate::runtime) fn status(&self) -> Option<KubernetesStatus> {
            None
        }

        #[expect(clippy::unused_self, reason = "as with the feature")]
        pub(in crate::runtime) fn start(self, _: &mpsc::Sender<Input>) {}
    }
}
