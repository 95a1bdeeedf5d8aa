//! `nodewatch explain`.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{run, sample};

#[test]
fn explain_shows_each_rule_and_field() {
    let file = format!("subnet={}", sample("snet-nodes-nsg.rest.json"));
    let arguments = [
        "explain",
        "198.51.100.77",
        "10.224.0.4",
        "--port",
        "22",
        "--nsg",
        &file,
    ];
    let text = run(&arguments, "");
    let text = String::from_utf8_lossy(&text.stdout);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[..4],
        [
            "subnet nsg-snet-nodes: Deny by DenySsh",
            "PRIORITY   RULE                            ACCESS   PROTOCOL   SOURCE   SOURCE PORT   DESTINATION   PORT   DECIDES",
            "100        AllowSshFromBastion             Allow    yes        no       yes           yes           yes    -",
            "110        DenySsh                         Deny     yes        yes      yes           yes           yes    yes",
        ],
        "{text}"
    );
    // Rules after the one that decides are shown, too, to the last.
    assert!(text.contains("65500      DenyAllInBound"), "{text}");
    assert_eq!(
        lines.last(),
        Some(&"Inbound: Deny, decided by subnet rule DenySsh")
    );
    let json = run(&[&arguments[..], &["-o", "json"]].concat(), "");
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    // The answer of Azure's own diagnostics for the same question.
    let azure = fs::read_to_string(sample("nsg-diagnostics.json")).expect("a sample");
    let azure: Value = serde_json::from_str(&azure).expect("JSON");
    let azure = &azure["response"]["results"][0]["networkSecurityGroupResult"];
    assert_eq!(json["nsg"]["access"], azure["securityRuleAccessResult"]);
    let group = &json["nsg"]["evaluatedNetworkSecurityGroups"][0];
    assert_eq!(
        group["matchedRule"],
        json!({"ruleName": "DenySsh", "action": "Deny"})
    );
    let table = &group["rulesEvaluationResult"];
    let expected = azure["evaluatedNetworkSecurityGroups"][0]["rulesEvaluationResult"].as_array();
    for (index, expected) in expected.expect("rules").iter().enumerate() {
        let found = &table[index];
        for key in [
            "protocolMatched",
            "sourceMatched",
            "sourcePortMatched",
            "destinationMatched",
            "destinationPortMatched",
        ] {
            assert_eq!(found[key], expected[key], "{key} of {index}");
        }
        let name = expected["name"]
            .as_str()
            .and_then(|name| name.strip_prefix("UserRule_"));
        assert_eq!(found["name"].as_str(), name);
    }
    let outbound = run(
        &[
            "explain",
            "10.224.0.4",
            "203.0.113.9",
            "--port",
            "25",
            "--nsg",
            &file,
        ],
        "",
    );
    let outbound = String::from_utf8_lossy(&outbound.stdout);
    assert!(
        outbound.ends_with("Outbound: Deny, decided by subnet rule DenySmtp\n"),
        "{outbound}"
    );
}

fn explain(arguments: &[&str], input: &str) -> Value {
    let output = run(&[&["explain", "-o", "json"], arguments].concat(), input);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{error}"))
}

#[test]
fn explain_goes_on_after_a_rule_that_may_match() {
    let rule = |name: &str, priority: u16, access: &str, source: &str| {
        json!({"name": name, "priority": priority, "direction": "Inbound", "access": access,
            "protocol": "Tcp", "sourceAddressPrefix": source, "destinationAddressPrefix": "*",
            "destinationPortRange": "22"})
    };
    let document = json!({"name": "g", "securityRules": [
        rule("Tagged", 100, "Allow", "NoSuchTag"), rule("Office", 110, "Deny", "203.0.113.0/24"),
    ]});
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("nsg.json");
    fs::write(&path, document.to_string()).expect("written");
    let file = format!("subnet={}", path.display());
    let found = explain(
        &["203.0.113.9", "10.224.0.4", "--port", "22", "--nsg", &file],
        "",
    );
    assert_eq!(found["nsg"]["access"], "Indeterminate");
    let group = &found["nsg"]["evaluatedNetworkSecurityGroups"][0];
    assert_eq!(
        group["matchedRule"],
        json!({"ruleName": "Tagged", "action": "Indeterminate"})
    );
    let decides: Vec<_> = group["rulesEvaluationResult"]
        .as_array()
        .expect("rules")
        .iter()
        .map(|rule| format!("{} {}", rule["name"], rule["decides"]).replace('"', ""))
        .collect();
    assert_eq!(
        decides,
        [
            "Tagged maybe",
            "Office maybe",
            "AllowVnetInBound no",
            "AllowAzureLoadBalancerInBound no",
            "DenyAllInBound no"
        ]
    );
}

const MANIFESTS: &str = "
kind: Namespace
apiVersion: v1
metadata: {name: shop}
---
kind: Node
apiVersion: v1
metadata: {name: aks-1}
status: {addresses: [{type: InternalIP, address: 10.224.0.4}]}
---
kind: Pod
apiVersion: v1
metadata: {name: cart-0, namespace: shop, labels: {app: cart}}
spec: {nodeName: aks-1}
status: {podIP: 10.224.0.77, podIPs: [{ip: 10.224.0.77}]}
---
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: closed, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress]}
";

#[test]
fn explain_takes_names_and_manifests_and_asks_policies_too() {
    let file = format!("subnet={}", sample("snet-nodes-nsg.rest.json"));
    let names = ["node/aks-1", "shop/cart-0", "--port", "8080"];
    let both = [&names[..], &["--nsg", &file, "--manifests", "-"]].concat();
    let found = explain(&both, MANIFESTS);
    assert_eq!(
        found["source"],
        json!({"name": "node/aks-1", "ip": "10.224.0.4"})
    );
    assert_eq!(
        found["destination"],
        json!({"name": "shop/cart-0", "ip": "10.224.0.77", "port": 8080})
    );
    assert!(found["nsg"]["access"].is_string(), "{found}");
    assert!(
        found["policy"]["steps"]
            .as_array()
            .is_some_and(|steps| !steps.is_empty())
    );
    // Another pod than its own node's.
    let found = explain(
        &[
            "10.224.0.9",
            "shop/cart-0",
            "--port",
            "8080",
            "--manifests",
            "-",
        ],
        MANIFESTS,
    );
    assert_eq!(found["policy"]["allowed"], false, "{found}");
    assert_eq!(
        found["policy"]["ingress"]["by"],
        json!(["NetworkPolicy shop/closed"])
    );
    assert!(found.get("nsg").is_none(), "{found}");
    let text = run(
        &[
            "explain",
            "10.224.0.9",
            "shop/cart-0",
            "--port",
            "8080",
            "--manifests",
            "-",
        ],
        MANIFESTS,
    );
    let text = String::from_utf8_lossy(&text.stdout);
    assert!(text.starts_with("shop/cart-0 is 10.224.0.77\n"), "{text}");
    assert!(text.contains("shop/cart-0 TCP 8080: denied"), "{text}");
}

#[test]
fn policy_explain_takes_the_ends_that_explain_takes() {
    let ends = [
        ("node/aks-1", "shop/cart-0"),
        ("10.224.0.9", "shop/cart-0"),
        ("shop/cart-0", "node/aks-1"),
        ("node/x", "shop/cart-0"),
        ("shop/x", "10.0.0.1"),
        ("x", "10.0.0.1"),
        ("10.0.0.1", "::1"),
    ];
    let mut told = 0;
    for (from, to) in ends {
        let rest = [from, to, "--port", "8080", "--manifests", "-", "-o", "json"];
        let [one, other] = [&["explain"][..], &["policy", "explain"]]
            .map(|command| run(&[command, &rest].concat(), MANIFESTS));
        assert_eq!(one.status.code(), other.status.code(), "{other:?}");
        if one.status.success() {
            let [one, other] = [one, other]
                .map(|output| serde_json::from_slice::<Value>(&output.stdout).expect("JSON"));
            assert_eq!(one["policy"], other, "{from} {to}");
            told += 1;
        } else {
            let [one, other] =
                [one, other].map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
            assert!(!one.is_empty() && one == other, "{one} {other}");
        }
    }
    assert_eq!(told, 3);
    for command in [&["explain"][..], &["policy", "explain"]] {
        let help = run(&[command, &["--help"]].concat(), "");
        let help = String::from_utf8_lossy(&help.stdout).replace(['\n', ' '], "");
        let forms = "anaddress,NAMESPACE/POD,NAMESPACE/KIND/WORKLOADornode/NAME";
        assert_eq!(help.matches(forms).count(), 2, "{help}");
    }
}

#[test]
fn explain_says_what_is_missing() {
    let file = format!("subnet={}", sample("snet-nodes-nsg.rest.json"));
    for (arguments, status, message) in [
        (vec!["10.0.0.1", "10.0.0.2"], 2, "no rules: give --nsg"),
        (
            vec!["10.0.0.1", "shop/x", "--nsg", &file],
            2,
            "names need --manifests DIR",
        ),
        (
            vec!["10.0.0.1", "10.0.0.2", "--socket", "/nonexistent/api.sock"],
            3,
            "no nodewatch daemon",
        ),
        (
            vec!["10.0.0.1", "shop/x", "--manifests", "-"],
            2,
            "pod shop/x is not in the manifests",
        ),
        (
            vec!["10.0.0.1", "node/x", "--manifests", "-"],
            2,
            "node `x` is not among the nodes",
        ),
        (
            vec!["10.0.0.1", "x", "--manifests", "-"],
            2,
            "`x` is not an address, NAMESPACE/POD",
        ),
        (
            vec!["10.0.0.1", "::1", "--nsg", &file],
            2,
            "different address families",
        ),
    ] {
        let output = run(&[&["explain"], &arguments[..]].concat(), MANIFESTS);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(message), "{arguments:?}: {error}");
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {error}");
    }
}
