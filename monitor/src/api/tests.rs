use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use monitor_core::{
    engine::{Config, Engine},
    event::{FlowRecord, Record},
    filter::{Condition, FlowFilter},
    time::Timestamp,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::{broadcast, mpsc, oneshot, watch},
    task::JoinHandle,
};

use super::{
    client::{Client, ClientError, Line},
    *,
};
use crate::runtime::{EngineHandle, Reply};

/// A daemon whose engine answers every query with the same flows.
struct Daemon {
    _directory: tempfile::TempDir,
    path: std::path::PathBuf,
    handle: EngineHandle,
    stop: oneshot::Sender<()>,
    server: JoinHandle<std::io::Result<()>>,
}

fn flow(port: u16, state: &str) -> FlowRecord {
    let json = serde_json::json!({
        "version": 1, "time": "2026-11-24T10:00:01Z", "start": "2026-11-24T10:00:00Z",
        "end": "2026-11-24T10:00:01Z", "state": state, "point": "uplink", "interface": "eth0",
        "protocol": "TCP",
        "source": {"ip": "203.0.113.9", "port": port, "kind": "internet"},
        "destination": {"ip": "10.224.0.4", "port": 22, "kind": "node"},
        "local": "destination", "initiator": "source", "app": "ssh",
        "forward": {"packets": 12, "bytes": 1833}, "reverse": {"packets": 10, "bytes": 9120},
        "outcome": "established",
    });
    serde_json::from_value(json).expect("a flow record")
}

fn start(flows: Vec<FlowRecord>, backlog: usize) -> Daemon {
    start_with(flows, backlog, |_| ())
}

/// `on_query` runs when the engine answers.
fn start_with(
    flows: Vec<FlowRecord>,
    backlog: usize,
    on_query: impl Fn(&broadcast::Sender<Arc<Record>>) + Send + 'static,
) -> Daemon {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("api.sock");
    let engine = Engine::new(Config::default()).expect("an engine");
    let (queries, mut asked) = mpsc::channel(4);
    let records = broadcast::channel(backlog).0;
    let sender = records.clone();
    let handle = EngineHandle {
        queries,
        records,
        snapshot: watch::channel(Arc::new(engine.snapshot())).1,
        followers_lost: Arc::new(Mutex::new(0)),
        log_lost: Arc::default(),
    };
    tokio::spawn(async move {
        while let Some(query) = asked.recv().await {
            on_query(&sender);
            let mut found: Vec<_> = flows
                .iter()
                .filter(|flow| query.filter.matches(flow))
                .cloned()
                .collect();
            if let Some(last) = query.last {
                found.drain(..found.len().saturating_sub(last));
            }
            if let Reply::Flows(reply) = query.reply {
                let _ = reply.send(found);
            }
        }
    });
    let listener = Listener::bind(&path).expect("a socket");
    let mut info = DaemonInfo::new(Timestamp::UNIX_EPOCH);
    info.details.insert("attach".to_owned(), "auto".into());
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, handle.clone(), info, async {
        let _ = stopped.await;
    }));
    Daemon {
        _directory: directory,
        path,
        handle,
        stop,
        server,
    }
}

fn flows(follow: bool) -> Request {
    Request::Flows(List {
        filter: FlowFilter::default(),
        last: None,
        follow,
    })
}

/// The next record's source port and state.
async fn next(client: &mut Client) -> Option<(u16, String)> {
    match client.next().await.expect("an answer")? {
        Line::Data(line) => {
            let value: serde_json::Value = serde_json::from_slice(line).expect("JSON");
            let port = value["source"]["port"].as_u64().expect("a port");
            let state = value["state"].as_str().expect("a state").to_owned();
            Some((u16::try_from(port).expect("a port"), state))
        }
        Line::Lost(lost) => Some((0, format!("lost {lost}"))),
    }
}

async fn raw(path: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).await.expect("a connection");
    // The server may answer before it has read all.
    let _ = stream.write_all(request).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).expect("UTF-8")
}

#[test]
fn requests_read_as_documented() {
    let check = |text: &str, expected: Request| {
        assert_eq!(serde_json::from_str::<Request>(text).expect(text), expected);
    };
    check(r#"{"command":"status"}"#, Request::Status {});
    check(r#"{"command":"flows"}"#, flows(false));
    let filter = FlowFilter {
        terms: vec![!monitor_core::filter::Term::from(Condition::Port(22))],
        ..FlowFilter::default()
    };
    check(
        r#"{"command":"flows","filter":{"terms":[{"not":true,"port":22}]},"last":20,"follow":true}"#,
        Request::Flows(List {
            filter,
            last: Some(20),
            follow: true,
        }),
    );
    for text in [
        r#"{"command":"flow"}"#,
        r#"{"command":"flows","lst":1}"#,
        "{}",
        "[]",
    ] {
        assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
    }
}

#[tokio::test]
async fn flows_are_answered_and_the_connection_ends() {
    let daemon = start(vec![flow(1, "closed"), flow(2, "open")], 8);
    let mut client = Client::ask(&daemon.path, &flows(false))
        .await
        .expect("an answer");
    assert_eq!(next(&mut client).await, Some((1, "closed".to_owned())));
    assert_eq!(next(&mut client).await, Some((2, "open".to_owned())));
    assert_eq!(next(&mut client).await, None);
}

#[tokio::test]
async fn the_status_reads_back() {
    let daemon = start(Vec::new(), 8);
    let status = client::status(&daemon.path).await.expect("a status");
    assert_eq!(status.daemon.pid, std::process::id());
    assert_eq!(status.daemon.details["attach"], "auto");
    assert_eq!(status.engine, daemon.handle.snapshot().status);
    let text = raw(&daemon.path, b"{\"command\":\"status\"}\n").await;
    assert!(
        text.starts_with(r#"{"type":"status","version":1,"daemon":{"#),
        "{text}"
    );
}

#[tokio::test]
async fn following_has_no_gap_and_no_duplicates() {
    let tell = |sender: &broadcast::Sender<Arc<Record>>, port, state| {
        sender
            .send(Arc::new(flow(port, state).into()))
            .expect("a follower");
    };
    // Between subscription and answer: 1 and 2 are in the answer as they are here, 3 was open
    // there and closes, 4 is not in the answer.
    let shown = vec![flow(1, "closed"), flow(2, "open"), flow(3, "open")];
    let daemon = start_with(shown, 16, move |sender| {
        for (port, state) in [
            (1, "open"),
            (1, "closed"),
            (2, "open"),
            (3, "closed"),
            (4, "open"),
        ] {
            tell(sender, port, state);
        }
    });
    let mut client = Client::ask(&daemon.path, &flows(true))
        .await
        .expect("an answer");
    let mut expected = vec![
        (1, "closed"),
        (2, "open"),
        (3, "open"),
        (3, "closed"),
        (4, "open"),
    ];
    for (port, state) in expected.drain(..) {
        assert_eq!(next(&mut client).await, Some((port, state.to_owned())));
    }
    tell(&daemon.handle.records, 2, "closed");
    assert_eq!(next(&mut client).await, Some((2, "closed".to_owned())));
    daemon.stop.send(()).expect("it runs");
    assert_eq!(next(&mut client).await, None);
    daemon.server.await.expect("no panic").expect("no error");
    assert!(!daemon.path.exists(), "the socket's file is removed");
}

#[tokio::test]
async fn a_slow_follower_is_told_what_it_missed() {
    let daemon = start(Vec::new(), 4);
    let mut client = Client::ask(&daemon.path, &flows(true))
        .await
        .expect("an answer");
    while daemon.handle.records.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }
    // All at once: the server has no turn in between.
    for port in 1..=10 {
        daemon
            .handle
            .records
            .send(Arc::new(flow(port, "open").into()))
            .expect("a follower");
    }
    assert_eq!(next(&mut client).await, Some((0, "lost 6".to_owned())));
    assert_eq!(next(&mut client).await, Some((7, "open".to_owned())));
    assert_eq!(*daemon.handle.followers_lost.lock().expect("no panic"), 6);
}

#[tokio::test]
async fn a_follower_that_leaves_is_forgotten() {
    let daemon = start(Vec::new(), 4);
    let client = Client::ask(&daemon.path, &flows(true))
        .await
        .expect("an answer");
    let has = async |followers| {
        while daemon.handle.records.receiver_count() != followers {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    has(1).await;
    drop(client);
    has(0).await;
}

#[tokio::test]
async fn bad_requests_are_refused() {
    let daemon = start(Vec::new(), 4);
    for (request, expected) in [
        (b"nonsense\n".to_vec(), "invalid request"),
        (
            br#"{"command":"flows","filter":{"terms":[{"prot":22}]}}"#.to_vec(),
            "invalid request",
        ),
        (vec![b'x'; 70_000], "longer than 65536 bytes"),
    ] {
        let answer = raw(&daemon.path, &request).await;
        assert!(
            answer.starts_with(r#"{"type":"error","message":""#),
            "{answer}"
        );
        assert!(answer.contains(expected), "{answer}");
    }
    assert_eq!(raw(&daemon.path, b"").await, "");
}

#[tokio::test]
async fn clients_are_bounded() {
    let daemon = start(Vec::new(), 4);
    let mut followers = Vec::new();
    for _ in 0..64 {
        followers.push(
            Client::ask(&daemon.path, &flows(true))
                .await
                .expect("a connection"),
        );
    }
    let error = client::status(&daemon.path)
        .await
        .expect_err("one too many")
        .to_string();
    assert!(
        error.ends_with("refuses: 64 clients are connected already"),
        "{error}"
    );
    followers.pop();
    while client::status(&daemon.path).await.is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn no_daemon_is_said_so() {
    let error = client::status("/nowhere/api.sock".as_ref())
        .await
        .expect_err("nobody there");
    assert!(matches!(error, ClientError::NoDaemon { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("no nodewatch daemon answers on /nowhere/api.sock")
    );
}

#[test]
fn status_answers_survive_json() {
    let engine = Engine::new(Config::default()).expect("an engine");
    let info = DaemonInfo::new(Timestamp::from_seconds(1));
    let answer = Answer::Status(Box::new(StatusAnswer::new(info, engine.status())));
    let json = serde_json::to_string(&answer).expect("JSON");
    assert_eq!(serde_json::from_str::<Answer>(&json).expect(&json), answer);
    let fields: BTreeMap<String, serde_json::Value> = serde_json::from_str(&json).expect("JSON");
    for field in [
        "type",
        "version",
        "time",
        "daemon",
        "flows",
        "interfaces",
        "events_lost",
    ] {
        assert!(fields.contains_key(field), "{field} is not in {json}");
    }
}
