//! Sizes: what compiled rules take.

use std::{fmt::Write as _, net::Ipv4Addr};

use super::fixture::tuple;
use crate::nsg::{
    Chain, Level, LevelKind, Levels, Names, Nsg,
    read::{self, read_service_tags},
};

/// A service tag file with so many tags of so many prefixes.
fn tag_file(tags: u32, prefixes: u32) -> String {
    let mut text = String::from("{\"changeNumber\":1,\"cloud\":\"Public\",\"values\":[");
    for tag in 0..tags {
        let comma = if tag == 0 { "" } else { "," };
        let _ = write!(
            text,
            "{comma}{{\"name\":\"Tag{tag}\",\"id\":\"Tag{tag}\",\"properties\":{{\"addressPrefixes\":["
        );
        for prefix in 0..prefixes {
            let comma = if prefix == 0 { "" } else { "," };
            let number = (tag * prefixes + prefix).wrapping_mul(2_654_435_761) & 0xffff_ff00;
            let ip = Ipv4Addr::from_bits(number);
            if prefix % 4 == 3 {
                let _ = write!(text, "{comma}\"2603:{tag:x}:{prefix:x}::/48\"");
            } else {
                let _ = write!(text, "{comma}\"{ip}/24\"");
            }
        }
        text.push_str("],\"networkFeatures\":null}}");
    }
    text.push_str("]}");
    text
}

/// 1,000 rules, each with one of ten tags.
fn group() -> Nsg {
    let rules: Vec<_> = (0..1_000)
        .map(|number| {
            let (from, to) = match number % 3 {
                0 => (format!("Tag{}", number % 10), "10.224.0.0/16".to_owned()),
                1 => (
                    format!("10.{}.{}.0/24", number % 200, number % 250),
                    format!("Tag{}", number % 10),
                ),
                _ => ("*".to_owned(), format!("10.224.{}.0/24", number % 256)),
            };
            let way = if number % 2 == 0 { "In" } else { "Out" };
            let access = if number % 5 == 0 { "Deny" } else { "Allow" };
            format!(
                "R{number} {} {way} {access} Tcp {from} * > {to} {}",
                number + 100,
                number % 100 * 10 + 1
            )
        })
        .collect();
    super::fixture::nsg(&rules.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_hundred_thousand_prefixes_fit_into_30_mib() {
    let text = tag_file(10, 10_000);
    let mut names = Names::default();
    names.add_service_tags(read_service_tags("tags.json", &text).expect("tags"));
    names.add_network(["10.224.0.0/12".parse().expect("a range")]);
    assert_eq!(names.service_tags(), (10, 100_000));
    let level = Level::new(LevelKind::Subnet, group(), &names);
    let kept = names.service_tags().1 * size_of::<ipnet::IpNet>();
    let total = level.size_bytes() + kept;
    assert!(total < 30 << 20, "{} + {kept} bytes", level.size_bytes());
    let subnet = Some(level.nsg);
    let levels = Levels {
        subnet,
        ..Levels::default()
    };
    // With the rules themselves, and each tag's prefixes once however many rules name it.
    let all = Chain::new(levels, &names).kept_bytes();
    assert!(all > total && all < 30 << 20, "{all} bytes");
    let levels = Levels {
        subnet: Some(group()),
        ..Levels::default()
    };
    let chain = Chain::new(levels, &names);
    let mut random = Flows { state: 7 };
    for _ in 0..8 {
        let flow = random.flow();
        let (one, other) = (
            chain.judge(&tuple(&flow)),
            chain.judge_linear(&tuple(&flow)),
        );
        assert_eq!(
            one.rule.map(|rule| &rule.name),
            other.rule.map(|rule| &rule.name),
            "{flow}"
        );
    }
}

struct Flows {
    state: u32,
}

impl Flows {
    fn number(&mut self) -> u32 {
        self.state = self
            .state
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        self.state
    }

    fn flow(&mut self) -> String {
        let outside = Ipv4Addr::from_bits(self.number());
        let inside = Ipv4Addr::from_bits(0x0ae0_0000 | (self.number() >> 16));
        let port = (self.number() >> 16) % 1000;
        if self.number() & (1 << 20) == 0 {
            format!("In Tcp {outside}#1 > {inside}#{port}")
        } else {
            format!("Out Tcp {inside}#1 > {outside}#{port}")
        }
    }
}

#[test]
fn a_group_of_another_shape_costs_no_more_than_its_prefixes() {
    // 4,000 addresses in one rule, which is what Azure allows.
    let list: Vec<_> = (0..4_000_u32)
        .map(|n| Ipv4Addr::from_bits(0x0ae0_0000 + 2 * n).to_string())
        .collect();
    let nsg = super::fixture::nsg(&[&format!("R 100 In Allow Tcp {} * > * 22", list.join(","))]);
    let document = read::read("x", &super::fixture::document(&[]).to_string());
    assert!(document.is_ok());
    let level = Level::new(LevelKind::Nic, nsg, &Names::default());
    assert!(level.size_bytes() < 2 << 20, "{} bytes", level.size_bytes());
}
