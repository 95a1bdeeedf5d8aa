//! Objects of a live cluster, from its API server.
//!
//! Each kind is listed and watched by a task of its own ([`reflector`]), so that a right that is
//! missing costs no other kind. Objects are read without what is not needed ([`seen`]), and become
//! changes for the engine at once ([`known`]); of each only its name and a digest stay here.
//!
//! A list is a transaction: what it does not have is gone. Pods come last when the daemon starts, so
//! that no connection is judged by half of what is declared.

mod access;
mod fault;
mod known;
mod reflector;
mod report;
mod resource;
mod seen;

use std::sync::Arc;

use monitor_core::engine::{Input, KubernetesStatus, ResourceStatus, WatchState};
use tokio::sync::mpsc;

pub use access::{Access, AccessError};
pub use resource::RESOURCES;

use fault::{Backoff, Fault};
use reflector::Reflector;
use report::Report;

/// Where an API server is, and who this is to it.
#[derive(Clone, Debug)]
pub struct Live {
    access: Access,
}

// === impl Live ===

impl Live {
    /// Watches by this access.
    pub fn new(access: Access) -> Self {
        Self { access }
    }

    /// The state before anything was asked.
    pub fn status(&self) -> KubernetesStatus {
        KubernetesStatus {
            server: self.access.server(),
            resources: RESOURCES
                .iter()
                .map(|resource| ResourceStatus::new(resource.name))
                .collect(),
        }
    }

    /// A client, once the credentials can be used: what provides them may fail for a while.
    async fn client(&self, report: &Report) -> kube::Client {
        let mut backoff = Backoff::new();
        loop {
            let fault = match self.access.client() {
                Ok(client) => return client,
                Err(error) => Fault::from(error),
            };
            for index in 0..RESOURCES.len() {
                report.failed(index, &fault, WatchState::Stale);
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// Watches until the engine is gone. `inputs` does not keep it from ending.
    pub async fn run(self, inputs: mpsc::WeakSender<Input>) {
        let report = Arc::new(Report::new(self.status()));
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(report::tell(Arc::clone(&report), inputs.clone()));
        let client = tokio::select! {
            client = self.client(&report) => client,
            _ = tasks.join_next() => return,
        };
        for (index, resource) in RESOURCES.iter().enumerate() {
            let (report, inputs) = (Arc::clone(&report), inputs.clone());
            let client = client.clone();
            tasks.spawn(async move {
                Reflector::new(resource, index, client, report, inputs)
                    .run()
                    .await;
            });
        }
        // One ends when the engine is gone; dropping the others ends them.
        tasks.join_next().await;
    }
}

#[cfg(test)]
mod tests;
