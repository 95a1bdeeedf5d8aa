//! Compiled rules judge like linear ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;

use crate::{
    event::Protocol,
    nsg::{
        Access, Address, Chain, Direction, FieldMatch, LevelKind, Levels, Names, Nsg, Origin,
        Ports, Rule, RuleAccess, RuleProtocol, Tuple, Verdict, matching::Question,
    },
};

/// Prefixes that meet often: few first octets, all lengths.
fn net() -> impl Strategy<Value = IpNet> {
    let first = prop::sample::select(vec![10_u8, 10, 100, 169, 168, 172, 192, 203, 4]);
    let v4 =
        (first, 0..4_u8, any::<u8>(), any::<u8>(), 0..=32_u8).prop_map(|(a, b, c, d, length)| {
            let net = Ipv4Net::new(Ipv4Addr::new(a, b, c, d), length).expect("a length");
            IpNet::V4(net.trunc())
        });
    let first = prop::sample::select(vec![0x2001_u16, 0xfd00, 0xfe80, 0xace]);
    let v6 = (first, 0..4_u16, any::<u16>(), 0..=128_u8).prop_map(|(a, b, c, length)| {
        let ip = Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, c);
        IpNet::V6(Ipv6Net::new(ip, length).expect("a length").trunc())
    });
    prop_oneof![4 => v4, 1 => v6]
}

fn address() -> impl Strategy<Value = Address> {
    let tag = prop::sample::select(vec![
        "VirtualNetwork",
        "Internet",
        "AzureLoadBalancer",
        "Known",
        "Large",
        "NoSuchTag",
        "AzurePlatformDNS",
        "AzurePlatformIMDS",
        "AzurePlatformLKM",
    ]);
    let expanded = prop::option::weighted(0.3, prop::collection::vec(net(), 1..4));
    let tag = (tag, expanded).prop_map(|(name, expanded)| Address::Tag {
        name: name.into(),
        expanded: expanded.map(Into::into),
    });
    let group = prop::sample::select(vec!["web", "nobody"]);
    prop_oneof![
        2 => Just(Address::Any),
        5 => net().prop_map(Address::Prefix),
        3 => tag,
        1 => group.prop_map(|name| Address::Group(name.into())),
    ]
}

fn ports() -> impl Strategy<Value = Ports> {
    let range = prop_oneof![
        Just(22..=22_u16),
        Just(53..=53),
        Just(80..=443),
        Just(0..=0),
        Just(65535..=65535),
        (any::<u16>(), any::<u16>()).prop_map(|(a, b)| a.min(b)..=a.max(b)),
    ];
    prop_oneof![
        2 => Just(Ports::any()),
        3 => prop::collection::vec(range, 1..4).prop_map(Ports::merged),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let protocol = prop::sample::select(vec![
        RuleProtocol::Any,
        RuleProtocol::Tcp,
        RuleProtocol::Udp,
        RuleProtocol::Icmp,
        RuleProtocol::Esp,
        RuleProtocol::Ah,
    ]);
    let ends = || (prop::collection::vec(address(), 1..4), ports());
    (
        any::<bool>(),
        100..=4096_u16,
        any::<bool>(),
        protocol,
        ends(),
        ends(),
    )
        .prop_map(
            |(is_inbound, priority, is_allow, protocol, source, destination)| Rule {
                name: format!("r{priority}").into(),
                origin: Origin::User,
                direction: if is_inbound {
                    Direction::Inbound
                } else {
                    Direction::Outbound
                },
                priority,
                access: if is_allow {
                    RuleAccess::Allow
                } else {
                    RuleAccess::Deny
                },
                protocol,
                source: source.0,
                source_ports: source.1,
                destination: destination.0,
                destination_ports: destination.1,
            },
        )
}

fn rules(most: usize) -> impl Strategy<Value = Vec<Rule>> {
    prop::collection::vec(rule(), 0..most).prop_map(|mut rules| {
        rules.sort_by_key(|rule| (rule.direction, rule.priority));
        rules.dedup_by_key(|rule| (rule.direction, rule.priority));
        rules
    })
}

fn levels() -> impl Strategy<Value = Levels> {
    let admin = rules(6).prop_map(|mut rules| {
        for rule in &mut rules {
            rule.origin = Origin::Admin;
            if rule.priority.is_multiple_of(3) {
                rule.access = RuleAccess::AlwaysAllow;
            }
            // As wide as a network's administrator would write them.
            if rule.priority.is_multiple_of(2) {
                rule.destination = vec![Address::Any];
                (rule.source_ports, rule.destination_ports) = (Ports::any(), Ports::any());
            }
        }
        Nsg::admin("admin", rules)
    });
    let group = |most, name: &'static str| rules(most).prop_map(move |rules| Nsg::new(name, rules));
    (
        prop::option::weighted(0.4, admin),
        prop::option::weighted(0.8, group(150, "subnet")),
        prop::option::weighted(0.5, group(8, "nic")),
    )
        .prop_map(|(admin, subnet, nic)| Levels { admin, subnet, nic })
}

fn names() -> impl Strategy<Value = Names> {
    let nets = || prop::collection::vec(net(), 0..12);
    let network = prop::option::weighted(0.7, prop::collection::vec(net(), 1..4));
    (network, nets(), nets(), nets()).prop_map(|(network, known, large, web)| {
        let mut names = Names::default();
        names.add_network(network.unwrap_or_default());
        let list = |nets: Vec<IpNet>| {
            let texts: Vec<_> = nets.iter().map(ToString::to_string).collect();
            texts.join(",")
        };
        names
            .define_tag(&format!("Known={}", list(known)))
            .expect("a tag");
        names
            .define_tag(&format!("large={}", list(large)))
            .expect("a tag");
        names
            .define_group(&format!("Web={}", list(web)))
            .expect("a group");
        names
    })
}

/// Addresses at and beside the bounds of everything in the rules, and platform addresses.
fn interesting(levels: &Levels) -> Vec<IpAddr> {
    let mut nets: Vec<IpNet> = Vec::new();
    let groups = [&levels.admin, &levels.subnet, &levels.nic]
        .into_iter()
        .flatten();
    for address in groups
        .flat_map(|nsg| nsg.rules.iter())
        .flat_map(|rule| rule.source.iter().chain(&rule.destination))
    {
        match address {
            Address::Prefix(net) => nets.push(*net),
            Address::Tag {
                expanded: Some(expanded),
                ..
            } => nets.extend(expanded.iter()),
            _ => {}
        }
    }
    let fixed = [
        "168.63.129.16",
        "169.254.169.254",
        "23.102.135.246",
        "100.64.0.0",
        "fe80::1234:5678:9abc",
        "10.0.0.0",
        "223.255.255.255",
        "224.0.0.0",
        "2001:db8::1",
        "4000::",
    ];
    let mut ips: Vec<IpAddr> = fixed
        .iter()
        .map(|ip| ip.parse().expect("an address"))
        .collect();
    for net in nets {
        let (first, last) = (net.network(), net.broadcast());
        let beside = |ip: IpAddr, step: i8| match ip {
            IpAddr::V4(ip) => IpAddr::from(Ipv4Addr::from_bits(
                ip.to_bits().wrapping_add_signed(step.into()),
            )),
            IpAddr::V6(ip) => IpAddr::from(Ipv6Addr::from_bits(
                ip.to_bits().wrapping_add_signed(step.into()),
            )),
        };
        ips.extend([first, last, beside(first, -1), beside(last, 1)]);
    }
    ips
}

/// Everything that a verdict says.
fn said(verdict: &Verdict<'_>) -> String {
    let steps: Vec<_> = verdict
        .steps()
        .map(|step| {
            format!(
                "{} {} {:?}",
                step.level.kind,
                step.rule().name,
                step.access()
            )
        })
        .collect();
    let rule = verdict.rule.map(|rule| (&rule.name, rule.priority));
    format!(
        "{} {} {rule:?} {:?} {steps:?}",
        verdict.access,
        verdict.decided_by,
        verdict.reason()
    )
}

/// Flows made from a number, so that a million of them cost little.
struct Flows {
    ips: Vec<IpAddr>,
    state: u64,
}

impl Flows {
    fn number(&mut self) -> u64 {
        // xorshift64 (Marsaglia, "Xorshift RNGs").
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.number() % most as u64).expect("small")
    }

    fn ip(&mut self) -> IpAddr {
        if self.number().is_multiple_of(4) {
            let [a, b, c, d, ..] = self.number().to_le_bytes();
            IpAddr::from([a, b, c, d])
        } else {
            let at = self.below(self.ips.len());
            self.ips[at]
        }
    }

    fn port(&mut self) -> Option<u16> {
        const PORTS: [u16; 12] = [0, 22, 23, 53, 67, 79, 80, 443, 444, 1688, 32526, 65535];
        match self.below(8) {
            0 => None,
            1..=5 => Some(PORTS[self.below(PORTS.len())]),
            _ => u16::try_from(self.below(1 << 16)).ok(),
        }
    }

    fn tuple(&mut self) -> Tuple {
        const PROTOCOLS: [u8; 10] = [6, 6, 6, 17, 17, 1, 50, 51, 58, 132];
        Tuple {
            direction: Direction::ALL[self.below(2)],
            protocol: Protocol(PROTOCOLS[self.below(PROTOCOLS.len())]),
            source: self.ip(),
            source_port: self.port(),
            destination: self.ip(),
            destination_port: self.port(),
        }
    }
}

/// The access of a flow under every answer to every question that its rules leave open, each
/// judged from the first rule on; `None` where there are too many questions, or where an answer
/// leaves a group without a rule that matches.
fn by_all_answers(chain: &Chain, tuple: &Tuple) -> Option<Access> {
    const MOST: usize = 7;
    let tuple = tuple.normalised();
    let mut questions: Vec<Question> = Vec::new();
    let mut levels = Vec::new();
    for level in chain.levels(tuple.direction) {
        let mut rules = Vec::new();
        for rule in level.rules(tuple.direction) {
            let matches = rule.matches(&tuple);
            if matches == FieldMatch::No {
                continue;
            }
            let mut fields: Vec<u32> = Vec::new();
            for field in rule.questions(&tuple, false) {
                let mut mask = 0;
                for question in field {
                    let known = questions.iter().position(|other| *other == question);
                    let at = known.unwrap_or(questions.len());
                    if known.is_none() {
                        questions.push(question);
                    }
                    if questions.len() > MOST {
                        return None;
                    }
                    mask |= 1 << at;
                }
                fields.push(mask);
            }
            rules.push((rule.rule.access, fields));
            if matches == FieldMatch::Yes {
                break;
            }
        }
        // More are not looked through.
        if rules.len() > 64 {
            return None;
        }
        levels.push((level.kind, rules));
    }
    let judge = |answers: u32| {
        let mut access = Access::Allow;
        for (kind, rules) in &levels {
            let matches = |fields: &[u32]| fields.iter().all(|field| field & answers != 0);
            let decides = rules.iter().find(|(_, fields)| matches(fields));
            match (decides.map(|(access, _)| *access), kind) {
                (Some(RuleAccess::Allow), _) | (None, LevelKind::Admin) => {}
                (Some(RuleAccess::AlwaysAllow), _) => return Access::Allow,
                (Some(RuleAccess::Deny), _) => return Access::Deny,
                // Another group may still deny.
                (None, _) => access = Access::Indeterminate,
            }
        }
        access
    };
    let first = judge(0);
    let is_same = (1..1 << questions.len()).all(|answers| judge(answers) == first);
    Some(if is_same {
        first
    } else {
        Access::Indeterminate
    })
}

fn compare(levels: &Levels, names: &Names, seed: u64, flows: usize) -> Result<(), TestCaseError> {
    let mut random = Flows {
        ips: interesting(levels),
        state: seed | 1,
    };
    let chain = Chain::new(levels.clone(), names);
    for _ in 0..flows {
        let tuple = random.tuple();
        let (compiled, linear) = (chain.judge(&tuple), chain.judge_linear(&tuple));
        prop_assert_eq!(said(&compiled), said(&linear), "{:?}", tuple);
        if compiled.service.is_none()
            && let Some(expected) = by_all_answers(&chain, &tuple)
        {
            prop_assert_eq!(
                compiled.access,
                expected,
                "{:?}: {}",
                tuple,
                said(&compiled)
            );
        }
        let explained = crate::nsg::explain::explain(&chain, &tuple);
        if compiled.decided_by != crate::nsg::DecidedBy::Platform && compiled.service.is_none() {
            for step in compiled.steps() {
                let level = explained
                    .iter()
                    .find(|level| level.applied_to == step.level.kind.name());
                let matched = level.and_then(|level| level.matched_rule.as_ref());
                let matched = matched.map(|rule| &*rule.rule_name);
                prop_assert_eq!(matched, Some(&*step.rule().name), "{:?}", tuple);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn compiled_judges_like_linear(levels in levels(), names in names(), seed in any::<u64>()) {
        compare(&levels, &names, seed, 50)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// 1,000 random chains with 1,000 flows each.
    #[test]
    #[ignore = "takes a minute in an optimised build: cargo xtask figures nsg"]
    fn a_million_verdicts_agree(levels in levels(), names in names(), seed in any::<u64>()) {
        compare(&levels, &names, seed, 1_000)?;
    }
}

#[test]
fn random_flows_reach_every_kind_of_verdict() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 1..40 {
        let levels = levels().new_tree(&mut runner).expect("levels").current();
        let names = names().new_tree(&mut runner).expect("names").current();
        let mut random = Flows {
            ips: interesting(&levels),
            state: seed,
        };
        let chain = Chain::new(levels, &names);
        for _ in 0..500 {
            let tuple = random.tuple();
            let verdict = chain.judge(&tuple);
            seen.insert(format!("{} {}", verdict.access, verdict.decided_by));
        }
    }
    for expected in [
        "Allow admin",
        "Allow nic",
        "Allow none",
        "Allow platform",
        "Allow subnet",
        "Deny admin",
        "Deny nic",
        "Deny subnet",
        "Indeterminate admin",
        "Indeterminate nic",
        "Indeterminate subnet",
    ] {
        assert!(seen.contains(expected), "{expected}: {seen:?}");
    }
}
