//! All places with rules, in the order in which Azure asks them.
//!
//! Azure, "How network security groups filter network traffic": inbound the subnet's group, then
//! the network card's; outbound the other way round; both must allow; without a group everything
//! is allowed. Admin rules of Virtual Network Manager come first: `Allow` goes on to the groups,
//! `AlwaysAllow` and `Deny` end it.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{
    level::{Hit, Level, LevelKind, until_certain},
    memory::Memory,
    model::{Direction, Nsg, RuleAccess},
    names::Names,
    platform::Service,
    possible::{self, Otherwise, Place},
    profile::Needs,
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
    needs: Needs,
}

/// How the rules of a level that may match are found.
#[derive(Clone, Copy)]
struct Find {
    /// The first one.
    first: for<'a> fn(&'a Level, &Tuple) -> Option<Hit<'a>>,
    /// All up to the first that certainly does.
    all: for<'a> fn(&'a Level, &Tuple) -> Vec<Hit<'a>>,
}

const COMPILED: Find = Find {
    first: Level::find,
    all: Level::candidates,
};
const LINEAR: Find = Find {
    first: Level::find_linear,
    all: Level::candidates_linear,
};

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
            needs: Needs::default(),
        }
    }

    /// The same, with what a platform needs of it.
    #[must_use]
    pub fn with_needs(self, needs: Needs) -> Self {
        Self { needs, ..self }
    }

    /// What a platform needs of it.
    pub fn needs(&self) -> &Needs {
        &self.needs
    }

    /// The places with rules, in the order in which a direction asks them.
    pub fn levels(&self, direction: Direction) -> impl Iterator<Item = &Level> {
        let groups = match direction {
            Direction::Inbound => [&self.subnet, &self.nic],
            Direction::Outbound => [&self.nic, &self.subnet],
        };
        self.admin.iter().chain(groups.into_iter().flatten())
    }

    /// A place whose rules, with what their names stand for, are more than can be compiled: there a
    /// verdict takes as long as there are rules.
    pub fn too_large(&self) -> Option<&Level> {
        self.all_levels().find(|level| !level.is_compiled())
    }

    /// Bytes that the compiled rules take.
    pub fn size_bytes(&self) -> usize {
        self.all_levels().map(Level::size_bytes).sum()
    }

    /// Bytes that all of it takes: the compiled rules, the rules as they were read, what their names
    /// stand for.
    pub fn kept_bytes(&self) -> usize {
        let mut memory = Memory::default();
        for level in self.all_levels() {
            level.count(&mut memory);
        }
        self.needs.count(&mut memory);
        if let Some(network) = &self.network {
            memory.nets(network);
        }
        memory.bytes()
    }

    /// Whether this judges as another one does, and names the same rules and needs.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.all_levels().count() == other.all_levels().count()
            && self
                .all_levels()
                .zip(other.all_levels())
                .all(|(own, theirs)| own.says_the_same(theirs))
            && self.network == other.network
            && self.needs == other.needs
    }

    /// Whether Azure holds open connections, too, against rules that change (property
    /// `flushConnection` of a group). A group that does not leaves its connections alone, so all
    /// must.
    pub fn flushes(&self) -> bool {
        let mut groups = [&self.subnet, &self.nic].into_iter().flatten().peekable();
        groups.peek().is_some() && groups.all(|level| level.nsg.flushes)
    }

    fn all_levels(&self) -> impl Iterator<Item = &Level> {
        [&self.admin, &self.subnet, &self.nic].into_iter().flatten()
    }

    /// The virtual network; `None` where nobody has said what it is.
    pub fn network(&self) -> Option<&[IpNet]> {
        self.network.as_deref()
    }

    /// Judges a connection by its opening packet.
    pub fn judge(&self, tuple: &Tuple) -> Verdict<'_> {
        self.judge_by(&tuple.normalised(), COMPILED)
    }

    /// The same, by asking one rule after the other: what [`Chain::judge`] is tested against.
    pub fn judge_linear(&self, tuple: &Tuple) -> Verdict<'_> {
        self.judge_by(&tuple.normalised(), LINEAR)
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
            let Some(hit) = (find.first)(level, tuple) else {
                continue;
            };
            let step = Step { level, hit };
            let Some(access) = step.access() else {
                self.judge_open(&mut verdict, find);
                return verdict;
            };
            verdict.steps[place] = Some(step);
            verdict.decide(step);
            let is_admin = level.kind == LevelKind::Admin;
            if access == RuleAccess::Deny || (is_admin && access == RuleAccess::AlwaysAllow) {
                return verdict;
            }
        }
        verdict
    }

    /// Judges a connection that some rule may match, or may not: what is the same whatever nobody
    /// knows is certain.
    fn judge_open<'a>(&'a self, verdict: &mut Verdict<'a>, find: Find) {
        let tuple = verdict.tuple;
        let places = self.levels(tuple.direction).map(|level| {
            let place = Place {
                kind: level.kind,
                rules: (find.all)(level, &tuple),
                otherwise: match level.kind {
                    LevelKind::Admin => Otherwise::Next,
                    LevelKind::Subnet | LevelKind::Nic => Otherwise::Unknown,
                },
            };
            (level, place)
        });
        verdict.open(places.collect(), false);
    }

    /// The platform service that a connection leads to. A route for everything disables Windows
    /// activation's rule; that shows in the virtual network, which holds what routes lead to.
    pub(super) fn service(&self, tuple: &Tuple) -> Option<Service> {
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
        let places = groups
            .filter(|level| level.kind != LevelKind::Admin)
            .map(|level| {
                let rules = level.rules(tuple.direction).iter();
                let hits = rules.filter_map(|rule| Hit::of(rule, &service.matches(rule, &tuple)));
                let place = Place {
                    kind: level.kind,
                    rules: until_certain(hits),
                    otherwise: Otherwise::Next,
                };
                (level, place)
            });
        verdict.open(places.collect(), true);
    }
}

// === impl Verdict ===

impl<'a> Verdict<'a> {
    /// Takes a rule that certainly matches for the one that decides.
    fn decide(&mut self, step: Step<'a>) {
        let rule = step.rule();
        self.access = match rule.access {
            RuleAccess::Allow | RuleAccess::AlwaysAllow => Access::Allow,
            RuleAccess::Deny => Access::Deny,
        };
        self.decided_by = step.level.kind.into();
        self.rule = Some(rule);
    }

    /// Decides by what rules that may match can come to.
    fn open(&mut self, mut places: Vec<(&'a Level, Place<'a>)>, for_service: bool) {
        places.retain(|(_, place)| !place.rules.is_empty());
        let mut is_ended = false;
        for (slot, (level, place)) in self.steps.iter_mut().zip(&places) {
            let Some(hit) = place.hit().filter(|_| !is_ended) else {
                continue;
            };
            let step = Step { level, hit };
            *slot = Some(step);
            if !hit.is_certain {
                self.doubt.get_or_insert(step);
            }
            is_ended = matches!(hit.access, Some(RuleAccess::Deny | RuleAccess::AlwaysAllow));
        }
        let places: Vec<_> = places.into_iter().map(|(_, place)| place).collect();
        let known = places_agree(&places)
            .or_else(|| possible::outcomes(&places, &self.tuple, for_service).certain());
        let Some(is_allowed) = known else {
            self.access = Access::Indeterminate;
            self.rule = None;
            // A place that does the same whichever of its rules matches leaves nothing open.
            let mut open = self.steps.iter().flatten();
            self.doubt = open
                .find(|step| step.access().is_none())
                .copied()
                .or(self.doubt);
            if let Some(step) = self.doubt {
                self.decided_by = step.level.kind.into();
            }
            return;
        };
        self.access = if is_allowed {
            Access::Allow
        } else {
            Access::Deny
        };
        let does = |access| is_allowed == (access != RuleAccess::Deny);
        let steps = || self.steps.iter().flatten();
        let decisive = |step: &&Step<'a>| step.access().is_some_and(does);
        // Where all allow, the last one; a denial ends it.
        let step = if is_allowed {
            steps().rfind(decisive)
        } else {
            steps().find(decisive)
        };
        if let Some(step) = step.copied() {
            if step.hit.is_certain && !is_allowed {
                self.doubt = None;
            }
            if !for_service || !is_allowed {
                self.decided_by = step.level.kind.into();
                self.rule = Some(step.rule());
            }
        } else if !for_service || !is_allowed {
            // No place does it by itself, but together they do.
            let rules = places
                .iter()
                .flat_map(|place| place.rules.iter().map(move |hit| (place.kind, hit)));
            let matching: Vec<_> = rules
                .filter(|(_, hit)| does(hit.rule.rule.access))
                .collect();
            let certain = matching.iter().find(|(_, hit)| hit.is_certain);
            if let Some(&(kind, hit)) = certain.or(matching.first()) {
                self.decided_by = kind.into();
                self.rule = Some(&hit.rule.rule);
            }
        }
    }
}

/// Whether a packet may pass where that does not depend on which rule of a place matches.
fn places_agree(places: &[Place<'_>]) -> Option<bool> {
    let mut is_open = false;
    for place in places {
        match place.access() {
            // A group that denies does so whatever another one says.
            Some(RuleAccess::Deny) => return Some(false),
            Some(RuleAccess::AlwaysAllow) => return Some(true),
            Some(RuleAccess::Allow) => {}
            // Admin rules may keep the groups from being asked.
            None if place.kind == LevelKind::Admin => return None,
            None => is_open = true,
        }
    }
    (!is_open).then_some(true)
}
