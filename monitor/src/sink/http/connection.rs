//! Connections: how many, from whom, for how long, and whether in TLS.

use std::{
    collections::HashMap,
    net::IpAddr,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{Context, answer};
use crate::sink::web::Refused;

/// Connections at a time; more wait.
const CONNECTIONS: usize = 32;
/// Connections at a time from one address, so that none keeps all others out. More are closed at once.
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

/// Connections by address.
#[derive(Debug, Default)]
struct Crowd(Mutex<HashMap<IpAddr, usize>>);

/// A place among the connections of an address; free again when this is dropped.
struct Place {
    crowd: Arc<Crowd>,
    address: IpAddr,
}

/// Answers requests until `shutdown` is done.
pub async fn serve(listener: TcpListener, context: Context, shutdown: impl Future<Output = ()>) {
    let context = Arc::new(context);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let crowd = Arc::new(Crowd::default());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accept => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(own) = Crowd::enter(&crowd, peer.ip()) else {
            context.web.counts().refuse(Refused::Crowd);
            continue;
        };
        let context = Arc::clone(&context);
        connections.spawn(async move {
            let _places = (place, own);
            secure(context, stream).await;
        });
    }
}

/// Agrees upon TLS where it is configured, and answers.
async fn secure(context: Arc<Context>, mut stream: TcpStream) {
    let Some(tls) = context.web.web().tls() else {
        return converse(context, false, stream).await;
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
            return converse(context, has_certificate, secured).await;
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
    has_certificate: bool,
    stream: S,
) {
    let counts = Arc::clone(context.web.counts());
    let has_asked = AtomicBool::new(false);
    let service = service_fn(|request| {
        has_asked.store(true, Ordering::Relaxed);
        answer(Arc::clone(&context), has_certificate, request)
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
    /// A place for one more connection of an address, unless it has too many.
    fn enter(crowd: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut held = crowd.0.lock().expect("no code panics while it holds this");
        let count = held.entry(address).or_default();
        if *count >= FROM_ONE {
            return None;
        }
        *count += 1;
        Some(Place {
            crowd: Arc::clone(crowd),
            address,
        })
    }
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self
            .crowd
            .0
            .lock()
            .expect("no code panics while it holds this");
        if let Some(count) = held.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_does_not_take_all_places() {
        let crowd = Arc::new(Crowd::default());
        let [one, other]: [IpAddr; 2] =
            ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().expect("an address"));
        let mut places: Vec<_> = (0..FROM_ONE)
            .map(|_| Crowd::enter(&crowd, one).expect("a place"))
            .collect();
        assert!(Crowd::enter(&crowd, one).is_none());
        assert!(Crowd::enter(&crowd, other).is_some());
        places.pop();
        assert!(Crowd::enter(&crowd, one).is_some());
        places.clear();
        assert!(crowd.0.lock().expect("not poisoned").is_empty());
    }

    #[test]
    fn the_plain_answer_is_as_long_as_it_says() {
        let (head, body) = PLAINTEXT.split_once("\r\n\r\n").expect("a body");
        let length = format!("Content-Length: {}", body.len());
        assert!(head.contains(&length), "{length}");
    }
}
