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

const DUAL_STACK: &str = "
---
kind: Pod
apiVersion: v1
metadata: {name: dual, namespace: shop}
status: {podIPs: [{ip: 10.224.0.78}, {ip: 'fd00::78'}]}
---
kind: Pod
apiVersion: v1
metadata: {name: six, namespace: shop}
status: {podIPs: [{ip: 'fd00::79'}]}
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
        // Of the addresses that both have.
        ("shop/dual", "shop/six"),
        ("shop/six", "shop/cart-0"),
    ];
    let manifests = format!("{MANIFESTS}{DUAL_STACK}");
    let mut told = 0;
    for (from, to) in ends {
        let rest = [from, to, "--port", "8080", "--manifests", "-", "-o", "json"];
        let [one, other] = [&["explain"][..], &["policy", "explain"]]
            .map(|command| run(&[command, &rest].concat(), &manifests));
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
    assert_eq!(told, 4);
    for command in [&["explain"][..], &["policy", "explain"]] {
        let help = run(&[command, &["--help"]].concat(), "");
        let help = String::from_utf8_lossy(&help.stdout).replace(['\n', ' '], "");
        let forms = "anaddress,NAMESPACE/POD,NAMESPACE/KIND/WORKLOADornode/NAME";
        assert_eq!(help.matches(forms).count(), 2, "{help}");
    }
}

#[test]
fn explain_by_a_part_of_the_manifests_does_not_end_well() {
    let broken = "---
kind: Pod
apiVersion: v1
metadata: {name: other, namespace: shop, labels: []}
";
    let manifests = format!("{MANIFESTS}{broken}");
    let rest = "10.224.0.9 shop/cart-0 --port 8080 --manifests - -o json";
    for command in ["explain", "policy explain"] {
        let arguments: Vec<_> = command.split(' ').chain(rest.split(' ')).collect();
        let output = run(&arguments, &manifests);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command}: {error}");
        assert!(error.contains("left out of the manifests"), "{error}");
        // What is known is told all the same.
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON");
        assert_eq!(run(&arguments, MANIFESTS).status.code(), Some(0));
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

/// Rules of which the inbound ones deny SSH, in a file.
fn no_ssh(folder: &TempDir) -> String {
    let rule = json!({"name": "NoSsh", "priority": 100, "direction": "Inbound", "access": "Deny",
        "protocol": "Tcp", "sourceAddressPrefix": "*", "destinationAddressPrefix": "*",
        "destinationPortRange": "22"});
    let path = folder.path().join("nsg.json");
    let document = json!({"name": "g", "securityRules": [rule]});
    fs::write(&path, document.to_string()).expect("written");
    format!("subnet={}", path.display())
}

#[test]
fn the_direction_follows_from_what_the_ends_are_and_is_never_guessed() {
    let folder = TempDir::new().expect("a folder");
    let file = no_ssh(&folder);
    let overlay = MANIFESTS.replace("10.224.0.77", "10.244.1.7");
    let check = |ends: [&str; 2], more: &[&str], expected: Value| {
        let rules = [
            "--nsg",
            &file,
            "--virtual-network",
            "10.224.0.0/12",
            "--port",
            "22",
        ];
        let found = explain(&[&ends[..], &rules, more].concat(), &overlay);
        let nsg = &found["nsg"];
        let found = json!([nsg["direction"], nsg["access"], nsg["rule"]]);
        assert_eq!(found, expected, "{ends:?} {more:?}");
    };
    let (named, internet) = (["--manifests", "-"], "203.0.113.9");
    let outbound = json!(["Outbound", "Allow", "AllowInternetOutBound"]);
    let inbound = json!(["Inbound", "Deny", "NoSsh"]);
    // A pod of an overlay network is not of the virtual network, and it is its node's card that
    // the packet leaves by.
    check(["shop/cart-0", internet], &named, outbound.clone());
    check(["10.244.1.7", internet], &named, outbound.clone());
    check([internet, "shop/cart-0"], &named, inbound.clone());
    check(["node/aks-1", internet], &named, outbound.clone());
    // Of a peer's address the rules of the node are meant.
    check(["10.225.0.9", "node/aks-1"], &named, inbound.clone());
    check(["10.224.0.4", internet], &[], outbound.clone());
    check([internet, "10.224.0.4"], &[], inbound.clone());
    // Without objects nobody knows whose the overlay's addresses are.
    let open = json!([null, "Indeterminate", null]);
    check(["10.244.1.7", internet], &[], open.clone());
    let said = ["--direction", "outbound"];
    check(["10.244.1.7", internet], &said, outbound);
    // From node to node, both what leaves and what arrives is judged.
    check(["10.224.0.4", "10.224.0.5"], &[], open);
    // Both directions deny what is not of the virtual network.
    let denied = json!([null, "Deny", null]);
    check(["node/aks-1", "shop/cart-0"], &named, denied);
    check(
        ["10.224.0.4", "10.224.0.5"],
        &["--direction", "inbound"],
        inbound,
    );
}

#[test]
fn where_the_direction_is_open_both_are_shown() {
    let folder = TempDir::new().expect("a folder");
    let file = no_ssh(&folder);
    let ask = |port: &str| {
        let rules = ["--nsg", &file, "--virtual-network", "10.224.0.0/12"];
        let asked = ["explain", "10.224.0.4", "10.224.0.5", "--port", port];
        let output = run(&[&asked[..], &rules].concat(), "");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = ask("22");
    let first = text.lines().next().unwrap_or_default();
    assert_eq!(first, "Inbound, subnet g: Deny by NoSsh", "{text}");
    assert!(
        text.contains("\nOutbound, subnet g: Allow by AllowVnetOutBound\n"),
        "{text}"
    );
    assert!(
        text.ends_with(
            "Inbound or outbound: Indeterminate, decided by subnet: which end is at the network \
             card is not known, for both ends are of the virtual network (--direction says it): \
             inbound it is Deny by NoSsh, outbound Allow by AllowVnetOutBound\n"
        ),
        "{text}"
    );
    // What both ways come to is certain.
    let text = ask("80");
    assert!(
        text.contains("Inbound or outbound: Allow, decided by subnet"),
        "{text}"
    );
}

#[test]
fn explain_says_what_a_verdict_rests_on() {
    let folder = TempDir::new().expect("a folder");
    let file = no_ssh(&folder);
    let ask = |destination: &str, port: &str| {
        let rules = ["--nsg", &file, "--virtual-network", "10.224.0.0/12"];
        let asked = ["explain", "10.224.0.4", destination, "--port", port];
        let output = run(&[&asked[..], &rules].concat(), "");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("no admin rules given"), "{error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = ask("203.0.113.9", "443");
    assert!(
        text.ends_with(
            "note: the verdict rests on an Internet computed from VirtualNetwork, which \
             approximates Azure's own list; effective rules (--effective) have that list\n\
             Outbound: Allow, decided by subnet rule AllowInternetOutBound\n"
        ),
        "{text}"
    );
    // Rules do not apply to the platform's services, and no table says that one decides.
    let text = ask("168.63.129.16", "53");
    assert!(text.starts_with("subnet g: rules do not apply\n"), "{text}");
    assert!(text.lines().all(|line| !line.ends_with("yes")), "{text}");
    assert!(
        text.contains("Outbound: Allow, decided by platform"),
        "{text}"
    );
    assert!(!text.contains("note:"), "{text}");
}
