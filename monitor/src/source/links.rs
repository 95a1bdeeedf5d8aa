//! The network interfaces, addresses and default routes of this network namespace, by rtnetlink.
//!
//! Notifications, not polling: what changes is told within milliseconds. When the kernel reports
//! that notifications were lost, everything is read again.

use std::{io, net::IpAddr};

use futures_util::{Stream, StreamExt as _};
use ipnet::IpNet;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::AddressAttribute,
    link::{LinkAttribute, LinkLayerType, LinkMessage},
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteType},
};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};

use monitor_common::abi::link;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Kernel interface index.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// Link layer as in [`monitor_common::abi::link`]; `None` for one that is not understood.
    pub layer: Option<u8>,
}

/// Something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An interface appeared or changed.
    Link(Link),
    /// An interface is gone.
    LinkGone {
        /// Its index.
        ifindex: u32,
    },
    /// Addresses or routes changed: they have to be read again.
    Addresses,
    /// Notifications were lost: everything has to be read again.
    Resync,
}

/// rtnetlink cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket cannot be opened.
    #[error("cannot listen to rtnetlink: {0}")]
    Socket(#[from] io::Error),
    /// A dump failed.
    #[error("cannot read {what} by rtnetlink: {source}")]
    Dump {
        /// What was asked for.
        what: &'static str,
        /// The cause.
        #[source]
        source: Box<rtnetlink::Error>,
    },
}

type Messages = Box<dyn Stream<Item = NetlinkPayload<RouteNetlinkMessage>> + Send + Unpin>;

/// Reads and follows the state of the network namespace that it was made in.
pub struct Watcher {
    handle: Handle,
    messages: Messages,
}

// === impl Watcher ===

impl Watcher {
    /// Subscribes to notifications; needs a running tokio runtime.
    pub fn new() -> Result<Self, LinkError> {
        let (connection, handle, messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ])?;
        tokio::spawn(connection);
        let messages = messages.map(|(message, _)| message.payload);
        Ok(Self {
            handle,
            messages: Box::new(messages),
        })
    }

    /// For other requests on the same socket.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// All interfaces.
    pub async fn links(&self) -> Result<Vec<Link>, LinkError> {
        let messages = collect("interfaces", self.handle.link().get().execute()).await?;
        Ok(messages.iter().filter_map(read_link).collect())
    }

    /// Addresses of all interfaces, with their prefix lengths.
    pub async fn addresses(&self) -> Result<Vec<IpNet>, LinkError> {
        let messages = collect("addresses", self.handle.address().get().execute()).await?;
        let mut addresses = Vec::with_capacity(messages.len());
        for message in &messages {
            // IFA_LOCAL is the own address on point-to-point links, where IFA_ADDRESS is the peer's.
            let mut address = None;
            for attribute in &message.attributes {
                match attribute {
                    AddressAttribute::Local(local) => address = Some(*local),
                    AddressAttribute::Address(other) if address.is_none() => address = Some(*other),
                    _ => {}
                }
            }
            if let Some(prefix) =
                address.and_then(|address| IpNet::new(address, message.header.prefix_len).ok())
            {
                addresses.push(prefix);
            }
        }
        Ok(addresses)
    }

    /// Indices of the interfaces that default routes of the main table lead to, IPv4 and IPv6.
    pub async fn default_route_links(&self) -> Result<Vec<u32>, LinkError> {
        let mut links = Vec::new();
        let unspecified = [IpAddr::from([0_u8; 4]), IpAddr::from([0_u8; 16])];
        for address in unspecified {
            let request = match address {
                IpAddr::V4(_) => RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
                IpAddr::V6(_) => RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
            };
            let messages = collect("routes", self.handle.route().get(request).execute()).await?;
            for ifindex in messages
                .iter()
                .filter(|route| is_default(route))
                .flat_map(route_links)
            {
                if !links.contains(&ifindex) {
                    links.push(ifindex);
                }
            }
        }
        Ok(links)
    }

    /// The next change; `None` when the socket is closed.
    ///
    /// Cancellation safe: nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            let change = match self.messages.next().await? {
                NetlinkPayload::InnerMessage(message) => match message {
                    RouteNetlinkMessage::NewLink(link) => read_link(&link).map(Change::Link),
                    // A port that leaves its bridge is told as a deletion of that family.
                    RouteNetlinkMessage::DelLink(link)
                        if link.header.interface_family == AddressFamily::Unspec =>
                    {
                        Some(Change::LinkGone {
                            ifindex: link.header.index,
                        })
                    }
                    RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => {
                        Some(Change::Addresses)
                    }
                    RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                        is_default(&route).then_some(Change::Addresses)
                    }
                    _ => None,
                },
                NetlinkPayload::Overrun(_) => Some(Change::Resync),
                _ => None,
            };
            if change.is_some() {
                return change;
            }
        }
    }
}

async fn collect<T>(
    what: &'static str,
    stream: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, LinkError> {
    let mut stream = std::pin::pin!(stream);
    let mut items = Vec::new();
    while let Some(item) = stream.next().await {
        items.push(item.map_err(|source| LinkError::Dump {
            what,
            source: Box::new(source),
        })?);
    }
    Ok(items)
}

fn read_link(message: &LinkMessage) -> Option<Link> {
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let name = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })?;
    let layer = match message.header.link_layer_type {
        LinkLayerType::Ether => Some(link::ETHERNET),
        LinkLayerType::None
        | LinkLayerType::Rawip
        | LinkLayerType::Tunnel
        | LinkLayerType::Tunnel6
        | LinkLayerType::Sit
        | LinkLayerType::Ppp => Some(link::RAW_IP),
        _ => None,
    };
    Some(Link {
        ifindex: message.header.index,
        name,
        layer,
    })
}

fn is_default(route: &RouteMessage) -> bool {
    let table = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        });
    let table = table.unwrap_or_else(|| u32::from(route.header.table));
    route.header.destination_prefix_length == 0
        && route.header.kind == RouteType::Unicast
        && table == u32::from(RouteHeader::RT_TABLE_MAIN)
}

fn route_links(route: &RouteMessage) -> Vec<u32> {
    let mut links = Vec::new();
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(ifindex) => links.push(*ifindex),
            RouteAttribute::MultiPath(hops) => {
                links.extend(hops.iter().map(|hop| hop.interface_index));
            }
            _ => {}
        }
    }
    links
}
