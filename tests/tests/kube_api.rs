//! Objects of a live cluster: a real API server on the node's loopback, real connections between
//! pods that are named by what it says.
//!
//! | module | shows |
//! |---|---|
//! | `names` | who is named how, and what its policies say |
//! | `objects` | what the server takes and cannot be used, what is proposed, who has ended |
//! | `rights` | rights that are missing, a server that is not there |
//! | `churn` | many changes, outages, forgotten history |

#[path = "kube_api/churn.rs"]
mod churn;
#[path = "kube_api/names.rs"]
mod names;
#[path = "kube_api/objects.rs"]
mod objects;
#[path = "kube_api/rights.rs"]
mod rights;

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tests::daemon::Daemon;
use tests::lab::wait;

/// How long an answer, an event or a reading of the maps may take.
const SOON: Duration = Duration::from_secs(20);

/// The time now, as objects say it.
fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seconds = since.expect("after 1970").as_secs();
    let seconds = i64::try_from(seconds).expect("before the sun is gone");
    monitor_core::time::Timestamp::from_seconds(seconds).to_string()
}

/// A running pod of namespace `shop`.
fn pod(name: &str, ip: impl Into<IpAddr>) -> Value {
    let ip = ip.into();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}},
        "spec": {
            "nodeName": "node-1",
            "containers": [{"name": "main", "image": "none", "env": [{"name": "A", "value": "b"}]}],
        },
        "status": {"phase": "Running", "startTime": now(), "podIP": ip, "podIPs": [{"ip": ip}]},
    })
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// What `status` says of a kind of object.
fn resource(daemon: &Daemon<'_>, name: &str) -> Value {
    let text = daemon.tell(&["status", "-o", "json"]).expect("a status");
    let status: Value = serde_json::from_str(&text).expect("JSON");
    let resources = status["kubernetes"]["resources"].as_array();
    let mut resources = resources.expect("a cluster").iter();
    let found = resources.find(|resource| resource["resource"] == name);
    found.unwrap_or_else(|| panic!("{name}: {text}")).clone()
}

/// Waits until a kind of object is as wanted.
fn until_resource(
    daemon: &Daemon<'_>,
    name: &str,
    within: Duration,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    let mut last = Value::Null;
    let found = wait::until(&format!("{name} to be as wanted"), within, || {
        last = resource(daemon, name);
        wanted(&last).then(|| last.clone())
    });
    found.unwrap_or_else(|error| panic!("{error:#}: {last:#}\n{}", daemon.log()))
}

/// Waits until so many objects of a kind are known.
fn until_objects(daemon: &Daemon<'_>, name: &str, objects: usize) {
    until_resource(daemon, name, SOON, |resource| {
        resource["state"] == "synced" && resource["objects"] == objects
    });
}

/// The flow with a source port, once there is one that is wanted.
fn flow(daemon: &Daemon<'_>, port: u16, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Vec::new();
    let found = wait::until("a flow", SOON, || {
        let arguments = ["flows", "--point", "workload", "--last", "1000"];
        last = daemon.records(&arguments).expect("records");
        let is_it = |record: &&Value| record["source"]["port"] == port && wanted(record);
        last.iter().find(is_it).cloned()
    });
    found.unwrap_or_else(|error| panic!("{error:#}: {last:#?}\n{}", daemon.log()))
}
