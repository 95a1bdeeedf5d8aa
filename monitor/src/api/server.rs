//! The daemon's side.

mod declared;

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use monitor_core::{
    event::{FlowRecord, IcmpRecord, LocalEnd, Protocol, Record, State},
    filter::FlowFilter,
    time::Timestamp,
};
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{
        Semaphore,
        broadcast::{
            self,
            error::{RecvError, TryRecvError},
        },
    },
    task::JoinSet,
    time::timeout,
};

use super::{
    Answer, DaemonInfo, List, Listener, Request, StatusAnswer,
    pause::{PAUSE, Pause},
    wire,
};
use crate::runtime::{EngineHandle, Stopped};

/// Clients at a time.
const CLIENTS: usize = 64;
/// The longest request.
const REQUEST_BYTES: u64 = 64 * 1024;
/// How long a client may take to say what it wants.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// How long a client that does not follow may take no data.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// How long a client waits for the place of one that is told to leave.
const LEAVE_TIME: Duration = Duration::from_secs(1);
/// An answer is sent in pieces of about this size.
const PIECE_BYTES: usize = 32 * 1024;
/// Pause after the system refused a connection, for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One client's connection.
struct Client {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    piece: Vec<u8>,
    write_time: Option<Duration>,
    pause: Arc<Pause>,
}

/// What tells one connection from all others.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Identity {
    interface: Arc<str>,
    protocol: Protocol,
    ends: [(IpAddr, Option<u16>); 2],
    icmp: Option<(u8, u8, Option<u16>)>,
    start: Timestamp,
}

/// Answers clients until `shutdown` is done; then all connections are closed and the socket's file
/// is removed.
pub async fn serve(
    listener: Listener,
    handle: EngineHandle,
    info: DaemonInfo,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let socket = UnixListener::from_std(listener.socket()?)?;
    let info = Arc::new(info);
    let places = Arc::new(Semaphore::new(CLIENTS));
    let mut clients = JoinSet::new();
    let mut pauses: Vec<Weak<Pause>> = Vec::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let stream = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = clients.join_next(), if !clients.is_empty() => continue,
            accepted = socket.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an API client");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let (handle, info) = (handle.clone(), Arc::clone(&info));
        let place = Arc::clone(&places).try_acquire_owned().ok();
        let places = Arc::clone(&places);
        pauses.retain(|pause| pause.strong_count() > 0);
        let is_leaving = place.is_none() && Pause::end_longest(&pauses, PAUSE);
        let mut client = Client::new(stream);
        pauses.push(Arc::downgrade(&client.pause));
        clients.spawn(async move {
            let place = match place {
                None if is_leaving => timeout(LEAVE_TIME, places.acquire_owned())
                    .await
                    .ok()
                    .and_then(Result::ok),
                place => place,
            };
            let answered = match place {
                Some(_place) => client.answer(&handle, &info).await,
                None => {
                    let message = format!("{CLIENTS} clients are connected already");
                    client.send(&Answer::Error { message }).await
                }
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "an API client left");
            }
        });
    }
    // Dropping the set ends all clients, dropping the listener removes its file.
    drop(listener);
    Ok(())
}

// === impl Client ===

impl Client {
    fn new(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            reader: BufReader::new(reader),
            writer,
            piece: Vec::new(),
            write_time: Some(WRITE_TIME),
            pause: Arc::default(),
        }
    }

    async fn answer(&mut self, handle: &EngineHandle, info: &DaemonInfo) -> io::Result<()> {
        match self.request().await? {
            Err(message) => self.send(&Answer::Error { message }).await,
            Ok(Request::Status {}) => {
                let status = handle.snapshot().status.clone();
                let answer = StatusAnswer::new(info.clone(), status);
                self.send(&Answer::Status(Box::new(answer))).await
            }
            Ok(Request::Explain(asked)) => self.explain(handle, asked).await,
            Ok(Request::Lint(lint)) => self.lint(handle, lint).await,
            Ok(Request::Ssh(list)) => {
                self.list(
                    handle,
                    list,
                    |record, filter| match record {
                        Record::Ssh(record) => filter.matches_ssh(record),
                        _ => false,
                    },
                    async |filter, last| {
                        Ok(handle
                            .query_ssh(filter, last)
                            .await?
                            .into_iter()
                            .map(Record::from)
                            .collect())
                    },
                )
                .await
            }
            Ok(Request::Findings(list)) => {
                self.list(
                    handle,
                    list,
                    |record, filter| match record {
                        Record::Finding(record) => filter.matches_finding(record),
                        _ => false,
                    },
                    async |filter, last| {
                        Ok(handle
                            .query_findings(filter, last)
                            .await?
                            .into_iter()
                            .map(Record::from)
                            .collect())
                    },
                )
                .await
            }
            Ok(Request::Flows(List {
                filter,
                last,
                follow,
            })) => {
                if let Some(refusal) = refusal(&filter) {
                    return self.send(&refusal).await;
                }
                // Before the query, so that nothing falls between both.
                let records = follow.then(|| handle.follow());
                let flows = match handle.query(filter.clone(), last).await {
                    Ok(flows) => flows,
                    Err(stopped) => {
                        let message = stopped.to_string();
                        return self.send(&Answer::Error { message }).await;
                    }
                };
                match records {
                    None => self.send_flows(flows).await,
                    Some(records) => self.follow(handle, &filter, flows, records).await,
                }
            }
        }
    }

    /// Sends the records that there are, then those to come, if asked for.
    async fn list(
        &mut self,
        handle: &EngineHandle,
        list: List,
        matches: impl Fn(&Record, &FlowFilter) -> bool,
        query: impl AsyncFnOnce(FlowFilter, Option<usize>) -> Result<Vec<Record>, Stopped>,
    ) -> io::Result<()> {
        let List {
            filter,
            last,
            follow,
        } = list;
        if let Some(refusal) = refusal(&filter) {
            return self.send(&refusal).await;
        }
        let records = follow.then(|| handle.follow());
        let present = match query(filter.clone(), last).await {
            Ok(present) => present,
            Err(stopped) => {
                let message = stopped.to_string();
                return self.send(&Answer::Error { message }).await;
            }
        };
        // The engine made these before it answered: they are among those that it answered with.
        let before = records.as_ref().map_or(0, broadcast::Receiver::len);
        for record in &present {
            self.push(record)?;
            if self.piece.len() >= PIECE_BYTES {
                self.flush().await?;
            }
        }
        self.flush().await?;
        let Some(mut records) = records else {
            return Ok(());
        };
        self.write_time = None;
        for _ in 0..before {
            match records.try_recv() {
                Ok(_) => {}
                Err(TryRecvError::Lagged(skipped)) => self.report_lost(handle, skipped)?,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        self.follow_records(handle, records, |record| matches(record, &filter))
            .await
    }

    /// The request, or what is wrong with it.
    async fn request(&mut self) -> io::Result<Result<Request, String>> {
        let mut line = Vec::new();
        let mut reader = (&mut self.reader).take(REQUEST_BYTES);
        match timeout(REQUEST_TIME, reader.read_until(b'\n', &mut line)).await {
            Err(_) => return Ok(Err("no request came".to_owned())),
            Ok(read) => read?,
        };
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.len() as u64 >= REQUEST_BYTES && !line.ends_with(b"\n") {
            return Ok(Err(format!(
                "the request is longer than {REQUEST_BYTES} bytes"
            )));
        }
        Ok(serde_json::from_slice(&line).map_err(|error| format!("invalid request: {error}")))
    }

    async fn send_flows(&mut self, flows: Vec<FlowRecord>) -> io::Result<()> {
        for flow in flows {
            self.push(&Record::from(flow))?;
            if self.piece.len() >= PIECE_BYTES {
                self.flush().await?;
            }
        }
        self.flush().await
    }

    /// Sends what there is, then what comes, until the client leaves.
    async fn follow(
        &mut self,
        handle: &EngineHandle,
        filter: &FlowFilter,
        flows: Vec<FlowRecord>,
        mut records: broadcast::Receiver<Arc<Record>>,
    ) -> io::Result<()> {
        // A follower may pause: it then skips records.
        self.write_time = None;
        let shown: HashMap<_, _> = flows
            .iter()
            .map(|flow| (Identity::of(flow), flow.state))
            .collect();
        // The engine made these before it answered the query.
        let mut before = Vec::with_capacity(records.len());
        let mut lost = 0;
        for _ in 0..records.len() {
            match records.try_recv() {
                Ok(record) => before.push(record),
                Err(TryRecvError::Lagged(skipped)) => lost += skipped,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        self.send_flows(flows).await?;
        if lost > 0 {
            self.report_lost(handle, lost)?;
        }
        for record in before {
            let Record::Flow(flow) = &*record else {
                continue;
            };
            let is_shown = match shown.get(&Identity::of(flow)) {
                Some(State::Closed) => true,
                Some(State::Open) => flow.state == State::Open,
                None => false,
            };
            if !is_shown && filter.matches(flow) {
                self.push(&*record)?;
            }
        }
        drop(shown);
        self.flush().await?;
        self.follow_records(
            handle,
            records,
            |record| matches!(record, Record::Flow(flow) if filter.matches(flow)),
        )
        .await
    }

    /// Sends the records to come, until the client leaves.
    async fn follow_records(
        &mut self,
        handle: &EngineHandle,
        mut records: broadcast::Receiver<Arc<Record>>,
        matches: impl Fn(&Record) -> bool,
    ) -> io::Result<()> {
        loop {
            let mut received = tokio::select! {
                received = records.recv() => received,
                left = self.reader.fill_buf() => {
                    let length = left?.len();
                    if length == 0 {
                        return Ok(());
                    }
                    // Nothing more is expected.
                    self.reader.consume(length);
                    continue;
                }
            };
            // What is there at once is sent at once.
            loop {
                match received {
                    Ok(record) => {
                        if matches(&record) {
                            self.push(&*record)?;
                        }
                    }
                    Err(RecvError::Lagged(skipped)) => self.report_lost(handle, skipped)?,
                    Err(RecvError::Closed) => return self.flush().await,
                }
                if self.piece.len() >= PIECE_BYTES {
                    break;
                }
                received = match records.try_recv() {
                    Ok(record) => Ok(record),
                    Err(TryRecvError::Lagged(skipped)) => Err(RecvError::Lagged(skipped)),
                    Err(TryRecvError::Closed) => Err(RecvError::Closed),
                    Err(TryRecvError::Empty) => break,
                };
            }
            self.flush().await?;
        }
    }

    fn report_lost(&mut self, handle: &EngineHandle, records: u64) -> io::Result<()> {
        handle.lost_by_follower(records);
        self.push(&Answer::Lost { records })
    }

    async fn send(&mut self, answer: &Answer) -> io::Result<()> {
        self.push(answer)?;
        self.flush().await
    }

    fn push<T: Serialize>(&mut self, line: &T) -> io::Result<()> {
        wire::write_line(&mut self.piece, line)
    }

    async fn flush(&mut self) -> io::Result<()> {
        let write = self.writer.write_all(&self.piece);
        match self.write_time {
            Some(limit) => timeout(limit, write).await??,
            None => self.pause.during(write).await?,
        }
        self.piece.clear();
        Ok(())
    }
}

/// Why a filter is not used.
fn refusal(filter: &FlowFilter) -> Option<Answer> {
    (filter.terms.len() > 1_000).then(|| Answer::Error {
        message: "a filter has at most 1000 terms".to_owned(),
    })
}

// === impl Identity ===

impl Identity {
    fn of(flow: &FlowRecord) -> Self {
        let [source, destination] = [&flow.source, &flow.destination].map(|end| (end.ip, end.port));
        Self {
            interface: Arc::clone(&flow.interface),
            protocol: flow.protocol,
            // Which end is the source may change while it is a guess.
            ends: match flow.local {
                LocalEnd::Source => [source, destination],
                LocalEnd::Destination => [destination, source],
            },
            icmp: flow
                .icmp
                .map(|IcmpRecord { kind, code, id }| (kind, code, id)),
            start: flow.start,
        }
    }
}
