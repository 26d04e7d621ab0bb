//! Bad weather before the cloud: a proxy that throttles, fails, loses requests and answers, and lets what was just
//! made be unknown for a moment, as AWS does on a bad day. It also counts what is asked.
//!
//! The client tokens of EC2, by which a call that is made twice has one effect, are not known to moto: they are
//! honoured here.

#![expect(clippy::expect_used, reason = "a test cannot go on without its cloud")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lab::GATEWAY;
use tokio_util::sync::CancellationToken;

use crate::Cloud;
use crate::cloud::{endpoint, in_network};

/// The port of the proxy.
const PORT: u16 = 5001;

/// The proxy.
#[derive(Debug)]
pub struct Weather {
    shared: Arc<Shared>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    sky: Mutex<Sky>,
}

#[derive(Debug)]
struct Sky {
    random: fastrand::Rng,
    /// How many of a hundred requests meet something.
    rate: u8,
    /// Requests by what they ask for.
    asked: BTreeMap<String, usize>,
    /// The body of the last one of each kind.
    last: BTreeMap<String, String>,
    /// What requests of a kind meet, each time.
    struck: BTreeMap<String, Storm>,
    /// What they met.
    met: BTreeMap<&'static str, usize>,
    /// The answer that was given to a client token.
    answers: BTreeMap<String, Answer>,
    /// What was just made, and how often it is still unknown.
    unknown: BTreeMap<String, u8>,
    /// Questions that are answered as if nothing had been made, and how often.
    empty: BTreeMap<String, u8>,
}

type Answer = (StatusCode, Option<HeaderValue>, Bytes);

/// What a request may meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storm {
    /// It is told to come back later.
    Throttled,
    /// It is answered with an error and has no effect.
    FailedBefore,
    /// It is answered with an error and has its effect.
    FailedAfter,
    /// It does not arrive.
    RequestLost,
    /// It has its effect, and the answer does not arrive.
    AnswerLost,
    /// It is sent to the region where the bucket is, as S3 does with whoever asks in another one.
    Elsewhere {
        /// That region.
        region: &'static str,
    },
    /// It has no effect, and AWS says why.
    Refused {
        /// The status of the answer.
        status: u16,
        /// What AWS calls the error.
        code: &'static str,
        /// What it says about it.
        message: &'static str,
    },
}

/// What a request is about.
struct Question {
    /// As IAM names it, or nearly.
    action: String,
    ec2: bool,
    token: Option<String>,
    body: String,
    path: String,
}

impl Weather {
    /// Puts the proxy before the cloud; `rate` of a hundred requests meet something.
    pub fn over(cloud: &Cloud, seed: u64, rate: u8) -> Self {
        let shared = Arc::new(Shared {
            sky: Mutex::new(Sky {
                random: fastrand::Rng::with_seed(seed),
                rate,
                asked: BTreeMap::new(),
                last: BTreeMap::new(),
                struck: BTreeMap::new(),
                met: BTreeMap::new(),
                answers: BTreeMap::new(),
                unknown: BTreeMap::new(),
                empty: BTreeMap::new(),
            }),
        });
        let stop = CancellationToken::new();
        let (lab, ours, until) = (cloud.lab.clone(), shared.clone(), stop.clone());
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            in_network(&lab, async move || {
                let listener =
                    tokio::net::TcpListener::bind((GATEWAY, PORT)).await.expect("the port is free");
                let _ = ready.send(());
                until.run_until_cancelled(serve(listener, ours)).await;
            });
        });
        let _ = is_ready.recv_timeout(Duration::from_secs(10));
        Self { shared, stop, thread: Some(thread) }
    }

    /// Where the API is, through the proxy.
    pub fn endpoint(&self) -> String {
        format!("http://{GATEWAY}:{PORT}")
    }

    /// Changes how many of a hundred requests meet something.
    pub fn set_rate(&self, rate: u8) {
        self.shared.sky().rate = rate;
    }

    /// From now on every request that asks for `action`, as [`Self::take_counts`] calls it, meets this.
    pub fn strike(&self, action: &str, storm: Storm) {
        self.shared.sky().struck.insert(action.to_owned(), storm);
    }

    /// Ends what [`Self::strike`] began.
    pub fn calm(&self) {
        self.shared.sky().struck.clear();
    }

    /// The next `times` questions about what was made under this name or id are answered by a part of EC2 that has
    /// not heard of it.
    pub fn hide(&self, made: &str, times: u8) {
        self.shared.sky().unknown.insert(made.to_owned(), times);
    }

    /// The next `times` questions of this kind, which look for something by a filter, are answered by a part of EC2
    /// that has heard of nothing.
    pub fn hide_everything(&self, action: &str, times: u8) {
        self.shared.sky().empty.insert(action.to_owned(), times);
    }

    /// How many requests have asked for `action` since the last [`Self::take_counts`].
    pub fn asked(&self, action: &str) -> usize {
        self.shared.sky().asked.get(action).copied().unwrap_or(0)
    }

    /// A parameter of the last request that asked for `action`, as it was sent.
    pub fn parameter(&self, action: &str, name: &str) -> Option<String> {
        parameter(self.shared.sky().last.get(action)?, name)
    }

    /// The requests since the last time by what they asked for, and what they met.
    pub fn take_counts(&self) -> (BTreeMap<String, usize>, BTreeMap<&'static str, usize>) {
        let mut sky = self.shared.sky();
        (std::mem::take(&mut sky.asked), std::mem::take(&mut sky.met))
    }
}

impl Drop for Weather {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn sky(&self) -> MutexGuard<'_, Sky> {
        self.sky.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(listener: tokio::net::TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let shared = shared.clone();
                async move { answer(&shared, request).await }
            });
            // An error is what a lost request or answer looks like from here.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// A request or an answer that does not arrive.
#[derive(Debug, thiserror::Error)]
#[error("lost")]
struct Lost;

impl From<hyper::Error> for Lost {
    fn from(_: hyper::Error) -> Self {
        Self
    }
}

impl From<Infallible> for Lost {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Lost> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let question = Question::of(&head.method, &head.uri, &body);
    let (storm, known) = {
        let mut sky = shared.sky();
        *sky.asked.entry(question.action.clone()).or_default() += 1;
        sky.last.insert(question.action.clone(), question.body.clone());
        let storm = sky.next(&question.action);
        let known = question.token.as_ref().and_then(|token| sky.answers.get(token).cloned());
        if let Some(refusal) = sky.does_not_know(&question) {
            return Ok(response(refusal));
        }
        (storm, known)
    };
    match storm {
        Some(Storm::Throttled) => return Ok(response(question.throttled())),
        Some(Storm::FailedBefore) => return Ok(response(question.failed())),
        Some(Storm::RequestLost) => return Err(Lost),
        Some(Storm::Refused { status, code, message }) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
            return Ok(response((status, Some(xml()), question.refused(code, message))));
        }
        Some(Storm::Elsewhere { region }) => {
            let body = question.refused("PermanentRedirect", "The bucket is in another region.");
            let mut response = response((StatusCode::MOVED_PERMANENTLY, Some(xml()), body));
            response.headers_mut().insert("x-amz-bucket-region", HeaderValue::from_static(region));
            return Ok(response);
        }
        _ => {}
    }
    let given = if let Some(answer) = known {
        answer
    } else {
        let given = pass_on(head, body).await?;
        if given.0.is_success() {
            shared.sky().remember(&question, &given);
        }
        given
    };
    match storm {
        Some(Storm::FailedAfter) => Ok(response(question.failed())),
        Some(Storm::AnswerLost) => Err(Lost),
        _ => Ok(response(given)),
    }
}

async fn pass_on(mut head: hyper::http::request::Parts, body: Bytes) -> Result<Answer, Lost> {
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = format!("{}{path}", endpoint()).parse().map_err(|_| Lost)?;
    head.headers.insert(HOST, HeaderValue::from_str(&format!("{GATEWAY}:5000")).map_err(|_| Lost)?);
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let answer = client.request(Request::from_parts(head, Full::new(body))).await.map_err(|_| Lost)?;
    let (head, body) = answer.into_parts();
    Ok((head.status, head.headers.get(CONTENT_TYPE).cloned(), body.collect().await?.to_bytes()))
}

fn response((status, kind, body): Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    if let Some(kind) = kind {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response
}

impl Sky {
    fn next(&mut self, action: &str) -> Option<Storm> {
        if let Some(storm) = self.struck.get(action) {
            return Some(*storm);
        }
        if self.random.u8(0..100) >= self.rate {
            return None;
        }
        let storms = [
            (Storm::Throttled, "throttled"),
            (Storm::FailedBefore, "500 before it took effect"),
            (Storm::FailedAfter, "500 after it took effect"),
            (Storm::RequestLost, "request lost"),
            (Storm::AnswerLost, "answer lost"),
        ];
        let (storm, name) = storms[self.random.usize(0..storms.len())];
        *self.met.entry(name).or_default() += 1;
        Some(storm)
    }

    /// What was just made is not known everywhere at once.
    fn remember(&mut self, question: &Question, given: &Answer) {
        if let Some(token) = &question.token {
            self.answers.insert(token.clone(), given.clone());
        }
        if self.rate == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&given.2);
        let made = match question.action.as_str() {
            "RunInstances" => between(&text, "<instanceId>", "</instanceId>").map(str::to_owned),
            "CreateVolume" => between(&text, "<volumeId>", "</volumeId>").map(str::to_owned),
            "ImportKeyPair" => question.parameter("KeyName"),
            _ => None,
        };
        if let Some(made) = made {
            let times = self.random.u8(0..4);
            self.unknown.insert(made, times);
        }
    }

    /// The answer of a part of EC2 that has not heard of it yet.
    fn does_not_know(&mut self, question: &Question) -> Option<Answer> {
        if !question.ec2 || !question.action.starts_with("Describe") {
            return None;
        }
        if let Some(times) = self.empty.get_mut(&question.action).filter(|times| **times > 0)
            && question.body.contains("Filter.")
        {
            *times -= 1;
            return Some(nothing(&question.action));
        }
        let (made, times) =
            self.unknown.iter_mut().find(|(made, times)| **times > 0 && question.names(made))?;
        *times -= 1;
        let (made, action) = (made.clone(), &question.action);
        *self.met.entry("not known yet").or_default() += 1;
        if question.body.contains("Filter.") {
            return Some(nothing(action));
        }
        let code = match made.split('-').next() {
            Some("i") => "InvalidInstanceID.NotFound",
            Some("vol") => "InvalidVolume.NotFound",
            _ => "InvalidKeyPair.NotFound",
        };
        Some((StatusCode::BAD_REQUEST, Some(xml()), error(code, "it is not known yet")))
    }
}

impl Question {
    fn of(method: &Method, uri: &Uri, body: &Bytes) -> Self {
        let text = String::from_utf8_lossy(body).into_owned();
        let ec2 = *method == Method::POST && text.starts_with("Action=");
        let mut question = Self {
            action: String::new(),
            ec2,
            token: None,
            body: if ec2 { text } else { String::new() },
            path: uri.path().to_owned(),
        };
        question.token = question.parameter("ClientToken");
        let part = uri.query().and_then(|query| query.split(['=', '&']).next()).unwrap_or_default();
        question.action = question.parameter("Action").unwrap_or_else(|| format!("S3 {method} {part}"));
        question
    }

    fn parameter(&self, name: &str) -> Option<String> {
        parameter(&self.body, name)
    }

    fn names(&self, made: &str) -> bool {
        self.body.split('&').any(|pair| pair.split_once('=').is_some_and(|(_, value)| value == made))
    }

    fn throttled(&self) -> Answer {
        let code = if self.ec2 { "RequestLimitExceeded" } else { "SlowDown" };
        (StatusCode::SERVICE_UNAVAILABLE, Some(xml()), self.refused(code, "Request limit exceeded."))
    }

    fn failed(&self) -> Answer {
        let body = self.refused("InternalError", "An internal error.");
        (StatusCode::INTERNAL_SERVER_ERROR, Some(xml()), body)
    }

    /// The body of an error as the service writes it.
    fn refused(&self, code: &str, message: &str) -> Bytes {
        if self.ec2 {
            return error(code, message);
        }
        Bytes::from(format!(
            "<Error><Code>{code}</Code><Message>{message}</Message><Resource>{}</Resource><RequestId>weather</RequestId></Error>",
            self.path
        ))
    }
}

/// The answer to a question that finds nothing.
fn nothing(action: &str) -> Answer {
    let set = match action {
        "DescribeInstances" => "reservationSet",
        "DescribeVolumes" => "volumeSet",
        _ => "keySet",
    };
    let body = format!(
        "<{action}Response \
         xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>weather</requestId><{set}/></{action}Response>"
    );
    (StatusCode::OK, Some(xml()), Bytes::from(body))
}

fn parameter(body: &str, name: &str) -> Option<String> {
    let mut pairs = body.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}

fn error(code: &str, message: &str) -> Bytes {
    Bytes::from(format!(
        "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors><RequestID>weather</RequestID></Response>"
    ))
}

fn xml() -> HeaderValue {
    HeaderValue::from_static("text/xml")
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    let rest = &text[text.find(from)? + from.len()..];
    rest.find(to).map(|end| &rest[..end])
}
