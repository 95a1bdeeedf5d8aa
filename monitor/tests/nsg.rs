//! `nodewatch nsg` and `explain`, run as users run them.

#[path = "nsg/explain.rs"]
mod explain;
#[path = "nsg/lint.rs"]
mod lint;
#[path = "nsg/profile.rs"]
mod profile;
#[path = "nsg/refused.rs"]
mod refused;
#[path = "nsg/replay.rs"]
mod replay;

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

const SSH: &str = r#"{"id":1,"direction":"Inbound","protocol":"Tcp","source":"203.0.113.9","source_port":50123,"destination":"10.224.0.5","destination_port":22}"#;

/// A document of the test data.
fn sample(name: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("core/src/nsg/testdata").join(name);
    path.to_str().expect("a path in UTF-8").to_owned()
}

fn nodewatch(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodewatch"));
    command.args(arguments);
    command
}

/// Runs it with an input and waits.
fn run(arguments: &[&str], input: &str) -> Output {
    let mut child = nodewatch(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // A program that refuses its arguments does not read.
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("the writer ends");
    output
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// Runs `nsg eval` over these flows; all must be good.
fn eval(rules: &[&str], flows: &[&str]) -> Vec<Value> {
    let arguments = [&["nsg", "eval", "--flows", "-"], rules].concat();
    let output = run(&arguments, &flows.join("\n"));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    lines(&output)
}

#[test]
fn eval_prints_what_the_contract_says() {
    let file = format!("subnet={}", sample("snet-nodes-nsg.rest.json"));
    let output = run(&["nsg", "eval", "--nsg", &file, "--flows", "-"], SSH);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        concat!(
            r#"{"id":1,"access":"Deny","rule":"DenySsh","nsg":"subnet","evaluated":"#,
            r#"[{"nsg":"subnet","name":"nsg-snet-nodes","rule":"DenySsh","priority":110,"access":"Deny"}]}"#,
            "\n"
        )
    );
}

#[test]
fn verdicts_come_in_the_order_of_the_flows_with_their_ids() {
    let file = format!("nic={}", sample("snet-nodes-nsg.rest.json"));
    let flow = |id: &Value, port: u16| {
        json!({"id": id, "direction": "inbound", "protocol": 6, "source": "203.0.113.9",
            "destination": "10.224.0.5", "destination_port": port})
        .to_string()
    };
    let ids: Vec<Value> = vec![
        json!("b"),
        json!(3.5),
        json!({"x": [1]}),
        json!(null),
        json!("b"),
    ];
    let flows: Vec<_> = ids.iter().map(|id| flow(id, 443)).collect();
    let flows: Vec<_> = flows.iter().map(String::as_str).collect();
    let found = eval(&["--nsg", &file], &flows);
    let found: Vec<_> = found.iter().map(|line| line["id"].clone()).collect();
    assert_eq!(found, ids);
}

#[test]
fn eval_answers_a_line_before_the_next_one_comes() {
    let file = format!("subnet={}", sample("snet-nodes-nsg.rest.json"));
    let mut child = nodewatch(&["nsg", "eval", "--nsg", &file, "--flows", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    for _ in 0..3 {
        writeln!(stdin, "{SSH}").expect("it reads");
        let mut line = String::new();
        stdout.read_line(&mut line).expect("it answers");
        assert!(line.contains("DenySsh"), "{line}");
    }
    drop(stdin);
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn every_flag_of_eval_has_its_effect() {
    let subnet = format!("subnet={}#nsg-snet-nodes", sample("nsg-list.cli.json"));
    let nic = format!(
        "nic={}#AKS-AGENTPOOL-27418563-nsg",
        sample("aks-managed-nic-nsg.cli.json")
    );
    let tags = sample("service-tags-public.sample.json");
    let out = |ip: &str, port: u16| {
        json!({"direction": "Outbound", "protocol": "Udp", "source": "10.224.0.5", "source_port": 4000,
            "destination": ip, "destination_port": port})
        .to_string()
    };
    let tunnel = out("13.69.0.1", 1194);
    let check = |rules: &[&str], flow: &str, expected: &str| {
        let found = eval(rules, &[flow]);
        let text = |key: &str| found[0][key].as_str().unwrap_or("-").to_owned();
        let found = format!("{} {} {}", text("access"), text("nsg"), text("rule"));
        assert_eq!(found, expected, "{rules:?} {flow}");
    };
    check(&["--nsg", &subnet], &tunnel, "Indeterminate subnet -");
    check(
        &["--nsg", &subnet, "--service-tags", &tags],
        &tunnel,
        "Allow subnet AllowControlPlaneTunnel",
    );
    let tag = [
        "--nsg",
        &subnet,
        "--tag",
        "azurecloud.westeurope=192.0.2.0/24",
    ];
    check(&tag, &tunnel, "Deny subnet DenyInternetOut");
    check(
        &["--nsg", &nic],
        &out("10.224.9.9", 80),
        "Indeterminate nic -",
    );
    let network = ["--nsg", &nic, "--virtual-network", "10.224.0.0/12"];
    check(
        &network,
        &out("10.224.9.9", 80),
        "Allow nic AllowVnetOutBound",
    );
    let host = json!({"direction": "Inbound", "protocol": "Tcp", "source": "203.0.113.9",
        "destination": "10.224.0.7", "destination_port": 40001})
    .to_string();
    check(&["--nsg", &nic], &host, "Indeterminate nic -");
    let asg = ["--nsg", &nic, "--asg", "ASG-aks-gamepool=10.224.0.7"];
    check(&asg, &host, "Allow nic allow-host-ports-gamepool-tcp");
    let effective = sample("node-nic-effective.cli.json");
    check(&["--effective", &effective], SSH, "Deny subnet DenySsh");
    check(&[], SSH, "Allow none -");
    let reply =
        json!({"reply": true, "direction": "Inbound", "protocol": "Tcp", "source": "203.0.113.9",
        "source_port": 443, "destination": "10.224.0.5", "destination_port": 40000})
        .to_string();
    check(&["--nsg", &nic], &reply, "Allow nic AllowInternetOutBound");
    check(
        &["--nsg", &subnet],
        &out("168.63.129.16", 53),
        "Allow platform -",
    );
    let folder = TempDir::new().expect("a folder");
    let admin = folder.path().join("admin.json");
    let rule = json!([{"name": "Admin", "priority": 1, "direction": "Inbound", "access": "AlwaysAllow",
        "protocol": "Tcp", "sourceAddressPrefix": "203.0.113.0/24", "destinationAddressPrefix": "*",
        "destinationPortRange": "22"}]);
    fs::write(&admin, rule.to_string()).expect("written");
    let admin = admin.to_str().expect("UTF-8");
    check(
        &["--nsg", &subnet, "--admin-rules", admin],
        SSH,
        "Allow admin Admin",
    );
}

#[test]
fn rules_may_come_from_standard_input_and_names_may_have_a_hash() {
    let folder = TempDir::new().expect("a folder");
    let flows = folder.path().join("flows.jsonl");
    fs::write(&flows, SSH).expect("written");
    let flows = flows.to_str().expect("UTF-8");
    let text = fs::read_to_string(sample("nsg-list.cli.json")).expect("a sample");
    let arguments = [
        "nsg",
        "eval",
        "--nsg",
        "subnet=-#nsg-snet-nodes",
        "--flows",
        flows,
    ];
    assert_eq!(lines(&run(&arguments, &text))[0]["rule"], "DenySsh");
    let odd = folder.path().join("a#b.json");
    fs::copy(sample("snet-nodes-nsg.rest.json"), &odd).expect("copied");
    let odd = format!("subnet={}", odd.display());
    assert_eq!(eval(&["--nsg", &odd], &[SSH])[0]["rule"], "DenySsh");
}

#[test]
fn what_approximates_is_said_once() {
    let file = format!("subnet={}", sample("snet-nodes-nsg.rest.json"));
    let web = SSH.replace(":22}", ":443}");
    let output = run(
        &["nsg", "eval", "--nsg", &file, "--flows", "-"],
        &format!("{web}\n{web}\n"),
    );
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("2 verdicts rest on an Internet computed from VirtualNetwork"),
        "{error}"
    );
    assert!(error.contains("no admin rules given"), "{error}");
    let effective = sample("node-nic-effective.cli.json");
    let output = run(
        &["nsg", "eval", "--effective", &effective, "--flows", "-"],
        &web,
    );
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let file = format!("subnet={}", sample("snet-nodes-nsg.rest.json"));
    let folder = TempDir::new().expect("a folder");
    let flows = folder.path().join("flows.jsonl");
    fs::write(&flows, format!("{SSH}\n").repeat(20_000)).expect("written");
    let flows = flows.to_str().expect("UTF-8");
    let mut child = nodewatch(&["nsg", "eval", "--nsg", &file, "--flows", flows])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn without_groups_everything_is_allowed_and_that_is_said() {
    let output = run(&["nsg", "eval", "--flows", "-"], SSH);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        lines(&output),
        [
            json!({"id": 1, "access": "Allow", "nsg": "none", "evaluated": [],
            "reason": "no rules apply here"})
        ]
    );
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.starts_with("nodewatch: no network security group is given: "),
        "{error}"
    );
    let file = format!("nic={}", sample("snet-nodes-nsg.rest.json"));
    let output = run(&["nsg", "eval", "--nsg", &file, "--flows", "-"], SSH);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!error.contains("no network security group"), "{error}");
}
