//! Documents that nobody should have written.

use proptest::prelude::*;
use serde_json::json;

use super::fixture::{document, refusal};
use crate::nsg::read::{self, read_admin_rules, read_service_tags};

#[test]
fn the_message_names_file_line_rule_and_field() {
    let text = include_str!("../testdata/snet-nodes-nsg.rest.json");
    let text = text.replacen("\"priority\": 110", "\"priority\": 100", 1);
    let error = read::read("nsg.json", &text)
        .expect_err("twice")
        .to_string();
    let expected = "nsg.json:47: rule `DenySsh`: field `priority`: 100 is also the priority of \
                    rule `AllowSshFromBastion` (Inbound)";
    assert_eq!(error, expected);
    let text = include_str!("../testdata/snet-nodes-nsg.rest.json");
    let text = text.replacen("\"30000-32767\"", "\"32767-30000\"", 1);
    let error = read::read("nsg.json", &text)
        .expect_err("reversed")
        .to_string();
    let expected = "nsg.json:89: rule `AllowKubeletFromApiServer`: field \
                    `destinationPortRanges[1]`: the range of ports `32767-30000` is reversed: \
                    write the lower port first";
    assert_eq!(error, expected);
}

#[test]
fn wrong_types_are_refused() {
    for (field, value, message) in [
        (
            "priority",
            json!("100"),
            "must be a whole number, not a text (`100`)",
        ),
        (
            "priority",
            json!(100.5),
            "must be a whole number, not a fraction (100.5)",
        ),
        ("priority", json!(null), "is missing"),
        ("priority", json!(-1), "-1 is not between"),
        (
            "priority",
            json!(u64::MAX),
            "18446744073709551615 is not between",
        ),
        ("access", json!(true), "must be a text, not true or false"),
        (
            "access",
            json!("Permit"),
            "`Permit` is not one of Allow, Deny",
        ),
        (
            "access",
            json!("AlwaysAllow"),
            "`AlwaysAllow` is not one of Allow, Deny",
        ),
        (
            "direction",
            json!("Both"),
            "`Both` is not one of Inbound, Outbound",
        ),
        ("protocol", json!(6), "must be a text, not a number (6)"),
        (
            "sourceAddressPrefix",
            json!({}),
            "must be a text, not an object",
        ),
        (
            "sourceAddressPrefixes",
            json!([["10.0.0.1"]]),
            "must be a text, not a list",
        ),
        (
            "destinationPortRanges",
            json!([null]),
            "must be a text, not null",
        ),
        ("destinationPortRanges", json!([-22]), "`-22` is not"),
        (
            "sourceApplicationSecurityGroups",
            json!("x"),
            "must be a list, not a text",
        ),
        ("sourceApplicationSecurityGroups", json!([{}]), "is missing"),
    ] {
        let mut document = document(&["R 100 In Allow Tcp * * > * 22"]);
        document["properties"]["securityRules"][0]["properties"][field] = value;
        let refusal = refusal(&document);
        assert!(refusal.contains("rule `R`: field `"), "{refusal}");
        assert!(refusal.contains(message), "{field}: {refusal}");
    }
    for (body, message) in [
        (
            json!({"securityRules": {}}),
            "field `securityRules`: must be a list",
        ),
        (
            json!({"securityRules": [3]}),
            "field `securityRules[0]`: must be a rule, not a number",
        ),
        (json!({"securityRules": [{}]}), "field `name`: is missing"),
        (
            json!({"securityRules": [{"name": "R", "properties": 3}]}),
            "must be an object",
        ),
    ] {
        let refusal = refusal(&body);
        assert!(refusal.contains(message), "{refusal}");
    }
}

#[test]
fn a_group_whose_rules_are_not_there_is_no_group_without_rules() {
    let group = |properties: serde_json::Value| {
        json!({"type": "Microsoft.Network/networkSecurityGroups", "name": "g",
            "properties": properties})
    };
    let in_template = |properties| json!({"resources": [group(properties)]});
    for properties in [json!("x"), json!(5), json!(true), json!([]), json!([1])] {
        for document in [group(properties.clone()), in_template(properties.clone())] {
            let refusal = refusal(&document);
            assert!(
                refusal.contains("properties`: must be an object"),
                "{refusal}"
            );
        }
    }
    for properties in [
        json!({}),
        json!(null),
        json!({"securityRules": null}),
        json!({"securityRules": null, "defaultSecurityRules": null}),
    ] {
        let refusal = refusal(&group(properties));
        assert!(refusal.contains("securityRules`: is missing"), "{refusal}");
    }
    let typed = json!({"type": "Microsoft.Network/networkSecurityGroups", "name": "g"});
    assert!(refusal(&typed).contains("securityRules`: is missing"));
    // What a group without rules looks like.
    for document in [
        group(json!({"securityRules": []})),
        in_template(json!({})),
        in_template(json!(null)),
    ] {
        super::fixture::read_one(&document).expect("valid");
    }
}

#[test]
fn the_same_key_in_two_cases_is_refused() {
    let mut document = document(&["R 100 In Allow Tcp * * > * 22"]);
    document["properties"]["securityRules"][0]["properties"]["Access"] = json!("Deny");
    assert!(refusal(&document).contains("is there twice, in different letter case"));
}

#[test]
fn a_truncated_document_is_refused_with_its_line() {
    let text = include_str!("../testdata/snet-nodes-nsg.rest.json");
    let error = read::read("nsg.json", &text[..text.len() / 2])
        .expect_err("half")
        .to_string();
    assert!(error.starts_with("nsg.json:1"), "{error}");
    assert!(error.contains("not readable as JSON: EOF"), "{error}");
}

#[test]
fn deep_nesting_is_refused() {
    for text in ["[".repeat(1_000_000), "{\"a\":".repeat(1_000_000)] {
        let error = read::read("nsg.json", &text).expect_err("deep").to_string();
        assert!(error.contains("recursion limit exceeded"), "{error}");
    }
}

#[test]
fn a_document_beyond_the_limit_is_refused() {
    let text = " ".repeat(read::MOST_BYTES + 1);
    let error = read::read("nsg.json", &text)
        .expect_err("large")
        .to_string();
    assert_eq!(error, "nsg.json: 33554433 bytes, at most 33554432 are read");
}

#[test]
fn a_large_document_is_read_or_refused_by_rule() {
    let rule = |number: usize| {
        let mut rule = super::fixture::rule(&format!("R{number} 100 In Allow Tcp * * > * 22"));
        rule["properties"]["description"] = json!("x".repeat(1000));
        rule
    };
    let rules: Vec<_> = (0..10_000).map(rule).collect();
    let document = json!({"name": "g", "properties": {"securityRules": rules}});
    assert!(document.to_string().len() > 10 << 20);
    let refusal = refusal(&document);
    assert!(refusal.contains("rule `R1`: field `priority`"), "{refusal}");
}

#[test]
fn a_group_has_so_many_rules_and_no_more() {
    let document = |rules: usize| {
        let rules = (0..rules).map(|number| {
            let (way, priority) = (if number % 2 == 0 { "In" } else { "Out" }, 100 + number / 2);
            super::fixture::rule(&format!("R{number} {priority} {way} Allow Tcp * * > * 22"))
        });
        json!({"name": "g", "securityRules": rules.collect::<Vec<_>>()})
    };
    assert!(super::fixture::read_one(&document(read::MOST_RULES)).is_ok());
    let refusal = refusal(&document(read::MOST_RULES + 1));
    assert!(
        refusal.ends_with("rule `R2000`: field `securityRules[2000]`: is one more than the 2000 rules of a group that are read"),
        "{refusal}"
    );
}

#[test]
fn rules_whose_tables_would_take_too_much_are_told_and_judged_all_the_same() {
    // 2,000 rules with ranges that overlap: everywhere, others match.
    let rules = (0..read::MOST_RULES).map(|number| {
        let list: Vec<_> = (0..20_u32)
            .map(|nth| {
                let number = u32::try_from(number).expect("small") * 20 + nth;
                let mut bits = number.wrapping_mul(2_654_435_761);
                bits = (bits ^ (bits >> 15)).wrapping_mul(0x85eb_ca6b);
                let ip = std::net::Ipv4Addr::from_bits(bits ^ (bits >> 13));
                format!("{ip}/{}", 6 + nth)
            })
            .collect();
        let priority = 100 + number;
        super::fixture::rule(&format!(
            "R{number} {priority} In Deny Tcp {} * > * *",
            list.join(",")
        ))
    });
    let document = json!({"name": "g", "securityRules": rules.collect::<Vec<_>>()});
    let levels = crate::nsg::Levels {
        nic: Some(super::fixture::read_one(&document).expect("valid")),
        ..Default::default()
    };
    let chain = crate::nsg::Chain::new(levels, &super::fixture::names(&[]));
    let level = chain.too_large().expect("too large");
    assert_eq!(&*level.nsg.name, "g");
    assert!(chain.size_bytes() < 64 << 20, "{}", chain.size_bytes());
    let flow = "In Tcp 203.0.113.9#1 > 10.224.0.5#22";
    let verdict = chain.judge(&super::fixture::tuple(flow));
    let linear = chain.judge_linear(&super::fixture::tuple(flow));
    assert_eq!(
        verdict.rule.map(|rule| &rule.name),
        linear.rule.map(|rule| &rule.name)
    );
    assert_eq!(verdict.access.name(), "Deny");
}

#[test]
fn nothing_of_a_document_reaches_a_terminal_unescaped() {
    let mut document = document(&["R 100 In Allow Tcp * * > * 22"]);
    let rule = &mut document["properties"]["securityRules"][0];
    rule["name"] = json!("\u{1b}[2J\n\u{202e}evil");
    rule["properties"]["access"] = json!("\u{9b}x\r");
    let refusal = refusal(&document);
    assert!(
        refusal.chars().all(|c| !c.is_control() && c != '\u{202e}'),
        "{refusal:?}"
    );
    assert!(refusal.contains(r"\u{1b}[2J\n\u{202e}evil"), "{refusal}");
}

#[test]
fn service_tags_that_are_none_are_refused_with_their_line() {
    for (text, message) in [
        (
            "{\"values\": [\n{\"name\": \"A\", \"properties\": {\"addressPrefixes\": [\"10.0.0.0/99\"]}}]}",
            "tags.json:2: not readable as JSON: `10.0.0.0/99` in addressPrefixes is no address range",
        ),
        (
            "{\"values\": [{\"properties\": {\"addressPrefixes\": []}}]}",
            "missing field `name`",
        ),
        (
            "{\"values\": [{\"name\": \"A\"}]}",
            "missing field `properties`",
        ),
        (
            "{\"values\": [3]}",
            "invalid type: integer `3`, expected an object with `name` and `properties`",
        ),
        (
            "{\"values\": [{\"name\": \"A\", \"properties\": 3}]}",
            "expected an object with `addressPrefixes`",
        ),
        ("3", "expected an object with `values`"),
        (
            "{\"nextLink\": \"https://x\", \"values\": []}",
            "field `nextLink`: only the first page",
        ),
        (
            "{\"values\": [{\"name\": \"A\", \"properties\": {\"addressPrefixes\": []}}, \
             {\"name\": \"a\", \"properties\": {\"addressPrefixes\": []}}]}",
            "service tag `a` is there twice",
        ),
        ("{}", "missing field `values`"),
        ("[]", "invalid"),
        ("{\"values\": [", "EOF"),
        (
            "{\"values\": [{\"name\": \"A\", \"properties\": {\"addressPrefixes\": [3]}}]}",
            "an address range",
        ),
    ] {
        let error = read_service_tags("tags.json", text)
            .expect_err(text)
            .to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn admin_rules_have_their_own_limits() {
    let rule = |priority: u16, access: &str| {
        json!([{"name": "A", "priority": priority, "access": access, "direction": "Inbound",
            "protocol": "Any", "sourceAddressPrefix": "*", "destinationPortRange": "22"}])
        .to_string()
    };
    let nsg = read_admin_rules("a.json", &rule(1, "alwaysallow"))
        .expect("valid")
        .0;
    assert_eq!(nsg.rules.len(), 1, "no default rules");
    assert_eq!(nsg.rules[0].destination[0].to_string(), "*");
    // As Virtual Network Manager itself writes them.
    let lists = json!([{"name": "A", "properties": {"priority": 1, "access": "Deny",
        "direction": "Inbound", "protocol": "Tcp", "destinationPortRanges": ["22"],
        "sources": [{"addressPrefixType": "IPPrefix", "addressPrefix": "198.51.100.0/24"}],
        "destinations": [{"addressPrefixType": "IPPrefix", "addressPrefix": "10.0.0.0/8"}]}}]);
    let nsg = read_admin_rules("a.json", &lists.to_string())
        .expect("valid")
        .0;
    let ends = [&nsg.rules[0].source, &nsg.rules[0].destination];
    assert_eq!(
        ends.map(|end| end.iter().map(ToString::to_string).collect::<Vec<_>>()),
        [["198.51.100.0/24"], ["10.0.0.0/8"]]
    );
    for (text, message) in [
        (rule(0, "Allow"), "0 is not between 1 and 4096"),
        (rule(1, "Permit"), "is not one of Allow, Deny, AlwaysAllow"),
        ("{}".to_owned(), "must be a list"),
    ] {
        let error = read_admin_rules("a.json", &text)
            .expect_err(message)
            .to_string();
        assert!(error.contains(message), "{error}");
    }
}

const SAMPLES: [&str; 5] = [
    include_str!("../testdata/snet-nodes-nsg.rest.json"),
    include_str!("../testdata/aks-managed-nic-nsg.cli.json"),
    include_str!("../testdata/aks-network.template.json"),
    include_str!("../testdata/node-nic-effective.cli.json"),
    include_str!("../testdata/service-tags-public.sample.json"),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever happens to a document, it is read or refused in a short line.
    #[test]
    fn mutated_documents_are_read_or_refused(
        sample in 0..SAMPLES.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..8),
    ) {
        let mut bytes = SAMPLES[sample].as_bytes().to_vec();
        for (place, byte, kind) in changes {
            let at = place.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.truncate(at.max(1)),
                2 => { bytes.remove(at); }
                _ => {
                    let copy: Vec<u8> = bytes[at..(at + usize::from(byte)).min(bytes.len())].into();
                    bytes.splice(at..at, copy);
                }
            }
            if bytes.is_empty() {
                bytes.push(b'{');
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        let results = [
            read::read("f", &text).map(|_| ()),
            read_admin_rules("f", &text).map(|_| ()),
            read_service_tags("f", &text).map(|_| ()),
        ];
        for error in results.into_iter().filter_map(Result::err) {
            let message = error.to_string();
            prop_assert!(message.len() < 2000 && !message.contains(|c: char| c.is_control()), "{message:?}");
        }
    }
}
