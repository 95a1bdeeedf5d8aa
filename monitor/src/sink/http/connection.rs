//! Connections: how many, from whom, for how long, and whether in TLS.

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::IpAddr,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{Context, answer};
use crate::sink::web::Refused;

/// Connections at a time. For one more, one of the address with the most is closed.
const CONNECTIONS: usize = 32;
/// Connections at a time from one address, so that none keeps all others out. For one more, the one that
/// has been idle longest is closed: the kubelet's probes come from the address of every pod on the node's
/// network, and must get in whatever those hold open.
const FROM_ONE: usize = 12;
/// For a first byte and the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// For a request's headers to arrive, and between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// For a whole connection; Prometheus gives a scrape ten seconds by default.
const CONNECTION_TIMEOUT: Duration = Duration::from_mins(1);
/// For the last answer, when that time is over.
const LAST_ANSWER: Duration = Duration::from_secs(10);
/// Type `handshake` of a TLS record (RFC 8446, 5.1): what a client sends first.
const TLS_HANDSHAKE: u8 = 0x16;
const PLAINTEXT: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
     Content-Length: 59\r\nConnection: close\r\n\r\n\
     this is an HTTPS server: plain HTTP was sent, use https://\n";

/// Connections that are open.
#[derive(Debug, Default)]
struct Crowd(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    /// Counts entries and requests: the order in which connections last did something.
    sequence: u64,
    /// By number.
    connections: HashMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    address: IpAddr,
    /// When it was accepted or last asked, in the order of all.
    last: u64,
    /// Whether it waits for an answer.
    is_busy: bool,
    leave: Arc<Notify>,
}

/// A place among the connections; free again when this is dropped.
struct Place {
    crowd: Arc<Crowd>,
    number: u64,
    /// Told when the place is another's.
    leave: Arc<Notify>,
}

/// Answers requests until `shutdown` is done.
pub async fn serve(listener: TcpListener, context: Context, shutdown: impl Future<Output = ()>) {
    let context = Arc::new(context);
    let crowd = Arc::new(Crowd::default());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (place, is_crowded) = Crowd::enter(&crowd, peer.ip());
        if is_crowded {
            context.web.counts().refuse(Refused::Crowd);
        }
        let context = Arc::clone(&context);
        connections.spawn(async move {
            tokio::select! {
                () = place.leave.notified() => {}
                () = secure(context, &place, stream) => {}
            }
        });
    }
}

/// Agrees upon TLS where it is configured, and answers.
async fn secure(context: Arc<Context>, place: &Place, mut stream: TcpStream) {
    let Some(tls) = context.web.web().tls() else {
        return converse(context, place, false, stream).await;
    };
    let agreed = timeout(HANDSHAKE_TIMEOUT, async {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1) if first[0] != TLS_HANDSHAKE => Err(Refused::Plaintext),
            Ok(1) => TlsAcceptor::from(tls)
                .accept(&mut stream)
                .await
                .map_err(|error| {
                    tracing::debug!(%error, "TLS handshake");
                    Refused::Handshake
                }),
            _ => Err(Refused::Handshake),
        }
    });
    let why = match agreed.await {
        Ok(Ok(secured)) => {
            let has_certificate = secured.get_ref().1.peer_certificates().is_some();
            return converse(context, place, has_certificate, secured).await;
        }
        Ok(Err(why)) => why,
        Err(_) => Refused::Handshake,
    };
    context.web.counts().refuse(why);
    if why == Refused::Plaintext {
        explain(stream).await;
    }
}

/// Tells a client that speaks plain HTTP what is spoken here. What it sent is read, or the answer would
/// be lost with it (RFC 9112, 9.6).
async fn explain(mut stream: TcpStream) {
    let told = timeout(Duration::from_secs(1), async {
        stream.write_all(PLAINTEXT.as_bytes()).await?;
        stream.shutdown().await?;
        let mut rest = [0; 1024];
        for _ in 0..16 {
            if stream.read(&mut rest).await? == 0 {
                break;
            }
        }
        std::io::Result::Ok(())
    });
    if let Ok(Err(error)) = told.await {
        tracing::debug!(%error, "HTTP connection");
    }
}

/// Answers requests on one connection.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    context: Arc<Context>,
    place: &Place,
    has_certificate: bool,
    stream: S,
) {
    let counts = Arc::clone(context.web.counts());
    let has_asked = AtomicBool::new(false);
    let service = service_fn(|request| {
        has_asked.store(true, Ordering::Relaxed);
        let context = Arc::clone(&context);
        async move {
            place.set_busy(true);
            let answered = answer(context, has_certificate, request).await;
            place.set_busy(false);
            answered
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let served = match timeout(CONNECTION_TIMEOUT, connection.as_mut()).await {
        Ok(served) => Ok(served),
        Err(_) => {
            connection.as_mut().graceful_shutdown();
            timeout(LAST_ANSWER, connection).await
        }
    };
    match served {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            // One that has asked may stay silent until it asks again.
            if error.is_timeout() && !has_asked.load(Ordering::Relaxed) {
                counts.refuse(Refused::Timeout);
            }
            tracing::debug!(%error, "HTTP connection");
        }
        Err(_) => counts.refuse(Refused::Timeout),
    }
}

// === impl Crowd ===

impl Crowd {
    /// A place for one more connection of an address, and whether another one had to leave for it.
    fn enter(crowd: &Arc<Self>, address: IpAddr) -> (Place, bool) {
        let mut held = crowd.held();
        let victim = held.victim(address);
        if let Some(left) = victim.and_then(|number| held.connections.remove(&number)) {
            left.leave.notify_one();
        }
        let number = held.next();
        let leave = Arc::<Notify>::default();
        held.connections.insert(
            number,
            Connection {
                address,
                last: number,
                is_busy: false,
                leave: Arc::clone(&leave),
            },
        );
        let place = Place {
            crowd: Arc::clone(crowd),
            number,
            leave,
        };
        (place, victim.is_some())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().expect("no code panics while it holds this")
    }
}

// === impl Held ===

impl Held {
    fn next(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// The connection that must leave for one more of this address, if any: of the crowded address, or
    /// the most crowded one; rather one that waits for no answer; the one that did nothing for longest.
    fn victim(&self, address: IpAddr) -> Option<u64> {
        let of = |address| {
            let all = self.connections.values();
            all.filter(|other| other.address == address).count()
        };
        let is_crowded = of(address) >= FROM_ONE;
        if !is_crowded && self.connections.len() < CONNECTIONS {
            return None;
        }
        let all = self.connections.iter();
        let may_leave = all.filter(|(_, other)| !is_crowded || other.address == address);
        let (number, _) = may_leave
            .min_by_key(|(_, other)| (Reverse(of(other.address)), other.is_busy, other.last))?;
        Some(*number)
    }
}

// === impl Place ===

impl Place {
    /// Says that a request came, or that its answer is made.
    fn set_busy(&self, is_busy: bool) {
        let mut held = self.crowd.held();
        let last = held.next();
        if let Some(connection) = held.connections.get_mut(&self.number) {
            (connection.is_busy, connection.last) = (is_busy, last);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.held().connections.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    /// Whether a connection has been told to leave.
    fn has_left(place: &Place) -> bool {
        !place.crowd.held().connections.contains_key(&place.number)
    }

    #[test]
    fn a_new_connection_always_gets_in_and_the_longest_idle_of_its_address_leaves() {
        let crowd = Arc::new(Crowd::default());
        let (other, _) = Crowd::enter(&crowd, address(2));
        let mut places = Vec::new();
        for _ in 0..FROM_ONE {
            let (place, is_crowded) = Crowd::enter(&crowd, address(1));
            assert!(!is_crowded);
            places.push(place);
        }
        // The first waits for its answer, the second has asked since the third came.
        places[0].set_busy(true);
        places[1].set_busy(true);
        places[1].set_busy(false);
        let (newest, is_crowded) = Crowd::enter(&crowd, address(1));
        assert!(is_crowded && !has_left(&newest) && !has_left(&other));
        let left: Vec<_> = places.iter().map(has_left).collect();
        let third: Vec<_> = (0..FROM_ONE).map(|number| number == 2).collect();
        assert_eq!(left, third);
        // Not even requests without end keep a probe out.
        for place in &places {
            place.set_busy(true);
        }
        newest.set_busy(true);
        let (probe, is_crowded) = Crowd::enter(&crowd, address(1));
        assert!(is_crowded && !has_left(&probe));
        drop((places, newest, probe, other));
        assert!(crowd.held().connections.is_empty());
    }

    #[test]
    fn when_all_places_are_taken_the_most_crowded_address_gives_one() {
        let crowd = Arc::new(Crowd::default());
        let (quiet, _) = Crowd::enter(&crowd, address(9));
        let mut places = Vec::new();
        for (host, count) in [(1, 10), (2, FROM_ONE), (3, 9)] {
            places.extend((0..count).map(|_| Crowd::enter(&crowd, address(host)).0));
        }
        assert_eq!(crowd.held().connections.len(), CONNECTIONS);
        let (newest, is_crowded) = Crowd::enter(&crowd, address(4));
        assert!(is_crowded && !has_left(&newest) && !has_left(&quiet));
        assert!(has_left(&places[10]));
        assert_eq!(crowd.held().connections.len(), CONNECTIONS);
    }

    #[test]
    fn the_plain_answer_is_as_long_as_it_says() {
        let (head, body) = PLAINTEXT.split_once("\r\n\r\n").expect("a body");
        let length = format!("Content-Length: {}", body.len());
        assert!(head.contains(&length), "{length}");
    }
}
