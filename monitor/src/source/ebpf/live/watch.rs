//! Interfaces that come, change and go.

use std::sync::Arc;

use monitor_common::abi::{Interface, point};
use monitor_core::{
    account::{Interface as Account, InterfaceAccount},
    engine::Input,
    event::Point,
};

use super::{Live, LiveError, Watched};
use crate::source::links::Link;

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
            self.on_gone(ifindex)?;
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

    /// Registers an interface and attaches to it. One that cannot be watched is told as not
    /// covered.
    async fn start(&mut self, link: &Link, vantage: Point) -> Result<(), LiveError> {
        let account = self.new_account(link.ifindex, &link.name, vantage);
        self.send(Input::Interface(account.clone())).await?;
        let slot = self.register(link, &account);
        self.watched.insert(link.ifindex, Watched { account, slot });
        self.cover(link.ifindex).await
    }

    /// The kernel's slot for an interface, if it can have one.
    fn register(&mut self, link: &Link, account: &Account) -> Option<u32> {
        let Some(layer) = link.layer else {
            tracing::warn!(
                interface = link.name,
                "link layer is not understood, not watched"
            );
            return None;
        };
        let registered = self.kernel.register(Interface {
            ifindex: link.ifindex,
            id: account.id,
            point: match account.point {
                Point::Uplink => point::UPLINK,
                Point::Workload => point::WORKLOAD,
            },
            link: layer,
            _pad: [0; 2],
        });
        registered
            .inspect_err(|error| tracing::warn!(interface = link.name, %error, "not watched"))
            .ok()
    }

    /// Attaches to a registered interface and tells the result.
    async fn cover(&mut self, ifindex: u32) -> Result<(), LiveError> {
        let Some(watched) = self.watched.get_mut(&ifindex) else {
            return Ok(());
        };
        if watched.slot.is_none() {
            return Ok(());
        }
        let name = Arc::clone(&watched.account.name);
        match self.attacher.attach(&mut self.kernel, ifindex, &name).await {
            Ok(how) => {
                watched.account.attach = Arc::from(how.name());
                watched.account.covered = true;
                watched.account.attached_ns = Some(self.kernel.clock()?.monotonic_ns);
                let point = watched.account.point;
                tracing::info!(interface = %name, %point, how = how.name(), "watching");
            }
            Err(error) if error.is_gone() => {
                tracing::debug!(interface = %name, %error, "gone before it was watched");
            }
            // Told once per change of the interface; `covered 0` stays visible in the metrics.
            Err(error) => tracing::warn!(interface = %name, %error, "not watched"),
        }
        let account = watched.account.clone();
        self.send(Input::Interface(account)).await
    }

    /// Stops watching an interface that is still there.
    async fn unwatch(&mut self, ifindex: u32) -> Result<(), LiveError> {
        self.attacher.detach(&self.kernel, ifindex).await;
        self.depart(ifindex)
    }

    /// An interface is gone.
    pub(super) fn on_gone(&mut self, ifindex: u32) -> Result<(), LiveError> {
        self.attacher.forget(ifindex);
        self.depart(ifindex)
    }

    /// Reads an interface's counters for the last time and frees its slot; the next pass tells
    /// that it is gone.
    fn depart(&mut self, ifindex: u32) -> Result<(), LiveError> {
        let Some(watched) = self.watched.remove(&ifindex) else {
            return Ok(());
        };
        tracing::debug!(interface = %watched.account.name, "no longer watched");
        let mut last = InterfaceAccount {
            id: watched.account.id,
            ..InterfaceAccount::default()
        };
        if let Some(slot) = watched.slot {
            last.counters = self.kernel.counters(slot)?;
            last.uncounted = self.kernel.uncounted(slot)?;
            self.kernel.unregister(slot)?;
        }
        self.departed.push(last);
        Ok(())
    }
}
