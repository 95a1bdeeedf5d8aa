//! What nodes of AKS need and rules take away.
//!
//! "If you block this IP address, your probes will fail" (Azure, "What is IP address
//! 168.63.129.16"). "Blocking internal subnet traffic using NSGs isn't supported" (AKS, "Outbound
//! network and FQDN rules"). Under overlay networks subnet rules apply to traffic between pods,
//! and nodes need to reach pods (AKS, "Azure CNI overlay networking").

use ipnet::IpNet;

use super::{
    Check, Issue,
    region::{Region, Regions, protocols},
};
use crate::nsg::{
    interval::{Family, IntervalSet},
    level::LevelKind,
    model::{Direction, RuleAccess, RuleProtocol},
    names::HOST,
};

/// The health port of kube-proxy, and node ports.
const PROBED: [(u128, u128); 2] = [(10_256, 10_256), (30_000, 32_767)];

/// Needed traffic that a rule denies.
pub(super) fn blocked(
    regions: &Regions<'_>,
    network: Option<&[IpNet]>,
    pods: &[IpNet],
    issues: &mut Vec<Issue>,
) {
    if regions.level.kind == LevelKind::Admin {
        return;
    }
    let Some(network) = network else { return };
    let needs = needs(network, pods);
    let asked = |need: &&(Need, Region)| match need.0.check {
        Check::ProbesBlocked => regions.direction == Direction::Inbound,
        _ => true,
    };
    let mut told: Vec<(Check, usize)> = Vec::new();
    for (need, region) in needs.iter().filter(asked) {
        let mut pieces = vec![region.clone()];
        for (index, boxed) in regions.rules.iter().enumerate() {
            let (rule, theirs) = (&boxed.resolved.rule, &boxed.families[need.family]);
            let is_met = pieces.iter().any(|piece| piece.meets(theirs));
            if is_met && rule.access == RuleAccess::Deny && !told.contains(&(need.check, index)) {
                told.push((need.check, index));
                let why = format!("denies {}", need.what);
                let suggestion = format!("allow it with a priority below {}", rule.priority);
                issues.push(Issue::new(need.check, regions.level, rule, why, suggestion));
            }
            match Region::cut(pieces, theirs) {
                Some(left) => pieces = left,
                None => break,
            }
        }
    }
}

struct Need {
    check: Check,
    family: usize,
    what: &'static str,
}

fn needs(network: &[IpNet], pods: &[IpNet]) -> Vec<(Need, Region)> {
    let mut needs = Vec::new();
    let host = IpNet::from(std::net::IpAddr::from(HOST));
    for (place, family) in Family::ALL.into_iter().enumerate() {
        let own = family.ranges(network).difference(&family.ranges(&[host]));
        let inside = own.union(&family.ranges(pods));
        let both = protocols(&[RuleProtocol::Tcp, RuleProtocol::Udp]);
        // That nodes do not open SSH or RDP to each other is what many want.
        let ports = [(0, 21), (23, 3388), (3390, 65_535)].into_iter().collect();
        needs.push((
            Need {
                check: Check::NodesBlocked,
                family: place,
                what: if pods.is_empty() {
                    "traffic within VirtualNetwork that nodes and pods need"
                } else {
                    "traffic between nodes and pods"
                },
            },
            Region::new(both, ports, inside.clone(), inside),
        ));
        if family == Family::V4 {
            needs.push((
                Need {
                    check: Check::ProbesBlocked,
                    family: place,
                    what: "load balancer probes (from 168.63.129.16) to node ports",
                },
                Region::new(
                    protocols(&[RuleProtocol::Tcp]),
                    PROBED.into_iter().collect::<IntervalSet>(),
                    family.ranges(&[host]),
                    own,
                ),
            ));
        }
    }
    needs
}
