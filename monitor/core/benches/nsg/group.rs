//! A group of 1,000 rules, half of which name one of ten service tags with 10,000 prefixes each, and
//! flows to judge by it.

use std::{fmt::Write as _, net::Ipv4Addr};

use monitor_core::{
    event::Protocol,
    nsg::{Chain, Direction, LevelKind, Levels, Names, Nsg, Tuple, read},
};

const TAGS: u32 = 10;
const PREFIXES: u32 = 10_000;
const RULES: u32 = 1_000;
pub(crate) const FLOWS: u64 = 4_096;

/// Numbers without a pattern that a branch predictor or a cache could learn.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 >> 32).expect("32 bits")
    }
}

/// The service tag file.
pub(crate) fn tag_file() -> String {
    let mut random = Random(7);
    let mut text = String::from("{\"values\":[");
    for tag in 0..TAGS {
        let comma = if tag == 0 { "" } else { "," };
        let _ = write!(
            text,
            "{comma}{{\"name\":\"Tag{tag}\",\"properties\":{{\"addressPrefixes\":["
        );
        for prefix in 0..PREFIXES {
            let comma = if prefix == 0 { "" } else { "," };
            if prefix % 4 == 3 {
                let _ = write!(text, "{comma}\"2603:{tag:x}:{prefix:x}::/48\"");
            } else {
                let ip = Ipv4Addr::from_bits(random.next() & 0xffff_fff8);
                let _ = write!(text, "{comma}\"{ip}/29\"");
            }
        }
        text.push_str("]}}");
    }
    text.push_str("]}");
    text
}

/// The group's document.
pub(crate) fn document() -> String {
    let mut text = String::from("{\"name\":\"bench\",\"securityRules\":[");
    for rule in 0..RULES {
        let comma = if rule == 0 { "" } else { "," };
        let direction = if rule % 2 == 0 { "Inbound" } else { "Outbound" };
        let (source, destination) = match rule % 4 {
            0 => (format!("Tag{}", rule % TAGS), "10.224.0.0/12".to_owned()),
            1 => ("10.224.0.0/12".to_owned(), format!("Tag{}", rule % TAGS)),
            2 => (
                format!("192.0.{}.0/24", rule % 250),
                format!("10.224.{}.0/24", rule % 250),
            ),
            _ => (
                format!("10.224.{}.0/24", rule % 250),
                format!("192.0.{}.0/24", rule % 250),
            ),
        };
        let _ = write!(
            text,
            "{comma}{{\"name\":\"r{rule}\",\"priority\":{},\"direction\":\"{direction}\",\
             \"access\":\"{}\",\"protocol\":\"Tcp\",\"sourceAddressPrefix\":\"{source}\",\
             \"sourcePortRange\":\"*\",\"destinationAddressPrefix\":\"{destination}\",\
             \"destinationPortRange\":\"{}\"}}",
            100 + rule,
            if rule % 5 == 0 { "Deny" } else { "Allow" },
            1 + rule % 1_000,
        );
    }
    text.push_str("]}");
    text
}

/// Half inbound, half outbound; half to ports with rules; a quarter from or to tagged addresses is
/// what chance gives.
pub(crate) fn flows() -> Vec<Tuple> {
    let mut random = Random(11);
    (0..FLOWS)
        .map(|_| {
            let outside = Ipv4Addr::from_bits(random.next()).into();
            let inside = Ipv4Addr::from_bits(0x0ae0_0000 | (random.next() >> 12)).into();
            let is_inbound = random.next() & 1 == 0;
            let limit = if random.next() & 1 == 0 {
                1_000
            } else {
                65_536
            };
            Tuple {
                direction: if is_inbound {
                    Direction::Inbound
                } else {
                    Direction::Outbound
                },
                protocol: Protocol::TCP,
                source: if is_inbound { outside } else { inside },
                source_port: u16::try_from(random.next() >> 16).ok(),
                destination: if is_inbound { inside } else { outside },
                destination_port: u16::try_from(random.next() % limit).ok(),
            }
        })
        .collect()
}

fn nsg(text: &str) -> Nsg {
    let document = read::read("bench.json", text).expect("a valid document");
    document.choose(None, LevelKind::Subnet).expect("one group")
}

/// Everything that a reload does, from texts to a chain that judges.
pub(crate) fn load(document: &str, tags: &str) -> Chain {
    let mut names = Names::default();
    names.add_network(["10.224.0.0/12".parse().expect("a range")]);
    names.add_service_tags(read::read_service_tags("tags.json", tags).expect("valid tags"));
    let levels = Levels {
        subnet: Some(nsg(document)),
        ..Levels::default()
    };
    Chain::new(levels, &names)
}
