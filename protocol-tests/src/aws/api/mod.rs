//! The HTTPS front of the sandbox: every service on one port, told apart as AWS clients mark them.

mod ec2;
mod flood;
mod iam;
mod json;
mod kms;
mod oidc;
mod pages;
mod portal;
mod query;
mod rds;
mod rest;
mod signin;
mod ssm;
mod sts;
mod xml;

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::aws::cloud::Cloud;
use crate::aws::gateway;
use crate::aws::iam::{Refusal, User};
use crate::harness::sync::lock;

pub use ssm::SessionDocument;

/// Larger than any request these services accept.
const BODY_LIMIT: usize = 1 << 20;

/// A request read to its end.
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Every answer is small and known whole.
pub(crate) type Reply = http::Response<Full<Bytes>>;

/// A failure to inject into the next calls of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiFault {
    /// Too many calls: `ThrottlingException`, "Rate exceeded", or the service's own words for it.
    Throttled,
    /// `InternalServerError` with status 500.
    InternalError,
    /// Status 400 without a body, as seen from a broken middlebox or an overloaded service.
    EmptyBadRequest,
    /// The request is read and never answered.
    NoAnswer,
    /// Status 200 and a document that is none, as from a proxy with a page of its own.
    Nonsense,
    /// Status 200 and a body that never ends, as fast as it is read. [`Api::flooded`] counts its bytes.
    Flood,
    /// The same, a byte every tenth of a second.
    Drip,
    /// Any other refusal.
    Refused {
        /// HTTP status.
        status: u16,
        /// Error code, for example `AccessDeniedException`.
        code: &'static str,
        /// Its message.
        message: &'static str,
    },
}

/// Controls of the API; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Api(Arc<Controls>);

#[derive(Debug, Default)]
struct Controls {
    faults: Mutex<HashMap<String, VecDeque<ApiFault>>>,
    /// 0: as the caller asks.
    page_limit: AtomicUsize,
    leave_token_out: AtomicBool,
    flooded: Arc<AtomicUsize>,
}

impl Api {
    /// How many bytes of endless answers have been handed to connections.
    pub fn flooded(&self) -> usize {
        self.0.flooded.load(Ordering::Relaxed)
    }

    /// Lets the next `times` correctly signed calls of `operation` (for example `StartSession`)
    /// fail; later orders queue up behind earlier ones.
    pub fn fail(&self, operation: &str, fault: ApiFault, times: usize) {
        let mut faults = lock(&self.0.faults);
        let queue = faults.entry(operation.to_owned()).or_default();
        queue.extend(std::iter::repeat_n(fault, times));
    }

    /// Forgets all faults not yet used.
    pub fn recover(&self) {
        lock(&self.0.faults).clear();
    }

    /// Puts at most `limit` items on a page of a list, whatever the caller asks for; AWS promises
    /// no more than that and gives shorter pages at will. 0 takes the limit away.
    pub fn limit_pages(&self, limit: usize) {
        self.0.page_limit.store(limit, Ordering::Relaxed);
    }

    /// How `ResumeSession` says that a session is over: with an empty `TokenValue` (the default) or
    /// with none at all. Clients have to understand both.
    pub fn leave_token_out(&self, out: bool) {
        self.0.leave_token_out.store(out, Ordering::Relaxed);
    }

    fn leaves_token_out(&self) -> bool {
        self.0.leave_token_out.load(Ordering::Relaxed)
    }

    fn page_size(&self, asked: usize) -> usize {
        match self.0.page_limit.load(Ordering::Relaxed) {
            0 => asked,
            limit => asked.min(limit),
        }
    }

    fn next_fault(&self, operation: &str) -> Option<ApiFault> {
        lock(&self.0.faults).get_mut(operation)?.pop_front()
    }
}

/// An error in the words of one of the services.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: String,
    pub(crate) message: String,
}

impl ApiError {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: code.to_owned(),
            message: message.into(),
        }
    }
}

/// What IAM says to `action` on the resource with this ARN. `switch` is the entry in the user's deny
/// list, which may also name one resource (see [`User::deny`]); `action` is what the message names.
fn allow(user: &User, switch: &str, action: &str, resource: &str) -> Result<(), ApiError> {
    let because = match user.refusal(switch, resource) {
        None => return Ok(()),
        Some(Refusal::Organization) => {
            "with an explicit deny in a service control policy".to_owned()
        }
        Some(Refusal::Explicit) => "with an explicit deny in an identity-based policy".to_owned(),
        Some(Refusal::Implicit) => {
            format!("because no identity-based policy allows the {action} action")
        }
    };
    let text = format!(
        "User: {} is not authorized to perform: {action} on resource: {resource} {because}",
        user.arn
    );
    Err(ApiError::new("AccessDeniedException", text))
}

/// Accepts connections until the listener's task is stopped.
pub(crate) async fn serve(cloud: Arc<Cloud>, listener: TcpListener, tls: TlsAcceptor) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                let work = connection(cloud.clone(), socket, tls.clone());
                cloud.tasks.spawn(work);
            }
            // Out of file descriptors, most likely: let others give some back.
            Err(error) => {
                tracing::warn!(%error, "sandbox cannot accept");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    }
}

async fn connection(cloud: Arc<Cloud>, socket: TcpStream, tls: TlsAcceptor) {
    let _ = socket.set_nodelay(true);
    let stream = match tls.accept(socket).await {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "sandbox: TLS handshake failed"),
    };
    let service = service_fn(|request| {
        let cloud = cloud.clone();
        async move {
            let reply = respond(&cloud, request).await;
            let endless = reply.extensions().get::<flood::Endless>().cloned();
            Ok::<_, Infallible>(match endless {
                Some(endless) => reply.map(|_| Either::Right(endless)),
                None => reply.map(Either::Left),
            })
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "sandbox: connection ended");
    }
}

async fn respond(cloud: &Arc<Cloud>, mut incoming: http::Request<Incoming>) -> Reply {
    let upgrade = hyper::upgrade::on(&mut incoming);
    let (parts, body) = incoming.into_parts();
    let body = match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::new(),
    };
    let request = Request {
        method: parts.method,
        uri: parts.uri,
        headers: parts.headers,
        body,
    };
    let mut reply = if gateway::owns(request.uri.path()) {
        gateway::answer(cloud, &request, upgrade)
    } else if let Some(reply) = answer_unsigned(cloud, &request).await {
        reply
    } else if let Some(target) = request.headers.get("x-amz-target") {
        if target.as_bytes().starts_with(kms::TARGET_PREFIX.as_bytes()) {
            kms::answer(cloud, &request).await
        } else {
            ssm::answer(cloud, &request).await
        }
    } else {
        answer_query(cloud, &request).await
    };
    let date = httpdate::fmt_http_date(cloud.iam.now());
    let headers = reply.headers_mut();
    if let Ok(date) = HeaderValue::from_str(&date) {
        headers.insert(header::DATE, date);
    }
    let id = uuid::Uuid::new_v4().to_string();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.entry("x-amzn-requestid").or_insert(id);
    }
    reply
}

/// Services and pages that no request is signed for; their paths tell them apart.
async fn answer_unsigned(cloud: &Cloud, request: &Request) -> Option<Reply> {
    let reply = match (request.method.as_str(), request.uri.path()) {
        ("POST", "/client/register") => oidc::answer(cloud, request, "RegisterClient").await,
        ("POST", "/device_authorization") => {
            oidc::answer(cloud, request, "StartDeviceAuthorization").await
        }
        ("POST", "/token") => oidc::answer(cloud, request, "CreateToken").await,
        ("GET", "/federation/credentials") => {
            portal::answer(cloud, request, "GetRoleCredentials").await
        }
        ("GET", "/assignment/accounts") => portal::answer(cloud, request, "ListAccounts").await,
        ("GET", "/assignment/roles") => portal::answer(cloud, request, "ListAccountRoles").await,
        ("POST", "/logout") => portal::answer(cloud, request, "Logout").await,
        ("POST", signin::PATH) => signin::answer(cloud, request).await,
        ("GET" | "POST", pages::AUTHORIZE) => pages::authorize(cloud, request),
        ("GET" | "POST", pages::DEVICE) => pages::device(cloud, request),
        _ => return None,
    };
    Some(reply)
}

/// Requests of the Query protocol name their service only where they are signed.
async fn answer_query(cloud: &Cloud, request: &Request) -> Reply {
    let service = query::Service::of(request);
    let form = query::Form::of(request);
    if form.get("Action") == Some(sts::UNSIGNED) {
        let act = || sts::answer_unsigned(cloud, &form);
        return query::serve_unsigned(cloud, &form, &query::STS, act).await;
    }
    query::serve(cloud, request, service, |call, action| match service.name {
        "rds" => rds::answer(call, action),
        "ec2" => ec2::answer(call, action),
        "iam" => iam::answer(call, action),
        _ => sts::answer(call, action),
    })
    .await
}

/// Plays the fault ordered for this operation, if any, in the error shape of `say`. `throttled` is
/// how the service says that there were too many calls.
async fn play_fault(
    cloud: &Cloud,
    operation: &str,
    throttled: ApiError,
    say: impl Fn(&ApiError) -> Reply,
) -> Option<Reply> {
    let fault = cloud.api.next_fault(operation)?;
    let error = match fault {
        ApiFault::Throttled => throttled,
        ApiFault::InternalError => ApiError {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code: "InternalServerError".to_owned(),
            message: "An error occurred on the server side.".to_owned(),
        },
        ApiFault::EmptyBadRequest => {
            let mut reply = Reply::new(Full::default());
            *reply.status_mut() = StatusCode::BAD_REQUEST;
            return Some(reply);
        }
        ApiFault::NoAnswer => std::future::pending().await,
        ApiFault::Nonsense => {
            let page = Bytes::from_static(b"<html><body>Welcome to the hotel's network");
            return Some(Reply::new(Full::new(page)));
        }
        ApiFault::Flood | ApiFault::Drip => {
            let mut reply = Reply::new(Full::default());
            let drips = fault == ApiFault::Drip;
            let endless = flood::Endless::new(Arc::clone(&cloud.api.0.flooded), drips);
            reply.extensions_mut().insert(endless);
            return Some(reply);
        }
        ApiFault::Refused {
            status,
            code,
            message,
        } => ApiError {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST),
            code: code.to_owned(),
            message: message.to_owned(),
        },
    };
    Some(say(&error))
}

fn typed_reply(status: StatusCode, content_type: &'static str, body: String) -> Reply {
    let mut reply = Reply::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = status;
    let value = HeaderValue::from_static(content_type);
    reply.headers_mut().insert(header::CONTENT_TYPE, value);
    reply
}
