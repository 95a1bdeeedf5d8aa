//! Interfaces that come, change and go.

use std::{sync::Arc, time::Duration};

use monitor_common::abi::Interface;
use monitor_core::{account::InterfaceAccount, engine::Input, event::Point};

use super::{Live, LiveError, Watched};
use crate::source::{
    ebpf::{attach::AttachError, error::AccessError, kernel::Kernel},
    links::Link,
};

/// Longer than a packet takes through the programs.
const GRACE: Duration = Duration::from_millis(2);

// === impl Live ===

impl Live {
    /// Reads all interfaces, addresses and routes, and watches what is to be watched. At the start
    /// an uplink that does not exist is an error; later it may come back.
    pub(super) async fn resync(&mut self, start: bool) -> Result<(), LiveError> {
        let links = self.links.links().await?;
        if start {
            for uplink in self.options.selection.uplinks() {
                if !links.iter().any(|link| link.name == *uplink) {
                    return Err(LiveError::UnknownUplink(uplink.clone()));
                }
            }
        }
        let gone: Vec<u32> = self
            .watched
            .keys()
            .copied()
            .filter(|ifindex| !links.iter().any(|link| link.ifindex == *ifindex))
            .collect();
        for ifindex in gone {
            self.on_gone(ifindex).await?;
        }
        self.read_addresses().await?;
        for link in links {
            self.on_link(link).await?;
        }
        Ok(())
    }

    /// Addresses or routes changed: the uplink may be another one.
    pub(super) async fn on_addresses(&mut self) -> Result<(), LiveError> {
        let before = self.default_routes.clone();
        self.read_addresses().await?;
        if self.default_routes != before {
            for link in self.links.links().await? {
                self.on_link(link).await?;
            }
        }
        Ok(())
    }

    async fn read_addresses(&mut self) -> Result<(), LiveError> {
        self.default_routes = self.links.default_route_links().await?;
        let addresses = self.links.addresses().await?;
        self.send(Input::Addresses(addresses)).await
    }

    /// An interface is there: watches it if it is to be watched, or no longer if not.
    pub(super) async fn on_link(&mut self, link: Link) -> Result<(), LiveError> {
        let has_default_route = self.default_routes.contains(&link.ifindex);
        let wanted = self.options.selection.point(&link.name, has_default_route);
        match (wanted, self.watched.get(&link.ifindex)) {
            (None, None) => Ok(()),
            (None, Some(_)) => self.unwatch(link.ifindex).await,
            (Some(point), None) => self.start(&link, point).await,
            (Some(point), Some(watched)) => {
                let same = watched.account.point == point && *watched.account.name == link.name;
                if same && watched.account.covered {
                    return Ok(());
                }
                if !same {
                    self.unwatch(link.ifindex).await?;
                    return self.start(&link, point).await;
                }
                self.cover(link.ifindex).await
            }
        }
    }

    /// Watches an interface. One that cannot be watched is told as not covered.
    async fn start(&mut self, link: &Link, vantage: Point) -> Result<(), LiveError> {
        let account = self.new_account(link.ifindex, &link.name, vantage);
        // Before it is attached to: what it shows is of an interface that is known.
        self.send(Input::Interface(account.clone())).await?;
        let watched = Watched {
            account,
            layer: link.layer,
            slot: None,
        };
        self.watched.insert(link.ifindex, watched);
        self.cover(link.ifindex).await
    }

    /// Gives an interface a slot in the kernel and attaches to it, as far as that is still to do,
    /// and tells the result where that is new.
    async fn cover(&mut self, ifindex: u32) -> Result<(), LiveError> {
        let Some(watched) = self.watched.get_mut(&ifindex) else {
            return Ok(());
        };
        let name = Arc::clone(&watched.account.name);
        let before = watched.account.clone();
        let covered = match give_slot(&mut self.kernel, watched) {
            Ok(()) => {
                let attached = self.attacher.attach(&mut self.kernel, ifindex, &name).await;
                attached.map_err(Uncovered::Attach)
            }
            Err(error) => Err(error),
        };
        let account = &mut watched.account;
        match covered {
            Ok(how) => {
                account.attach = Arc::from(how.name());
                account.covered = true;
                account.reason = None;
                account.attached_ns = Some(self.kernel.clock()?.monotonic_ns);
                let point = account.point;
                tracing::info!(interface = %name, %point, how = how.name(), "watching");
            }
            Err(error) => {
                let reason = error.to_string();
                // It is tried again and again: told when it is news.
                if account.reason.as_deref() != Some(&*reason) {
                    if error.is_gone() {
                        tracing::debug!(interface = %name, %error, "gone before it was watched");
                    } else {
                        tracing::warn!(interface = %name, %error, "not watched");
                    }
                    account.reason = Some(reason.into());
                }
            }
        }
        if *account == before {
            return Ok(());
        }
        let account = account.clone();
        self.send(Input::Interface(account)).await
    }

    /// Tries again what is not covered: what stood in the way may have gone.
    pub(super) async fn retry(&mut self) -> Result<(), LiveError> {
        let is_uncovered = |watched: &&Watched| !watched.account.covered;
        self.retry_those(is_uncovered).await
    }

    /// Gives a slot that became free to an interface that had none.
    async fn fill(&mut self) -> Result<(), LiveError> {
        let has_none = |watched: &&Watched| watched.slot.is_none() && watched.layer.is_some();
        self.retry_those(has_none).await
    }

    async fn retry_those(&mut self, wanted: impl Fn(&&Watched) -> bool) -> Result<(), LiveError> {
        let those = self.watched.values().filter(wanted);
        let indices: Vec<u32> = those.map(|watched| watched.account.ifindex).collect();
        for ifindex in indices {
            self.cover(ifindex).await?;
        }
        Ok(())
    }

    /// Says once that there is no uplink, and once that there is one again.
    pub(super) fn look_for_uplink(&mut self) {
        let is_uplink = |watched: &Watched| watched.account.point == Point::Uplink;
        let has_uplink = self.watched.values().any(is_uplink);
        if has_uplink == self.has_uplink {
            return;
        }
        self.has_uplink = has_uplink;
        let named = self.options.selection.uplinks();
        if has_uplink {
            tracing::info!("there is an uplink again");
        } else if named.is_empty() {
            tracing::warn!(
                "no uplink: no default route leads to an interface; the traffic of the node is not \
                 watched until one does (--uplink names one)"
            );
        } else {
            tracing::warn!(
                uplink = named.join(" "),
                "no uplink: it is gone; the traffic of the node is not watched until it is back"
            );
        }
    }

    /// Stops watching an interface that is still there.
    async fn unwatch(&mut self, ifindex: u32) -> Result<(), LiveError> {
        self.attacher.detach(&self.kernel, ifindex).await;
        if let Some(slot) = self.watched.get(&ifindex).and_then(|watched| watched.slot) {
            // A packet on its way through the programs is still counted here.
            self.kernel.close(slot)?;
            tokio::time::sleep(GRACE).await;
        }
        self.depart(ifindex).await
    }

    /// An interface is gone, and with it every packet on its way.
    pub(super) async fn on_gone(&mut self, ifindex: u32) -> Result<(), LiveError> {
        self.attacher.forget(ifindex);
        self.depart(ifindex).await
    }

    /// Reads an interface's counters for the last time and frees its slot; the next pass tells
    /// that it is gone.
    async fn depart(&mut self, ifindex: u32) -> Result<(), LiveError> {
        let Some(watched) = self.watched.remove(&ifindex) else {
            return Ok(());
        };
        tracing::debug!(interface = %watched.account.name, "no longer watched");
        let mut last = InterfaceAccount {
            id: watched.account.id,
            ..InterfaceAccount::default()
        };
        if let Some(slot) = watched.slot {
            self.kernel.close(slot)?;
            last.counters = self.kernel.counters(slot)?;
            last.uncounted = self.kernel.uncounted(slot)?;
            self.kernel.clear(slot)?;
        }
        self.departed.push(last);
        if watched.slot.is_some() {
            self.fill().await?;
        }
        Ok(())
    }
}

/// Why an interface is not covered.
#[derive(Debug, thiserror::Error)]
enum Uncovered {
    #[error("its link layer is not understood")]
    Layer,
    #[error(transparent)]
    Slot(AccessError),
    #[error(transparent)]
    Attach(AttachError),
}

// === impl Uncovered ===

impl Uncovered {
    fn is_gone(&self) -> bool {
        matches!(self, Self::Attach(error) if error.is_gone())
    }
}

/// Registers an interface in the kernel, unless it is.
fn give_slot(kernel: &mut Kernel, watched: &mut Watched) -> Result<(), Uncovered> {
    if watched.slot.is_some() {
        return Ok(());
    }
    let account = &watched.account;
    let slot = kernel.register(Interface {
        ifindex: account.ifindex,
        id: account.id,
        point: account.point.code(),
        link: watched.layer.ok_or(Uncovered::Layer)?,
        _pad: [0; 2],
    });
    watched.slot = Some(slot.map_err(Uncovered::Slot)?);
    Ok(())
}
