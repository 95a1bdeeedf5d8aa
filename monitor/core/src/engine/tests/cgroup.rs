//! Flows of the node's own sockets, by their control groups.

use std::net::SocketAddr;

use super::*;
use crate::{
    cluster::{Change, Pod},
    engine::CgroupAnswer,
    entity::Cgroup,
    event::{EntityKind, FlowRecord},
};

/// The uplink shows a node whose address is the local end of [`tcp`].
const UID: &str = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";

fn agent(uid: &str) -> Pod {
    Pod {
        uid: Some(uid.into()),
        host_network: true,
        ips: vec![tcp(1).local()],
        workload: Some("DaemonSet/agent".into()),
        ..Pod::new("kube-system", "agent-x")
    }
}

fn node() -> Engine {
    let mut engine = engine_with(Config {
        cgroups: true,
        ..Config::default()
    });
    step(&mut engine, Input::Addresses(vec![tcp(1).local().into()]));
    engine.declare(vec![agent(UID).into()], Vec::new());
    engine
}

fn read(engine: &mut Engine, port: u16, cgroup_id: u64) -> Outputs {
    let value = FlowValue {
        cgroup_id,
        ..reading(99, [3, 3], [A, B])
    };
    step(engine, Input::Flows(vec![(tcp(port), value)]))
}

fn group(pod: Option<&str>) -> Cgroup {
    Cgroup {
        path: "/kubepods/x".into(),
        pod: pod.map(Into::into),
        container: pod.is_none().then(|| "c0".into()),
        process: None,
    }
}

fn answer(engine: &mut Engine, id: u64, found: Option<Cgroup>) -> Outputs {
    step(engine, Input::Cgroups(vec![CgroupAnswer { id, found }]))
}

fn flow(outputs: &Outputs) -> &FlowRecord {
    let [Record::Flow(flow)] = &outputs.records[..] else {
        panic!("{outputs:?}");
    };
    flow
}

#[test]
fn a_pod_of_the_nodes_network_is_named_by_its_control_group_and_never_by_the_address() {
    let mut engine = node();
    let outputs = read(&mut engine, 443, 77);
    assert_eq!(
        (&outputs.cgroups[..], &outputs.records[..]),
        (&[77][..], &[][..])
    );
    // Another flow of the same group waits for the same answer.
    let outputs = read(&mut engine, 444, 77);
    assert_eq!(
        (&outputs.cgroups[..], &outputs.records[..]),
        (&[][..], &[][..])
    );
    let outputs = answer(&mut engine, 77, Some(group(Some(UID))));
    assert_eq!(outputs.records.len(), 2);
    // From then on it is known.
    let outputs = read(&mut engine, 445, 77);
    assert!(outputs.cgroups.is_empty());
    let source = &flow(&outputs).source;
    assert_eq!(source.kind, EntityKind::Pod);
    assert_eq!(source.namespace.as_deref(), Some("kube-system"));
    assert_eq!(source.pod.as_deref(), Some("agent-x"));
    assert_eq!(source.workload.as_deref(), Some("DaemonSet/agent"));
    assert_eq!(
        SocketAddr::new(source.ip, 1),
        SocketAddr::new(tcp(1).local(), 1)
    );
    assert!(source.host_network);
    // No socket of the pod: the node.
    let outputs = read(&mut engine, 446, 0);
    assert_eq!(flow(&outputs).source.kind, EntityKind::Node);
    assert_eq!(flow(&outputs).source.pod, None);
    assert_eq!(
        connections(&engine),
        [
            "uplink,,,,446,TCP,outbound,internet,established Counter(1)",
            "uplink,kube-system,DaemonSet/agent,agent-x,443,TCP,outbound,internet,established Counter(1)",
            "uplink,kube-system,DaemonSet/agent,agent-x,444,TCP,outbound,internet,established Counter(1)",
            "uplink,kube-system,DaemonSet/agent,agent-x,445,TCP,outbound,internet,established Counter(1)",
        ]
    );
    // Connections waited for the answer, packets did not: those that were read before it stay in
    // the node's row, as a counter never goes back.
    let mut packets = Vec::new();
    let rows = engine.snapshot().rows;
    rows.samples(Metric::FlowPackets, |labels, value| {
        let label = |name| labels.iter().find(|(label, _)| *label == name);
        let (pod, port) = (label("pod").unwrap().1, label("port").unwrap().1);
        if let crate::metric::Value::Counter(count) = value
            && label("direction").unwrap().1 == "tx"
            && count > 0
        {
            packets.push(format!("{pod}:{port} {count}"));
        }
        Ok::<_, ()>(())
    })
    .unwrap();
    packets.sort();
    assert_eq!(packets, [":443 3", ":444 3", ":446 3", "agent-x:445 3"]);
    // Its pod is gone; what its sockets still send is its own.
    let gone = Change::PodGone("kube-system".into(), "agent-x".into());
    step(&mut engine, Input::Cluster(vec![gone]));
    let outputs = read(&mut engine, 447, 77);
    assert_eq!(flow(&outputs).source.pod.as_deref(), Some("agent-x"));
    // Another pod of that name is another pod.
    let other = agent("11111111-4b5a-6978-8796-a5b4c3d2e1f0");
    step(&mut engine, Input::Cluster(vec![other.into()]));
    answer(
        &mut engine,
        78,
        Some(group(Some("22222222-0000-0000-0000-000000000000"))),
    );
    let outputs = read(&mut engine, 448, 78);
    assert_eq!(flow(&outputs).source.kind, EntityKind::Node);
}

#[test]
fn a_static_pod_is_known_by_the_hash_of_its_manifest() {
    let mut engine = node();
    let hash = "d".repeat(32);
    let mirror = Pod {
        static_uid: Some(hash.as_str().into()),
        ..agent("33333333-0000-0000-0000-000000000000")
    };
    step(&mut engine, Input::Cluster(vec![mirror.into()]));
    answer(&mut engine, 79, Some(group(Some(&hash))));
    let outputs = read(&mut engine, 443, 79);
    assert_eq!(flow(&outputs).source.pod.as_deref(), Some("agent-x"));
}

#[test]
fn without_a_pod_the_container_and_the_group_are_told() {
    let mut engine = node();
    answer(&mut engine, 80, Some(group(None)));
    let outputs = read(&mut engine, 443, 80);
    let source = &flow(&outputs).source;
    assert_eq!(source.kind, EntityKind::Node);
    assert_eq!(source.container.as_deref(), Some("c0"));
    assert_eq!(source.cgroup.as_deref(), Some("/kubepods/x"));
    assert!(!source.host_network);
}

#[test]
fn who_gets_no_answer_goes_on_as_the_node() {
    let mut engine = node();
    read(&mut engine, 443, 81);
    let tick =
        |engine: &mut Engine, second| engine.step(Input::Tick, Timestamp::from_seconds(second));
    assert_eq!(tick(&mut engine, 101).records, []);
    let outputs = tick(&mut engine, 102);
    assert_eq!(flow(&outputs).source.kind, EntityKind::Node);
    // It is not asked about again; a late answer counts from then on.
    assert!(read(&mut engine, 444, 81).cgroups.is_empty());
    answer(&mut engine, 81, Some(group(Some(UID))));
    let outputs = read(&mut engine, 445, 81);
    assert_eq!(flow(&outputs).source.pod.as_deref(), Some("agent-x"));
    // One that is over at once.
    let value = FlowValue {
        cgroup_id: 82,
        ..reading(99, [3, 3], [A, B])
    };
    let key = tcp(446);
    let outputs = step(&mut engine, Input::FlowEnded { key, value });
    assert_eq!(
        (outputs.records.len(), &outputs.cgroups[..]),
        (1, &[82][..])
    );
}

#[test]
fn series_of_a_pod_that_is_named_late_end_once_it_is_gone() {
    let mut engine = node();
    read(&mut engine, 443, 83);
    answer(&mut engine, 83, Some(group(Some(UID))));
    read(&mut engine, 444, 83);
    assert_eq!(engine.status().series, 3 * 4 + 2, "the node's row is left");
    let value = FlowValue {
        cgroup_id: 83,
        ..reading(99, [3, 3], [A, B])
    };
    let removed = [443, 444].map(|port| (tcp(port), value));
    step(&mut engine, Input::Removed(removed.into()));
    let gone = Change::PodGone("kube-system".into(), "agent-x".into());
    step(&mut engine, Input::Cluster(vec![gone]));
    for second in (200..4_000).step_by(10) {
        engine.step(Input::Tick, Timestamp::from_seconds(second));
    }
    let snapshot = engine.snapshot();
    assert_eq!(snapshot.rows.sum(Metric::SeriesEnded), 2);
    assert_eq!(connections(&engine), [""; 0]);
}

#[test]
fn the_only_process_of_a_group_is_the_one_that_was_just_seen() {
    let mut engine = node();
    let alone = |pid| Cgroup {
        path: "/system.slice/chrony.service".into(),
        process: Some(crate::event::ProcessRecord {
            pid,
            name: "chronyd".into(),
            executable: None,
            container: None,
        }),
        ..Cgroup::default()
    };
    let pid = |outputs: &Outputs| flow(outputs).source.process.as_ref().map(|it| it.pid);
    let found_at = |engine: &mut Engine, second, found| {
        let found = vec![CgroupAnswer { id: 84, found }];
        engine.step(Input::Cgroups(found), Timestamp::from_seconds(second))
    };
    // Readings are of about 100 seconds after 1970.
    answer(&mut engine, 84, Some(alone(812)));
    let outputs = read(&mut engine, 443, 84);
    assert_eq!(pid(&outputs), Some(812));
    // A look that is old tells nothing of now: it is looked at again, once.
    found_at(&mut engine, 10, Some(alone(812)));
    let outputs = read(&mut engine, 444, 84);
    assert_eq!(
        (&outputs.cgroups[..], &outputs.records[..]),
        (&[84][..], &[][..])
    );
    assert!(read(&mut engine, 445, 84).cgroups.is_empty());
    let outputs = answer(&mut engine, 84, Some(alone(900)));
    let told: Vec<_> = outputs
        .records
        .iter()
        .map(|record| match record {
            Record::Flow(flow) => flow.source.process.as_ref().map(|it| it.pid),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, [Some(900); 2]);
    // Of one that is gone the path stays, and no process is made up.
    found_at(&mut engine, 10, Some(alone(812)));
    read(&mut engine, 446, 84);
    let outputs = answer(&mut engine, 84, None);
    assert_eq!(pid(&outputs), None);
    let path = flow(&outputs).source.cgroup.as_deref();
    assert_eq!(path, Some("/system.slice/chrony.service"));
    assert!(read(&mut engine, 447, 84).cgroups.is_empty());
    // Of a container, the container is told: no second look.
    found_at(&mut engine, 10, Some(group(None)));
    assert!(read(&mut engine, 448, 84).cgroups.is_empty());
}
