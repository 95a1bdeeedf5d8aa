//! All places with rules, in the order in which Azure asks them.
//!
//! Azure, "How network security groups filter network traffic": inbound the subnet's group, then
//! the network card's; outbound the other way round; both must allow; without a group everything
//! is allowed. Admin rules of Virtual Network Manager come first: `Allow` goes on to the groups,
//! `AlwaysAllow` and `Deny` end it.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{
    level::{Hit, Level, LevelKind},
    matching::FieldMatch,
    model::{Direction, Nsg, RuleAccess},
    names::Names,
    platform::Service,
    tuple::Tuple,
    verdict::{Access, DecidedBy, Step, Verdict},
};

/// The groups of a network card, before they are compiled.
#[derive(Clone, Debug, Default)]
pub struct Levels {
    /// Admin rules.
    pub admin: Option<Nsg>,
    /// The group of its subnet.
    pub subnet: Option<Nsg>,
    /// Its own group.
    pub nic: Option<Nsg>,
}

/// The groups of a network card, ready to judge.
#[derive(Debug)]
pub struct Chain {
    admin: Option<Level>,
    subnet: Option<Level>,
    nic: Option<Level>,
    network: Option<Arc<[IpNet]>>,
}

/// How the first rule of a level that may match is found.
type Find = for<'a> fn(&'a Level, &Tuple) -> Option<Hit<'a>>;

// === impl Chain ===

impl Chain {
    /// Compiles groups.
    pub fn new(levels: Levels, names: &Names) -> Self {
        let Levels { admin, subnet, nic } = levels;
        let network = [&nic, &subnet]
            .into_iter()
            .flatten()
            .find_map(|nsg| names.network(Some(nsg)))
            .or_else(|| names.network(None));
        let level = |kind, nsg: Option<Nsg>| nsg.map(|nsg| Level::new(kind, nsg, names));
        Self {
            admin: level(LevelKind::Admin, admin),
            subnet: level(LevelKind::Subnet, subnet),
            nic: level(LevelKind::Nic, nic),
            network,
        }
    }

    /// The places with rules, in the order in which a direction asks them.
    pub fn levels(&self, direction: Direction) -> impl Iterator<Item = &Level> {
        let groups = match direction {
            Direction::Inbound => [&self.subnet, &self.nic],
            Direction::Outbound => [&self.nic, &self.subnet],
        };
        self.admin.iter().chain(groups.into_iter().flatten())
    }

    /// The virtual network; `None` where nobody has said what it is.
    pub fn network(&self) -> Option<&[IpNet]> {
        self.network.as_deref()
    }

    /// Which way a connection goes, as far as the addresses say: outbound if only its source is of
    /// the virtual network, else inbound. A network that is not declared is taken for all private
    /// addresses.
    pub fn direction(&self, source: IpAddr, destination: IpAddr) -> Direction {
        let is_own = |ip: IpAddr| match (&self.network, ip) {
            (Some(nets), _) => nets.iter().any(|net| net.contains(&ip)),
            (None, IpAddr::V4(ip)) => ip.is_private(),
            (None, IpAddr::V6(ip)) => ip.is_unique_local(),
        };
        if is_own(source) && !is_own(destination) {
            Direction::Outbound
        } else {
            Direction::Inbound
        }
    }

    /// Judges a connection by its opening packet.
    pub fn judge(&self, tuple: &Tuple) -> Verdict<'_> {
        self.judge_by(&tuple.normalised(), Level::find)
    }

    /// The same, by asking one rule after the other: what [`Chain::judge`] is tested against.
    pub fn judge_linear(&self, tuple: &Tuple) -> Verdict<'_> {
        self.judge_by(&tuple.normalised(), Level::find_linear)
    }

    fn judge_by(&self, tuple: &Tuple, find: Find) -> Verdict<'_> {
        let mut verdict = Verdict {
            access: Access::Allow,
            decided_by: DecidedBy::None,
            rule: None,
            service: None,
            steps: [None; 3],
            doubt: None,
            tuple: *tuple,
        };
        if let Some(service) = self.service(tuple) {
            verdict.service = Some(service);
            self.judge_service(service, &mut verdict);
            return verdict;
        }
        for (place, level) in self.levels(tuple.direction).enumerate() {
            // Admin rules that do not match say nothing; a group has a rule for everything.
            let Some(hit) = find(level, tuple) else {
                continue;
            };
            let step = Step { level, hit };
            verdict.steps[place] = Some(step);
            let is_admin = level.kind == LevelKind::Admin;
            match step.access() {
                Some(access @ (RuleAccess::Deny | RuleAccess::AlwaysAllow)) => {
                    let ends = access == RuleAccess::Deny || is_admin;
                    verdict.decide(step);
                    if ends {
                        return verdict;
                    }
                }
                Some(RuleAccess::Allow) if verdict.doubt.is_some() => {}
                Some(RuleAccess::Allow) => verdict.decide(step),
                // A group that certainly denies does so whatever another one says; admin rules
                // may keep the groups from being asked.
                None => {
                    verdict.doubt.get_or_insert(step);
                    if is_admin {
                        break;
                    }
                }
            }
        }
        verdict.doubted();
        verdict
    }

    /// The platform service that a connection leads to. A route for everything disables Windows
    /// activation's rule; that shows in the virtual network, which holds what routes lead to.
    fn service(&self, tuple: &Tuple) -> Option<Service> {
        let service = Service::of(tuple)?;
        let is_routed = |ip: IpAddr| {
            let nets = self.network.as_deref().unwrap_or_default();
            nets.iter().any(|net| net.contains(&ip))
        };
        let is_disabled = service == Service::Licensing && is_routed(tuple.destination);
        (!is_disabled).then_some(service)
    }

    fn judge_service<'a>(&'a self, service: Service, verdict: &mut Verdict<'a>) {
        verdict.decided_by = DecidedBy::Platform;
        let tuple = verdict.tuple;
        let groups = self.levels(tuple.direction);
        for (place, level) in groups
            .filter(|level| level.kind != LevelKind::Admin)
            .enumerate()
        {
            let matches = level.rules(tuple.direction).iter().find_map(|rule| {
                let is_certain = match service.matches(rule, &tuple) {
                    FieldMatch::Yes => true,
                    FieldMatch::Unknown(_) => false,
                    FieldMatch::No => return None,
                };
                Some(Hit { rule, is_certain })
            });
            let Some(hit) = matches else { continue };
            let step = Step { level, hit };
            verdict.steps[place] = Some(step);
            match step.access() {
                Some(RuleAccess::Deny) => {
                    verdict.decide(step);
                    return;
                }
                Some(_) => {}
                None => {
                    verdict.doubt.get_or_insert(step);
                }
            }
        }
        verdict.doubted();
    }
}

// === impl Verdict ===

impl<'a> Verdict<'a> {
    /// Takes a rule that certainly matches for the one that decides.
    fn decide(&mut self, step: Step<'a>) {
        let rule = step.rule();
        self.access = match rule.access {
            RuleAccess::Allow | RuleAccess::AlwaysAllow => Access::Allow,
            RuleAccess::Deny => {
                self.doubt = None;
                Access::Deny
            }
        };
        self.decided_by = step.level.kind.into();
        self.rule = Some(rule);
    }

    /// Where a rule may match and nothing denies for certain, nobody knows.
    fn doubted(&mut self) {
        if let Some(step) = self.doubt {
            self.access = Access::Indeterminate;
            self.decided_by = step.level.kind.into();
            self.rule = None;
        }
    }
}
