//! `/metrics`, `/healthz` and `/readyz` over HTTP/1.1, with TLS where it is configured.
//!
//! Loopback by default, since it tells who talks to whom. Bounded in connections and time: whoever
//! can reach it must not be able to hold up the daemon.

mod connection;

use std::{convert::Infallible, fmt::Write as _, io, net::SocketAddr, path::PathBuf, sync::Arc};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE},
};
use tokio::{
    net::TcpListener,
    sync::{Mutex, watch},
};

use monitor_core::{account::InterfaceStatus, event::Point};

use super::{
    prometheus,
    web::{Current, Refused, Verdict},
};
use crate::runtime::EngineHandle;

pub use connection::serve;

const TEXT: &str = "text/plain; charset=utf-8";
const INDEX: &str = "nodewatch\n\n/metrics  OpenMetrics\n/healthz  the process is alive\n/readyz   an uplink is attached to and counted, and the cluster is in sync\n";

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
#[derive(Debug)]
pub struct Context {
    handle: EngineHandle,
    ready: watch::Receiver<bool>,
    web: Current,
    /// The file that says that the node wants to be rebooted.
    reboot: PathBuf,
    /// Holds one encoding at a time: each takes a megabyte or so.
    encoding: Arc<Mutex<()>>,
}

// === impl Context ===

impl Context {
    /// Answers from the engine's snapshot, to those whom `web` allows. `reboot` is the file that says
    /// that the node wants to be rebooted.
    pub fn new(
        handle: EngineHandle,
        ready: watch::Receiver<bool>,
        web: Current,
        reboot: PathBuf,
    ) -> Self {
        Self {
            handle,
            ready,
            web,
            reboot,
            encoding: Arc::default(),
        }
    }
}

/// Answers a request; `has_certificate` says whether the client has shown one that is accepted.
async fn answer(
    context: Arc<Context>,
    has_certificate: bool,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(last(response));
    }
    // The kubelet asks these, and has no credentials.
    match request.uri().path() {
        "/healthz" => return Ok(last(text(StatusCode::OK, TEXT, "ok\n"))),
        "/readyz" => return Ok(last(readiness(&context))),
        _ => {}
    }
    if let Some(refusal) = refuse(&context, has_certificate, &request).await {
        return Ok(last(refusal));
    }
    Ok(match request.uri().path() {
        "/" => text(StatusCode::OK, TEXT, INDEX),
        "/metrics" => metrics(&context).await,
        _ => text(
            StatusCode::NOT_FOUND,
            TEXT,
            "there is /metrics, /healthz and /readyz\n",
        ),
    })
}

/// The last answer on its connection: who has shown nothing does not keep one.
fn last(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Ready: an uplink is watched, and what there is to know of the cluster is known. A kind of
/// object that there is no right to watch is named and holds up nothing.
fn readiness(context: &Context) -> Response<Full<Bytes>> {
    const NOT: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
    if !*context.ready.borrow() {
        return text(NOT, TEXT, "the interfaces are not yet watched\n");
    }
    let snapshot = context.handle.snapshot();
    if let Some(reason) = uncovered(&snapshot.status.interfaces) {
        return text(NOT, TEXT, reason + "\n");
    }
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

/// The answer to one who may not read.
async fn refuse(
    context: &Context,
    has_certificate: bool,
    request: &Request<Incoming>,
) -> Option<Response<Full<Bytes>>> {
    let web = context.web.web();
    if web.needs_certificate() && !has_certificate {
        context.web.counts().refuse(Refused::Certificate);
        let message = "a client certificate is needed\n";
        return Some(text(StatusCode::FORBIDDEN, TEXT, message));
    }
    let authorization = request.headers().get(AUTHORIZATION);
    let authorization = authorization.map(HeaderValue::as_bytes);
    if web.access().judge(authorization).await == Verdict::Allowed {
        return None;
    }
    context.web.counts().refuse(Refused::Credentials);
    let mut response = text(StatusCode::UNAUTHORIZED, TEXT, "unauthorized\n");
    for challenge in web.access().challenges() {
        let challenge = HeaderValue::from_static(challenge);
        response.headers_mut().append(WWW_AUTHENTICATE, challenge);
    }
    Some(response)
}

/// Why no uplink is watched, if none is. A workload interface that cannot be watched does not
/// make the whole daemon unready; `nodewatch_interface_covered` tells of it.
fn uncovered(interfaces: &[InterfaceStatus]) -> Option<String> {
    let is_uplink = |interface: &&InterfaceStatus| interface.point == Point::Uplink;
    let mut reason = "no uplink: no default route leads to an interface, and --uplink names none \
                      that is there"
        .to_owned();
    for uplink in interfaces.iter().filter(is_uplink) {
        if uplink.covered {
            return None;
        }
        if let Some(why) = &uplink.reason {
            reason = format!("the uplink {} is not watched: {why}", uplink.name);
        }
    }
    Some(reason)
}

async fn metrics(context: &Context) -> Response<Full<Bytes>> {
    let turn = Arc::clone(&context.encoding).lock_owned().await;
    let snapshot = context.handle.snapshot();
    let counts = Arc::clone(context.web.counts());
    let reboot = context.reboot.clone();
    let rendered = tokio::task::spawn_blocking(move || {
        // Held here: who asked may be gone before this ends.
        let _turn = turn;
        prometheus::render(snapshot, &counts, &reboot)
    });
    match rendered.await {
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
