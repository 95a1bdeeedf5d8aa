//! ARM templates beyond the sample.

use serde_json::{Value, json};

use super::one;
use crate::nsg::{
    read,
    tests::fixture::{self, document},
};

fn template(resources: &Value) -> String {
    json!({"$schema": "https://schema.management.azure.com/x", "resources": resources}).to_string()
}

fn group_resource(rules: &[&str]) -> Value {
    let mut group = document(rules);
    group["name"] = json!("g");
    group
}

#[test]
fn nested_resources_and_repeated_rules_of_a_template_are_one_set() {
    let texts = [
        "A 100 In Allow Tcp * * > * 22",
        "B 200 In Deny Tcp * * > * 22",
    ];
    let rule = |text: &str, kind: &str, prefix: &str| {
        let mut rule = fixture::rule(text);
        let name = format!("{prefix}{}", rule["name"].as_str().expect("a name"));
        rule["name"] = json!(name);
        rule["type"] = json!(kind);
        rule
    };
    let full = "Microsoft.Network/networkSecurityGroups/securityRules";
    let mut group = group_resource(&texts[..1]);
    group["resources"] = json!([rule(texts[1], "securityRules", "")]);
    // Exported templates repeat every rule.
    let repeated = [rule(texts[0], full, "g/"), rule(texts[1], full, "G/")];
    let text = template(&json!([group, repeated[0], repeated[1]]));
    let mut expected = fixture::nsg(&texts);
    expected.name = "g".into();
    assert_eq!(one(&text), expected);
    // Symbolic names: resources are an object.
    let text = template(&json!({"g": group, "a": repeated[0]}));
    assert_eq!(one(&text), expected);
}

#[test]
fn what_a_template_leaves_open_is_refused() {
    let rule = |name: &str| {
        let mut rule = fixture::rule("A 100 In Allow Tcp * * > * 22");
        rule["name"] = json!(name);
        rule["type"] = json!("Microsoft.Network/networkSecurityGroups/securityRules");
        rule
    };
    let with = |key: &str, value: Value| {
        let mut group = group_resource(&[]);
        group[key] = value;
        group
    };
    let mut looped = group_resource(&[]);
    looped["properties"]["copy"] = json!([{"name": "securityRules", "count": 3}]);
    let nested = json!({
        "type": "Microsoft.Resources/deployments", "name": "d",
        "properties": {"template": {"resources": [group_resource(&[])]}},
    });
    for (resources, message) in [
        (
            json!([group_resource(&[]), rule("other/A")]),
            "belongs to group `other`",
        ),
        (json!([with("copy", json!({"count": 2}))]), "in a loop"),
        (json!([looped]), "in a loop"),
        (
            json!([with("condition", json!("[parameters('x')]"))]),
            "template expression",
        ),
        (json!([group_resource(&[]), nested]), "nested template"),
        (
            json!([with("condition", json!(false))]),
            "no network security group",
        ),
        (
            json!([with("existing", json!(true))]),
            "no network security group",
        ),
        (json!([]), "no network security group"),
    ] {
        let error = read::read("t.json", &template(&resources))
            .expect_err(message)
            .to_string();
        assert!(error.contains(message), "{error}");
    }
}
