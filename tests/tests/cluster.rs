//! nodewatch in a real Kubernetes cluster, installed by its own manifests as a user does.

use tests::cluster::story::{Act, Story};
use tests::cluster::{Cluster, NEEDS, Network, image, programs};
use tests::daemon;
use tests::lab::{self, gate};

#[test]
fn installed_by_its_manifests_it_names_judges_and_survives_in_a_real_cluster() {
    let tools = [
        "kubectl",
        "openssl",
        "sshd",
        "strip",
        "iptables",
        "prometheus",
        "promtool",
        "dnsmasq",
    ];
    let Some(_permit) = lab::require_with(&tools) else {
        return;
    };
    if let Some(reason) = programs::missing(&NEEDS) {
        gate::skip(&reason);
        return;
    }
    let cluster = Cluster::start("cluster", Network::Bridge).expect("a cluster");
    let binary = daemon::binary().expect("a binary");
    let archive = image::agent(cluster.lab().directory(), binary).expect("an image");
    let mut story = Story::new(cluster, &archive).expect("a stage");
    let acts: [Act; 18] = [
        Story::apply_as_it_is,
        Story::privileges,
        Story::dry_run,
        Story::workloads,
        Story::names,
        Story::violation,
        Story::calm,
        Story::configure,
        Story::host_pods,
        Story::watch,
        Story::incident,
        Story::follow,
        Story::drain,
        Story::account,
        Story::resolved,
        Story::load,
        Story::remove,
        Story::agent_down,
    ];
    for act in acts {
        let start = std::time::Instant::now();
        let done = act(&story);
        println!("{:.1} s", start.elapsed().as_secs_f64());
        if let Err(error) = done {
            let ended = story.cluster.ended().join("\n");
            panic!("{error:#}\n{ended}");
        }
    }
    let ended = story.cluster.ended();
    assert!(ended.is_empty(), "{}", ended.join("\n"));
    drop(story);
    let left = lab::sweep::leftovers();
    assert!(left.is_empty(), "left behind: {left:?}");
}
