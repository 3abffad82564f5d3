//! One attempt of a call: signs the request, sends it and reads the answer.

use std::convert::Infallible;
use std::time::SystemTime;

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::timeout::TimeoutConfig;
use roxmltree::{Document, Node};

use super::{Query, QueryEndpoint, QueryError, throttles};
use crate::aws::api_error::ApiAnswer;
use crate::aws::http::{TOO_MANY_REQUESTS, no_code};
use crate::aws::{ClockOffset, ClockWatch, bad_answer, in_words, signable};
use crate::base::error_text::chain;
use crate::base::foreign_text::ForeignText;

const CONTENT_TYPE: &str = "application/x-www-form-urlencoded; charset=utf-8";
/// User agent in AWS's logs, in place of the SDK's.
const USER_AGENT: &str = concat!("pgiam/", env!("CARGO_PKG_VERSION"));

/// A call to be sent.
pub(super) struct QueryRequest<'a> {
    pub(super) service: &'static str,
    pub(super) action: &'static str,
    pub(super) place: &'a QueryEndpoint,
    pub(super) form: String,
}

impl QueryRequest<'_> {
    /// Returns the headers of the request, including its signature.
    ///
    /// # Errors
    /// A signing failure, which is a bug in pgiam.
    pub(super) fn signed(
        &self,
        credentials: &Credentials,
        now: SystemTime,
    ) -> Result<Vec<(String, String)>, String> {
        let now = signable(now).map_err(|era| era.to_string())?;
        let identity = credentials.clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.place.region)
            .name(self.service)
            .time(now)
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| chain(&error).into_string())?
            .into();
        let mut headers = vec![("content-type".to_owned(), CONTENT_TYPE.to_owned())];
        let given = headers.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        let body = SignableBody::Bytes(self.form.as_bytes());
        // The signer adds the host of the URL.
        let signable = SignableRequest::new("POST", self.url(), given, body);
        let signable = signable.map_err(|error| chain(&error).into_string())?;
        // At trace level the signer logs its input, including the session token.
        let silent = tracing::Dispatch::none();
        let signed = tracing::dispatcher::with_default(&silent, || sign(signable, &params));
        let (instructions, _) = signed
            .map_err(|error| chain(&error).into_string())?
            .into_parts();
        let (signature, _) = instructions.into_parts();
        headers.extend(signature.iter().map(|header| {
            let (name, value) = (header.name(), header.value());
            (name.to_owned(), value.to_owned())
        }));
        headers.push(("user-agent".to_owned(), USER_AGENT.to_owned()));
        Ok(headers)
    }

    /// Returns the URL: the endpoint, and the only path of the service below it.
    fn url(&self) -> String {
        format!("{}/", self.base())
    }

    fn base(&self) -> String {
        let mut url = self.place.url.clone();
        url.set_query(None);
        url.set_fragment(None);
        url.as_str().trim_end_matches('/').to_owned()
    }
}

/// Returns the headers of a request without credentials.
pub(super) fn unsigned() -> Vec<(String, String)> {
    vec![
        ("content-type".to_owned(), CONTENT_TYPE.to_owned()),
        ("user-agent".to_owned(), USER_AGENT.to_owned()),
    ]
}

/// Reason why a request has no usable answer, with the causes.
#[derive(Debug)]
pub(super) enum RequestFailure {
    /// The answer is invalid.
    BadAnswer(ForeignText),
    Unreachable(ForeignText),
}

/// Sends it through the SDK's machinery, of which only the HTTP client and its timeouts are used.
///
/// # Errors
/// [`RequestFailure`].
pub(super) async fn send(
    config: &SdkConfig,
    request: &QueryRequest<'_>,
    headers: Vec<(String, String)>,
) -> Result<QueryAnswer, RequestFailure> {
    let no_client = || RequestFailure::Unreachable("no HTTP client is configured".into());
    let client = config.http_client().ok_or_else(no_client)?;
    let timeouts = config.timeout_config().cloned();
    let mut operation = Operation::builder()
        .service_name(request.service)
        .operation_name(request.action)
        .http_client(client)
        .endpoint_url(&request.base())
        .no_auth()
        .no_retry()
        .timeout_config(timeouts.unwrap_or_else(TimeoutConfig::disabled));
    if let Some(sleep) = config.sleep_impl() {
        operation = operation.sleep_impl(sleep);
    }
    let form = request.form.clone();
    let operation = operation
        .serializer(move |()| {
            let mut request = HttpRequest::new(SdkBody::from(form.as_str()));
            request.set_method("POST")?;
            request.set_uri("/")?;
            for (name, value) in headers.clone() {
                request.headers_mut().insert(name, value);
            }
            Ok(request)
        })
        .deserializer::<_, Infallible>(|response| Ok(QueryAnswer::of(response)))
        .build();
    operation
        .invoke(())
        .await
        .map_err(|error| match bad_answer(&error) {
            Some(reason) => RequestFailure::BadAnswer(reason),
            None => RequestFailure::Unreachable(in_words(&error)),
        })
}

/// Answer of the service.
#[derive(Debug, Default)]
pub(super) struct QueryAnswer {
    pub(super) status: u16,
    pub(super) date: Option<String>,
    pub(super) request_id: Option<String>,
    pub(super) body: String,
    pub(super) clock: Option<ClockOffset>,
}

impl QueryAnswer {
    fn of(response: &HttpResponse) -> Self {
        let header = |name: &str| response.headers().get(name).map(str::to_owned);
        let body = response.body().bytes().unwrap_or_default();
        Self {
            status: response.status().as_u16(),
            date: header("date"),
            request_id: header("x-amzn-requestid").or_else(|| header("x-amz-request-id")),
            body: String::from_utf8_lossy(body).into_owned(),
            clock: None,
        }
    }

    /// Compares the answer's time with the clock of `watch`.
    pub(super) fn asked_of(&mut self, watch: &ClockWatch) {
        let date = self.date.as_deref();
        self.clock = date.and_then(|date| ClockOffset::from_date_header(date, watch.now()));
    }

    fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns `true` if a retry may succeed.
    pub(super) fn deserves_another(&self) -> bool {
        let throttled =
            || ErrorAnswer::read(&self.body).is_some_and(|fault| throttles(&fault.code));
        self.status >= 500 || self.status == TOO_MANY_REQUESTS || (!self.is_good() && throttled())
    }

    /// Returns the document, or AWS's refusal.
    pub(super) fn read(self, query: &Query<'_>) -> Result<String, QueryError> {
        if self.is_good() {
            return Ok(self.body);
        }
        let fault = ErrorAnswer::read(&self.body).unwrap_or_else(|| ErrorAnswer {
            // An overloaded service, or a proxy on the path, answers with a status only.
            code: no_code(self.status),
            message: String::new(),
            request_id: None,
        });
        Err(QueryError::Refused {
            service: query.service,
            action: query.action,
            answer: ApiAnswer {
                code: fault.code.into(),
                message: fault.message.into(),
                request_id: fault.request_id.or(self.request_id).map(Into::into),
                clock: self.clock,
            },
        })
    }
}

/// The error in an answer: `<ErrorResponse><Error>` of most services, `<Response><Errors><Error>`
/// of EC2.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ErrorAnswer {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) request_id: Option<String>,
}

impl ErrorAnswer {
    /// Parses the error; `None` for any other document.
    pub(super) fn read(body: &str) -> Option<Self> {
        let document = Document::parse(body).ok()?;
        let find = |names: &[&str]| {
            let mut nodes = document.descendants();
            nodes.find(|node| names.contains(&node.tag_name().name()))
        };
        let error = find(&["Error"])?;
        let text = |name: &str| {
            let node = error.children().find(|n| n.tag_name().name() == name)?;
            Some(trimmed(node))
        };
        Some(Self {
            code: text("Code")?,
            message: text("Message").unwrap_or_default(),
            request_id: find(&["RequestId", "RequestID"]).map(trimmed),
        })
    }
}

fn trimmed(node: Node<'_, '_>) -> String {
    node.text().unwrap_or_default().trim().to_owned()
}
