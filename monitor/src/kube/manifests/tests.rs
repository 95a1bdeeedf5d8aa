//! What is read of manifests, and what is told of what is not.

use std::fs;

use super::*;

mod addresses;
mod hostile;

fn parse(text: &str) -> Manifests {
    Manifests::parse("m.yaml", text)
}

/// Lines and texts of diagnostics.
fn told(manifests: &Manifests) -> Vec<(u64, String)> {
    manifests
        .diagnostics
        .iter()
        .map(|diagnostic| (diagnostic.line.unwrap_or(0), diagnostic.message.clone()))
        .collect()
}

/// Names of pods.
fn pods(manifests: &Manifests) -> Vec<String> {
    let name = |change: &Change| match change {
        Change::Pod(pod) => Some(format!("{}/{}", pod.namespace, pod.name)),
        _ => None,
    };
    manifests.cluster.iter().filter_map(name).collect()
}

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: NAME, namespace: x}\n";

fn pod(name: &str) -> String {
    POD.replace("NAME", name)
}

#[test]
fn documents_are_read_one_by_one() {
    let text = format!(
        "%YAML 1.2\n---\n{}--- # second\n{}...\n# only a comment\n---\n---\n\n{}",
        pod("a"),
        pod("b"),
        pod("c")
    );
    let manifests = parse(&text);
    assert_eq!(told(&manifests), []);
    assert_eq!(pods(&manifests), ["x/a", "x/b", "x/c"]);
    for text in ["", "\n", "# nothing\n", "---\n---\n", "\u{feff}"] {
        let manifests = parse(text);
        assert_eq!(
            (told(&manifests), pods(&manifests)),
            (vec![], vec![]),
            "{text:?}"
        );
    }
    let manifests = parse(&format!("\u{feff}{}", pod("a").replace('\n', "\r\n")));
    assert_eq!(pods(&manifests), ["x/a"]);
}

#[test]
fn a_broken_document_spoils_no_other_and_is_named_by_its_line() {
    let text = format!(
        "{}---\nkind: Pod\nmetadata: [unclosed\nname: x\n---\n{}---\n\"open\n---\n{}",
        pod("a"),
        pod("b"),
        pod("c")
    );
    let manifests = parse(&text);
    assert_eq!(pods(&manifests), ["x/a", "x/b", "x/c"]);
    assert!(manifests.is_broken);
    assert_eq!(manifests.left_out, 2);
    let lines: Vec<u64> = told(&manifests).iter().map(|(line, _)| *line).collect();
    assert!((5..=8).contains(&lines[0]), "{:?}", manifests.diagnostics);
    assert!((12..=13).contains(&lines[1]), "{:?}", manifests.diagnostics);
    let text = manifests.diagnostics[0].to_string();
    assert!(
        text.starts_with(&format!("m.yaml:{}: is no YAML: ", lines[0])),
        "{text}"
    );
    assert!(text.contains("left out") && !text.contains('\n'), "{text}");
}

#[test]
fn an_invalid_object_is_skipped_with_line_and_field() {
    let text = format!(
        "{}---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: bad
  namespace: x
spec:
  podSelector: {{}}
  ingress:
  - from:
    - ipBlock:
        cidr: 10.0.0.0/8
    - ipBlock:
        cidr: nonsense
---
{}",
        pod("a"),
        pod("b")
    );
    let manifests = parse(&text);
    assert_eq!(pods(&manifests), ["x/a", "x/b"]);
    assert!(!manifests.is_broken && manifests.policies.is_empty());
    assert_eq!(
        manifests.diagnostics[0].to_string(),
        "m.yaml:17: NetworkPolicy x/bad: spec.ingress[0].from[1].ipBlock.cidr: `nonsense` is no \
         address range: write it as 192.0.2.0/24 or 2001:db8::/64; skipped: verdicts are as without \
         this policy, as the API server refuses it"
    );
    // A field that is missing is told at the nearest that is there.
    let manifests = parse("apiVersion: v1\nkind: Pod\nmetadata:\n  namespace: x\n");
    assert_eq!(
        told(&manifests),
        [(4, "metadata.name: missing: expected a string".to_owned())]
    );
}

#[test]
fn lists_are_taken_apart() {
    let item =
        |name: &str| format!("{{\"metadata\": {{\"name\": \"{name}\", \"namespace\": \"x\"}}}}");
    let typed = format!(
        "{{\"apiVersion\": \"v1\", \"kind\": \"PodList\", \"items\": [{}, {}]}}",
        item("a"),
        item("b")
    );
    assert_eq!(pods(&parse(&typed)), ["x/a", "x/b"]);
    let text = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {typed}\n- apiVersion: v1\n  kind: Pod\n  metadata: {{name: c}}\n- apiVersion: v1\n  kind: Pod\n  metadata: {{name: UPPER}}\n"
    );
    let manifests = parse(&text);
    assert_eq!(pods(&manifests), ["x/a", "x/b", "default/c"]);
    assert_eq!(told(&manifests)[0].0, 10, "{:?}", manifests.diagnostics);
    // An object with items that is no list is no list.
    let manifests = parse(
        "apiVersion: a/v1\nkind: Cart\nitems: [{apiVersion: v1, kind: Pod, metadata: {name: d}}]\n",
    );
    assert_eq!(pods(&manifests), [""; 0]);
    assert_eq!(manifests.ignored["a/v1 Cart"], 1);
}

#[test]
fn json_is_read_also_several_values_of_it() {
    let object =
        "{\"apiVersion\": \"v1\", \"kind\": \"Pod\",\n \"metadata\": {\"name\": \"NAME\"}}";
    let text = format!(
        "{}\n{}",
        object.replace("NAME", "a"),
        object.replace("NAME", "b")
    );
    assert_eq!(pods(&parse(&text)), ["default/a", "default/b"]);
    let manifests =
        parse("{\"apiVersion\": \"v1\",\n\"kind\": \"Pod\",\n\"metadata\": {\"name\": \"a\",,}}");
    assert!(manifests.is_broken);
    assert_eq!(manifests.diagnostics[0].line, Some(3));
    let manifests =
        parse("{\"apiVersion\": \"v1\",\n\"kind\": \"Pod\",\n\"metadata\": {\n\"name\": 7}}");
    assert_eq!(
        told(&manifests),
        [(
            4,
            "metadata.name: expected a string, found a number".to_owned()
        )]
    );
    // Flow style that is more than JSON is YAML.
    assert_eq!(
        pods(&parse("{apiVersion: v1, kind: Pod, metadata: {name: c}}")),
        ["default/c"]
    );
}

#[test]
fn other_kinds_are_ignored_and_counted() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  a: |\n    --- x\n---\n\
        apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nspec: 1\n---\n\
        apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nspec: {types: [Ingress]}\n---\n\
        replicas: 3\nimage: a\n---\n- 1\n- two\n---\njust text\n---\n12\n";
    let manifests = parse(text);
    assert_eq!(told(&manifests), []);
    let ignored: Vec<_> = manifests.ignored.keys().map(String::as_str).collect();
    assert_eq!(
        ignored,
        [
            "cilium.io/v2 CiliumNetworkPolicy",
            "projectcalico.org/v3 NetworkPolicy",
            "v1 ConfigMap"
        ]
    );
    assert!(manifests.policies.is_empty());
}

#[test]
fn what_is_skipped_while_reading_is_not_missed() {
    let text = "
apiVersion: v1
kind: Pod
metadata:
  name: a
  labels: {env: prod, volumes: kept, data: kept, conditions: kept}
  managedFields: [{manager: m}]
  annotations: {a: b}
spec:
  volumes: [{name: v}]
  containers:
  - name: c
    env: [{name: E, value: v}]
    ports: [{name: web, containerPort: 80}]
status: {podIP: 10.0.0.1, conditions: [{type: Ready}]}
";
    let manifests = parse(text);
    let Change::Pod(pod) = &manifests.cluster[0] else {
        panic!("{:?}", manifests.cluster);
    };
    let labels: Vec<_> = pod.labels.keys().map(String::as_str).collect();
    assert_eq!(labels, ["conditions", "data", "env", "volumes"]);
    assert_eq!(pod.ports.len(), 1);
    assert_eq!(pod.ips.len(), 1);
}

#[test]
fn hostile_documents_are_refused_and_told_of() {
    let deep = "[".repeat(5_000) + &"]".repeat(5_000);
    let deep_block: Vec<_> = (0..200)
        .map(|depth| {
            " ".repeat(depth)
                + "a:
"
        })
        .collect();
    let deep_block = deep_block.concat();
    let mut bomb = vec!["a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned()];
    for level in 1..9 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        bomb.push(format!("a{level}: &a{level} [{below}]\n"));
    }
    let bomb = bomb.concat();
    let deep_json = "{\"a\":".repeat(5_000) + "1" + &"}".repeat(5_000);
    for (what, text) in [
        ("deep", deep),
        ("block", deep_block),
        ("bomb", bomb),
        ("json", deep_json),
    ] {
        let manifests = parse(&format!("{}---\n{text}\n---\n{}", pod("a"), pod("b")));
        assert!(manifests.is_broken, "{what}");
        assert_eq!(pods(&manifests), ["x/a", "x/b"], "{what}");
        assert!(manifests.diagnostics[0].to_string().len() < 500, "{what}");
    }
    // An object of absurd size is skipped alone.
    let labels: Vec<_> = (0..100_000)
        .map(|number| format!("l{number}: v, "))
        .collect();
    let labels = labels.concat();
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, labels: {{{labels}}}}}\n---\n{}",
        pod("b")
    );
    let manifests = parse(&text);
    assert_eq!(pods(&manifests), ["x/b"]);
    assert!(
        told(&manifests)[0].1.contains("more than 4096 labels"),
        "{:?}",
        manifests.diagnostics
    );
    // Bytes that would command a terminal are shown, not sent.
    let manifests = parse("apiVersion: v1\nkind: Pod\nmetadata: {name: \"\\e[31mred\\n\"}\n");
    let text = manifests.diagnostics[0].to_string();
    assert!(!text.contains('\u{1b}') && !text.contains('\n'), "{text:?}");
}

#[test]
fn diagnostics_are_bounded() {
    let text = "apiVersion: v1\nkind: Pod\n---\n".repeat(1_500);
    let manifests = parse(&text);
    assert_eq!(manifests.diagnostics.len(), MAX_DIAGNOSTICS);
    assert_eq!(manifests.more_diagnostics, 500);
    assert_eq!(manifests.left_out, 1_500);
}

#[test]
fn directories_are_read_with_all_below() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::create_dir_all(root.join("sub/deeper")).unwrap();
    fs::create_dir_all(root.join(".git")).unwrap();
    for (file, name) in [
        ("b.yaml", "b"),
        ("a.yml", "a"),
        ("sub/c.YAML", "c"),
        ("sub/deeper/d.json", "d"),
        ("sub/ignored.txt", "no"),
        (".git/no.yaml", "no"),
        ("..data.yaml", "no"),
    ] {
        let text = pod(name);
        let text = if file.ends_with("json") {
            format!(
                "{{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {{\"name\": \"{name}\", \"namespace\": \"x\"}}}}"
            )
        } else {
            text
        };
        fs::write(root.join(file), text).unwrap();
    }
    std::os::unix::fs::symlink(root, root.join("sub/loop")).unwrap();
    fs::write(root.join("z.yaml"), [b'a', b'\n', 0xff, 0xfe]).unwrap();
    let manifests = Manifests::read(&[root.to_owned()]).unwrap();
    assert_eq!(pods(&manifests), ["x/a", "x/b", "x/c", "x/d"]);
    assert_eq!(manifests.diagnostics.len(), 1);
    let text = manifests.diagnostics[0].to_string();
    assert!(text.contains("z.yaml:2: is no text in UTF-8"), "{text}");
    // A file that is named is read whatever its name.
    let manifests = Manifests::read(&[root.join("sub/ignored.txt")]).unwrap();
    assert_eq!(pods(&manifests), ["x/no"]);
    let error = Manifests::read(&[root.join("none")]).unwrap_err();
    assert!(error.to_string().contains("none: "), "{error}");
}

#[test]
fn pods_have_what_names_and_verdicts_need() {
    let text = "
apiVersion: v1
kind: Pod
metadata:
  name: web-5d9f7c-x2x4z
  namespace: shop
  uid: 0d6a
  creationTimestamp: '2026-11-24T10:00:00Z'
  labels: {app: web, pod-template-hash: 5d9f7c}
  ownerReferences: [{kind: ReplicaSet, name: web-5d9f7c, controller: true}]
spec: {nodeName: n1, containers: [{name: c}]}
status:
  phase: Failed
  startTime: '2026-11-24T10:00:01Z'
  hostIP: 10.224.0.5
  podIPs: [{ip: 10.244.1.7}, {ip: 'fd00::7'}]
  containerStatuses: [{state: {terminated: {finishedAt: '2026-11-24T11:00:00Z'}}}]
  initContainerStatuses: [{state: {terminated: {finishedAt: '2026-11-24T10:01:00Z'}}}]
";
    let manifests = parse(text);
    let Change::Pod(pod) = &manifests.cluster[0] else {
        panic!("{:?}", manifests.cluster);
    };
    let time = |text: &str| text.parse().ok();
    assert_eq!(pod.workload.as_deref(), Some("Deployment/web"));
    assert_eq!(pod.ips.len(), 2);
    assert_eq!(pod.host_ips.len(), 1);
    assert_eq!(pod.start, time("2026-11-24T10:00:01Z"));
    assert_eq!(pod.end, time("2026-11-24T11:00:00Z"));
    assert_eq!(pod.phase, monitor_core::cluster::Phase::Ended);
    assert_eq!(pod.node.as_deref(), Some("n1"));
    let owned = |kind: &str, name: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, ownerReferences: [{{kind: {kind}, name: {name}, controller: true}}]}}\n"
        );
        match &parse(&text).cluster[0] {
            Change::Pod(pod) => pod.workload.as_deref().map(str::to_owned),
            _ => None,
        }
    };
    assert_eq!(
        owned("StatefulSet", "cart").as_deref(),
        Some("StatefulSet/cart")
    );
    assert_eq!(
        owned("Job", "report-29403720").as_deref(),
        Some("CronJob/report")
    );
    assert_eq!(owned("Job", "report-1").as_deref(), Some("Job/report-1"));
    assert_eq!(
        owned("ReplicaSet", "bare-1").as_deref(),
        Some("ReplicaSet/bare-1")
    );
}

#[test]
fn every_workload_makes_pods() {
    let template = "template: {metadata: {labels: {app: x}}, spec: {containers: [{ports: [{name: web, containerPort: 80}]}]}}";
    for (version, kind, spec) in [
        ("apps/v1", "Deployment", template.to_owned()),
        ("apps/v1", "StatefulSet", template.to_owned()),
        ("apps/v1", "DaemonSet", template.to_owned()),
        ("apps/v1", "ReplicaSet", template.to_owned()),
        ("v1", "ReplicationController", template.to_owned()),
        ("batch/v1", "Job", template.to_owned()),
        (
            "batch/v1",
            "CronJob",
            format!("jobTemplate: {{spec: {{{template}}}}}"),
        ),
    ] {
        let text = format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: w, namespace: x}}\nspec: {{{spec}}}\n"
        );
        let manifests = parse(&text);
        let Change::Pod(pod) = &manifests.cluster[0] else {
            panic!("{kind}: {manifests:?}");
        };
        assert_eq!(pod.workload.as_deref(), Some(&*format!("{kind}/w")));
        assert_eq!(pod.labels["app"], "x", "{kind}");
        assert_eq!(pod.labels.contains_key("job-name"), kind == "Job", "{kind}");
        assert_eq!(pod.ports.len(), 1, "{kind}");
    }
}

#[test]
fn proposed_policies_are_not_in_force() {
    let policy = |name: &str, annotations: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, annotations: {{{annotations}}}}}\nspec: {{}}\n---\n"
        )
    };
    let text = policy("a", "x: y")
        + &policy("b", "nodewatch.io/mode: propose, x: y")
        + &policy("c", "nodewatch.io/mode: enforce");
    let name = |change: &PolicyChange| match change {
        PolicyChange::Namespaced(policy) => policy.name.to_string(),
        other => panic!("{other:?}"),
    };
    let names = |changes: &[PolicyChange]| changes.iter().map(name).collect::<Vec<_>>();
    let mut manifests = parse(&text);
    assert_eq!(names(&manifests.policies), ["a", "c"]);
    assert_eq!(names(&manifests.take_proposed(None).unwrap()), ["b"]);
    assert_eq!(manifests.take_proposed(None), None);
    let proposed = parse(&(policy("d", "") + &policy("e", "nodewatch.io/mode: propose")));
    assert_eq!(
        names(&manifests.take_proposed(Some(proposed)).unwrap()),
        ["d", "e"]
    );
    // That nothing is proposed is a proposal, too, if it was asked for.
    assert_eq!(parse("").take_proposed(Some(parse(""))), Some(vec![]));
}

#[test]
fn a_field_that_is_there_twice_is_told_in_our_words() {
    let manifests = parse("apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  name: b\n");
    let text = manifests.diagnostics[0].to_string();
    let expected = "m.yaml:5: is no YAML: the field name is there twice; left out: verdicts are as \
        without what it declares";
    assert_eq!(text, expected);
}

#[test]
fn an_empty_directory_is_told_of() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    std::fs::write(path.join("notes.txt"), "nothing").unwrap();
    let manifests = Manifests::read(std::slice::from_ref(&path)).unwrap();
    assert_eq!((manifests.status.files, manifests.left_out), (0, 0));
    assert_eq!(
        manifests.diagnostics[0].to_string(),
        format!(
            "{}: nothing here ends in .yaml, .yml or .json: nothing is declared",
            path.display()
        )
    );
    std::fs::write(path.join("a.yaml"), pod("a")).unwrap();
    let manifests = Manifests::read(&[path]).unwrap();
    assert_eq!(manifests.diagnostics, []);
}
