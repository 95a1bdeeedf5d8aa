//! A server that answers as it is told.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::StreamExt as _;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response,
    body::{Bytes, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

const PODS: &str = "/api/v1/pods";
/// Time between two events of a server that never pauses.
const CHATTER: Duration = Duration::from_millis(300);

/// What to answer.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// A status code and a body.
    Whole(u16, String),
    /// Events of a watch, which ends then.
    Events(Vec<String>),
    /// Events of a watch, after which nothing comes.
    Silence(Vec<String>),
    /// One event again and again.
    Chatter(String),
}

/// A server. What it has no answer for, it does not have (404); to more about pods than there are
/// answers for, it gives no answer.
pub(super) struct Fake {
    pub(super) address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

#[derive(Default)]
struct Script {
    answers: HashMap<String, VecDeque<Answer>>,
    /// To all about pods that there is no other answer for.
    ever: Option<Answer>,
    asked: Vec<String>,
}

type Body = BoxBody<Bytes, Infallible>;

// === impl Script ===

impl Script {
    fn next(&mut self, path: &str) -> Option<Answer> {
        let Some(answers) = self.answers.get_mut(path) else {
            return Some(Answer::status(404, ""));
        };
        let next = answers.pop_front();
        next.or_else(|| self.ever.clone().filter(|_| path == PODS))
    }
}

// === impl Answer ===

impl Answer {
    pub(super) fn ok(body: &Value) -> Self {
        Self::Whole(200, body.to_string())
    }

    pub(super) fn status(code: u16, message: &str) -> Self {
        let body = json!({"kind": "Status", "code": code, "message": message, "reason": "Why"});
        Self::Whole(code, body.to_string())
    }
}

// === impl Fake ===

impl Fake {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::<Mutex<Script>>::default();
        let fake = Self {
            address,
            script: Arc::clone(&script),
        };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let script = Arc::clone(&script);
                let service = service_fn(move |request| answer(Arc::clone(&script), request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        fake
    }

    fn lock(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    /// Answers to the next requests of a path.
    pub(super) fn answer(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        let mut script = self.lock();
        script
            .answers
            .entry(path.to_owned())
            .or_default()
            .extend(answers);
    }

    pub(super) fn pods(&self, answers: impl IntoIterator<Item = Answer>) {
        self.answer(PODS, answers);
    }

    pub(super) fn ever(&self, answer: Answer) {
        self.lock().ever = Some(answer);
    }

    /// Queries of all requests about pods so far.
    pub(super) fn asked(&self) -> Vec<String> {
        self.lock().asked.clone()
    }
}

async fn answer(
    script: Arc<Mutex<Script>>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path();
    if path == PODS {
        let query = request.uri().query().unwrap_or_default().to_owned();
        script.lock().unwrap().asked.push(query);
    }
    let found = loop {
        let next = script.lock().unwrap().next(path);
        match next {
            Some(answer) => break answer,
            // Until there is one.
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let (code, body) = match found {
        Answer::Whole(code, text) => (code, Full::from(text).boxed()),
        Answer::Events(events) => {
            let frames = events.into_iter().map(|text| Ok(Frame::data(text.into())));
            let body = StreamBody::new(futures_util::stream::iter(frames));
            (200, BodyExt::boxed(body))
        }
        Answer::Silence(events) => {
            let frames = events.into_iter().map(|text| Ok(Frame::data(text.into())));
            let frames = futures_util::stream::iter(frames);
            let body = StreamBody::new(frames.chain(futures_util::stream::pending()));
            (200, BodyExt::boxed(body))
        }
        Answer::Chatter(event) => {
            let frames = futures_util::stream::repeat(event).then(async |text| {
                tokio::time::sleep(CHATTER).await;
                Ok(Frame::data(text.into()))
            });
            (200, BodyExt::boxed(StreamBody::new(frames)))
        }
    };
    let response = Response::builder().status(code);
    Ok(response
        .header("content-type", "application/json")
        .body(body)
        .unwrap())
}
