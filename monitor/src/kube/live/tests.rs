//! Faults of a server that a real one has only by chance, from one that has them at will.
//!
//! What a real one does is tested against a real one: `tests/tests/kube_api.rs`.

mod fake;

use std::time::Duration;

use monitor_core::{
    cluster::Change,
    engine::{Input, KubernetesStatus, ResourceStatus, WatchError, WatchState},
};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};

use super::*;
use fake::{Answer, Fake};

const SOON: Duration = Duration::from_secs(20);

fn pod(name: &str, version: u32) -> Value {
    json!({"metadata": {
        "name": name, "namespace": "shop", "resourceVersion": version.to_string(),
    }})
}

fn event(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

/// The end of a list that a watch begins with.
fn list_end(version: u32) -> String {
    let object = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {
        "resourceVersion": version.to_string(),
        "annotations": {"k8s.io/initial-events-end": "true"},
    }});
    event("BOOKMARK", &object)
}

fn list(pods: &[&str], version: u32) -> Answer {
    let items: Vec<_> = pods.iter().map(|name| pod(name, version)).collect();
    Answer::ok(&json!({
        "kind": "PodList", "apiVersion": "v1",
        "metadata": {"resourceVersion": version.to_string()}, "items": items,
    }))
}

/// A daemon that watches a fake server, and its engine.
struct Watcher {
    inputs: mpsc::Receiver<Input>,
    /// What the engine was told last of the watches.
    status: KubernetesStatus,
    _sender: mpsc::Sender<Input>,
}

impl Watcher {
    fn start(fake: &Fake) -> Self {
        let live = Live::new(Access::plain(fake.address));
        let status = live.status();
        let (sender, inputs) = mpsc::channel(16);
        tokio::spawn(live.run(sender.downgrade()));
        Self {
            inputs,
            status,
            _sender: sender,
        }
    }

    /// The next changes of pods, as `+name`, `-name` and `-name?`.
    async fn pods(&mut self) -> Vec<String> {
        loop {
            let told = timeout(SOON, self.inputs.recv()).await;
            match told.expect("in time").expect("an input") {
                Input::Kubernetes(status) => self.status = status,
                Input::Cluster(changes) => {
                    let names = changes.iter().map(|change| match change {
                        Change::Pod(pod) => format!("+{}", pod.name),
                        Change::PodGone(_, name) => format!("-{name}"),
                        Change::PodLost(_, name) => format!("-{name}?"),
                        other => panic!("{other:?}"),
                    });
                    return names.collect();
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// What is said of a kind, once it is as wanted.
    async fn until(
        &mut self,
        name: &str,
        wanted: impl Fn(&ResourceStatus) -> bool,
    ) -> ResourceStatus {
        loop {
            let found = self.status.resources.iter();
            let mut found = found.filter(|resource| resource.resource == name);
            let resource = found.next().expect("a kind");
            if wanted(resource) {
                return resource.clone();
            }
            let told = timeout(SOON, self.inputs.recv()).await;
            match told.unwrap_or_else(|_| panic!("in time: {resource:?}")) {
                Some(Input::Kubernetes(status)) => self.status = status,
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_list_may_be_the_beginning_of_a_watch() {
    let fake = Fake::start().await;
    let start = event("ADDED", &pod("a", 3)) + &event("ADDED", &pod("b", 4)) + &list_end(5);
    let later = event("MODIFIED", &pod("c", 6)) + &event("DELETED", &pod("a", 7));
    fake.pods([Answer::Events(vec![start + &later])]);
    let mut watcher = Watcher::start(&fake);
    assert_eq!(watcher.pods().await, ["+a", "+b"]);
    assert_eq!(watcher.pods().await, ["+c"]);
    assert_eq!(watcher.pods().await, ["-a"]);
    let pods = watcher.until("pods", |pods| pods.events == 2).await;
    assert_eq!(
        (pods.state, pods.objects, pods.lists),
        (WatchState::Synced, 2, 1)
    );
    let asked = fake.asked();
    assert!(asked[0].contains("sendInitialEvents=true"), "{asked:?}");
    // It goes on from the last event, without a new list.
    fake.pods([Answer::Events(vec![event("DELETED", &pod("b", 9))])]);
    assert_eq!(watcher.pods().await, ["-b"]);
    let asked = fake.asked();
    let last = asked.last().expect("a request");
    assert!(last.contains("resourceVersion=7"), "{asked:?}");
    assert!(!last.contains("sendInitialEvents"), "{asked:?}");
}

#[tokio::test]
async fn a_server_that_does_not_end_a_list_is_asked_for_pages() {
    // It takes the parameter, and goes on as if it were an ordinary watch: silent, or busy.
    let added = event("ADDED", &pod("a", 3));
    for answer in [Answer::Silence(vec![added.clone()]), Answer::Chatter(added)] {
        let fake = Fake::start().await;
        fake.pods([answer, list(&["a", "b"], 5)]);
        let mut watcher = Watcher::start(&fake);
        assert_eq!(watcher.pods().await, ["+a", "+b"]);
        let pods = watcher.until("pods", |pods| pods.lists == 1).await;
        // The server has done nothing wrong.
        assert_eq!((pods.state, pods.errors.len()), (WatchState::Synced, 0));
        let asked = fake.asked();
        assert!(asked[0].contains("sendInitialEvents=true"), "{asked:?}");
        assert!(asked[1].contains("limit=100"), "{asked:?}");
        // Nor is it asked so again once its history is gone.
        fake.pods([Answer::status(410, "too old"), list(&["b"], 9)]);
        assert_eq!(watcher.pods().await, ["-a?"]);
        let asked = fake.asked();
        assert!(!asked[2].contains("sendInitialEvents"), "{asked:?}");
        assert!(asked[3].contains("limit=100"), "{asked:?}");
    }
}

#[tokio::test]
async fn a_bookmark_is_where_to_go_on_from() {
    let fake = Fake::start().await;
    let bookmark = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": "9"}});
    let events = event("ADDED", &pod("a", 3)) + &list_end(5) + &event("BOOKMARK", &bookmark);
    fake.pods([Answer::Events(vec![events])]);
    let mut watcher = Watcher::start(&fake);
    assert_eq!(watcher.pods().await, ["+a"]);
    fake.pods([Answer::Events(vec![event("DELETED", &pod("a", 11))])]);
    assert_eq!(watcher.pods().await, ["-a"]);
    let asked = fake.asked();
    let bookmarks = "allowWatchBookmarks=true";
    assert!(asked[1].contains(bookmarks), "{asked:?}");
    assert!(asked[1].contains("resourceVersion=9"), "{asked:?}");
}

#[tokio::test]
async fn every_kind_that_is_refused_is_named() {
    let fake = Fake::start().await;
    for resource in RESOURCES {
        for version in resource.versions {
            let refused = format!("{} is forbidden", resource.name);
            let answers = std::iter::repeat_n(Answer::status(403, &refused), 20);
            fake.answer(&resource.path(version), answers);
        }
    }
    let mut watcher = Watcher::start(&fake);
    for resource in RESOURCES {
        let refused = watcher
            .until(resource.name, |it| it.state == WatchState::Refused)
            .await;
        let message = format!("{} is forbidden", resource.name);
        assert_eq!(refused.message, Some(message));
        assert!(refused.errors[&WatchError::Refused] >= 2);
    }
    assert!(watcher.status.is_settled(), "they have answered");
}

#[tokio::test]
async fn forgotten_history_is_listed_again_however_the_server_says_so() {
    let fake = Fake::start().await;
    let gone = json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"});
    fake.pods([
        Answer::status(422, "sendInitialEvents: Forbidden"),
        list(&["a", "b"], 5),
        Answer::Events(vec![event("ERROR", &gone)]),
        list(&["b", "c"], 9),
        // As an answer, where others say it in an event.
        Answer::status(410, "too old"),
        list(&["c"], 12),
    ]);
    let mut watcher = Watcher::start(&fake);
    assert_eq!(watcher.pods().await, ["+a", "+b"]);
    assert_eq!(watcher.pods().await, ["-a?", "+c"]);
    assert_eq!(watcher.pods().await, ["-b?"]);
    let pods = watcher.until("pods", |pods| pods.lists == 3).await;
    assert_eq!(pods.errors, [(WatchError::Expired, 2)].into());
    assert_eq!((pods.state, pods.objects), (WatchState::Synced, 1));
}

#[tokio::test]
async fn pages_are_one_list() {
    let fake = Fake::start().await;
    let page = |names: &[&str], next: &str| {
        let items: Vec<_> = names.iter().map(|name| pod(name, 1)).collect();
        let metadata = json!({"resourceVersion": "5", "continue": next});
        Answer::ok(&json!({"metadata": metadata, "items": items}))
    };
    fake.pods([
        Answer::status(400, "unknown parameter"),
        page(&["a"], "more"),
        // The second page is of a list that is forgotten: from the start.
        Answer::status(410, "the continue token is too old"),
        page(&["a"], "more"),
        page(&["b"], ""),
    ]);
    let mut watcher = Watcher::start(&fake);
    assert_eq!(watcher.pods().await, ["+a", "+b"]);
    let asked = fake.asked();
    assert!(asked[2].contains("continue=more"), "{asked:?}");
    assert!(!asked[3].contains("continue="), "{asked:?}");
}

#[tokio::test]
async fn what_a_server_does_not_have_costs_nothing_else() {
    let fake = Fake::start().await;
    fake.answer(
        "/apis/discovery.k8s.io/v1/endpointslices",
        [Answer::status(404, "")],
    );
    fake.answer(
        "/apis/discovery.k8s.io/v1beta1/endpointslices",
        [Answer::Events(vec![list_end(4)])],
    );
    fake.answer(
        "/apis/policy.networking.k8s.io/v1beta1/clusternetworkpolicies",
        [Answer::Events(vec![list_end(4)])],
    );
    fake.answer(
        "/apis/networking.k8s.io/v1/networkpolicies",
        std::iter::repeat_n(Answer::status(403, "networkpolicies is forbidden"), 9),
    );
    fake.pods([Answer::Events(vec![list_end(4)])]);
    let mut watcher = Watcher::start(&fake);
    let slices = watcher
        .until("endpointslices", |it| it.state != WatchState::Pending)
        .await;
    assert_eq!((slices.state, slices.errors.len()), (WatchState::Synced, 0));
    let refused = watcher
        .until("networkpolicies", |it| it.state != WatchState::Pending)
        .await;
    assert_eq!(refused.state, WatchState::Refused);
    assert_eq!(
        refused.message.as_deref(),
        Some("networkpolicies is forbidden")
    );
    // A server whose ClusterNetworkPolicy is served as beta is asked for that first.
    let tier = watcher
        .until("clusternetworkpolicies", |it| {
            it.state != WatchState::Pending
        })
        .await;
    assert_eq!(tier.state, WatchState::Synced);
    // The fake has no others.
    for name in ["namespaces", "adminnetworkpolicies"] {
        let it = watcher
            .until(name, |it| it.state != WatchState::Pending)
            .await;
        assert_eq!(it.state, WatchState::Absent, "{name}");
    }
    watcher
        .until("pods", |pods| pods.state == WatchState::Synced)
        .await;
    assert!(watcher.status.is_settled());
}

#[tokio::test]
async fn what_is_not_understood_is_counted_and_the_rest_is_used() {
    let fake = Fake::start().await;
    let events = list_end(4)
        + "{\"type\":\"ADDED\",\"object\":7}\n"
        + &event("ADDED", &pod("a", 6))
        + "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"b\",\"resourceVersion\":\"7\",\"labels\":[]}}}\n";
    fake.pods([
        // An answer that is no list, then one that breaks off.
        Answer::status(500, "etcd is gone"),
        Answer::Events(vec![event("ADDED", &pod("x", 1))]),
        Answer::Events(vec![events]),
    ]);
    let mut watcher = Watcher::start(&fake);
    assert_eq!(watcher.pods().await, ["+a"]);
    let pods = watcher.until("pods", |pods| pods.skipped == 1).await;
    assert_eq!(pods.objects, 1);
    assert_eq!(
        pods.errors,
        [
            (WatchError::Server, 1),
            (WatchError::Unreachable, 1),
            (WatchError::Protocol, 1),
        ]
        .into()
    );
}

#[tokio::test]
async fn the_object_that_is_named_as_unusable_is_one_that_still_is() {
    let fake = Fake::start().await;
    let broken = |name: &str, version: u32| {
        let mut pod = pod(name, version);
        pod["metadata"]["labels"] = json!([]);
        pod
    };
    let added = event("ADDED", &broken("a", 5)) + &event("ADDED", &broken("b", 6));
    fake.pods([
        Answer::Events(vec![list_end(4)]),
        Answer::Events(vec![added]),
    ]);
    let mut watcher = Watcher::start(&fake);
    let names = |pods: &ResourceStatus, name: &str| {
        let text = pods.unusable.as_ref();
        text.is_some_and(|text| text.starts_with(&format!("Pod shop/{name}: metadata.labels")))
    };
    watcher
        .until("pods", |pods| pods.skipped == 2 && names(pods, "b"))
        .await;
    fake.pods([Answer::Events(vec![event("MODIFIED", &pod("b", 7))])]);
    assert_eq!(watcher.pods().await, ["+b"]);
    watcher
        .until("pods", |pods| pods.skipped == 1 && names(pods, "a"))
        .await;
    fake.pods([Answer::Events(vec![event("DELETED", &broken("a", 8))])]);
    watcher
        .until("pods", |pods| pods.skipped == 0 && pods.unusable.is_none())
        .await;
}

#[tokio::test]
async fn a_server_that_ends_each_watch_at_once_is_asked_with_pauses() {
    let fake = Fake::start().await;
    fake.pods([Answer::Events(vec![list_end(4)])]);
    fake.ever(Answer::Events(Vec::new()));
    let mut watcher = Watcher::start(&fake);
    watcher
        .until("pods", |pods| pods.state == WatchState::Synced)
        .await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let asked = fake.asked().len();
    assert!((2..8).contains(&asked), "{asked}");
}
