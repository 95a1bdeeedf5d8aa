//! `/metrics`, `/healthz` and `/readyz` over HTTP/1.1.
//!
//! Loopback by default, since it tells who talks to whom. Bounded in connections and time: whoever
//! can reach it must not be able to hold up the daemon.

use std::{convert::Infallible, fmt::Write as _, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::{Mutex, Semaphore, watch},
    task::JoinSet,
};

use super::prometheus;
use crate::runtime::EngineHandle;

/// Connections at a time; more wait.
const CONNECTIONS: usize = 32;
/// For a request's headers to arrive, and between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// For a whole connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_mins(5);
const TEXT: &str = "text/plain; charset=utf-8";
const INDEX: &str = "nodewatch\n\n/metrics  OpenMetrics\n/healthz  the process is alive\n/readyz   attached, counting, and in sync with the cluster\n";

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; choose another --listen, or `none`")]
pub struct BindError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// Listens on an address.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| BindError { address, source })
}

/// What requests are answered from.
struct Context {
    handle: EngineHandle,
    ready: watch::Receiver<bool>,
    /// Holds one encoding at a time: each takes a megabyte or so.
    encoding: Mutex<()>,
}

/// Answers requests until `shutdown` is done.
pub async fn serve(
    listener: TcpListener,
    handle: EngineHandle,
    ready: watch::Receiver<bool>,
    shutdown: impl Future<Output = ()>,
) {
    let context = Arc::new(Context {
        handle,
        ready,
        encoding: Mutex::new(()),
    });
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
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
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let context = Arc::clone(&context);
        connections.spawn(async move {
            let _place = place;
            let service = service_fn(move |request| answer(Arc::clone(&context), request));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            let served = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
            if let Ok(Err(error)) = served {
                tracing::debug!(%error, "HTTP connection");
            }
        });
    }
}

async fn answer(
    context: Arc<Context>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    Ok(match request.uri().path() {
        "/" => text(StatusCode::OK, TEXT, INDEX),
        "/healthz" => text(StatusCode::OK, TEXT, "ok\n"),
        "/readyz" => readiness(&context),
        "/metrics" => metrics(&context).await,
        _ => text(
            StatusCode::NOT_FOUND,
            TEXT,
            "there is /metrics, /healthz and /readyz\n",
        ),
    })
}

/// Ready: the interfaces are watched, and what there is to know of the cluster is known. A kind of
/// object that there is no right to watch is named and holds up nothing.
fn readiness(context: &Context) -> Response<Full<Bytes>> {
    const NOT: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
    if !*context.ready.borrow() {
        return text(NOT, TEXT, "the interfaces are not yet watched\n");
    }
    let snapshot = context.handle.snapshot();
    let Some(cluster) = &snapshot.status.kubernetes else {
        return text(StatusCode::OK, TEXT, "ok\n");
    };
    let mut missing = String::new();
    for resource in &cluster.resources {
        if !resource.state.is_in_sync() {
            let (name, state) = (&resource.resource, resource.state.name());
            let _ = writeln!(missing, "cluster: {name} {state}");
        }
    }
    if cluster.is_settled() {
        text(StatusCode::OK, TEXT, format!("ok\n{missing}"))
    } else {
        text(NOT, TEXT, missing)
    }
}

async fn metrics(context: &Context) -> Response<Full<Bytes>> {
    let _turn = context.encoding.lock().await;
    let snapshot = context.handle.snapshot();
    match tokio::task::spawn_blocking(move || prometheus::render(snapshot)).await {
        Ok(Ok(body)) => text(StatusCode::OK, prometheus::CONTENT_TYPE, body),
        Ok(Err(_)) | Err(_) => {
            tracing::error!("cannot encode the metrics");
            text(
                StatusCode::INTERNAL_SERVER_ERROR,
                TEXT,
                "cannot encode the metrics\n",
            )
        }
    }
}

fn text(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
