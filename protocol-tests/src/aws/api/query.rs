//! The Query protocol (form in, XML out), which `sts`, `rds`, `iam` and, with answers of its own
//! shape, `ec2` speak.

use http::{HeaderValue, StatusCode};
use uuid::Uuid;

use super::xml::Xml;
use super::{ApiError, Reply, Request, allow, play_fault, typed_reply};
use crate::aws::cloud::Cloud;
use crate::aws::events::Event;
use crate::aws::iam;
use crate::aws::iam::{AuthError, User};

/// How answers and errors are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// `ActionResult` and `ResponseMetadata`; errors in `ErrorResponse`.
    Plain,
    /// Neither; errors in `Response` and `Errors`, with other codes for refusals.
    Ec2,
}

/// One service of the protocol.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Service {
    /// In the credential scope and before the colon in policies.
    pub(super) name: &'static str,
    /// `Version` of every request.
    version: &'static str,
    /// Namespace of answers and errors, without the version.
    namespace: &'static str,
    dialect: Dialect,
}

pub(super) const STS: Service = Service {
    name: "sts",
    version: "2011-06-15",
    namespace: "https://sts.amazonaws.com/doc/",
    dialect: Dialect::Plain,
};

pub(super) const IAM: Service = Service {
    name: "iam",
    version: "2010-05-08",
    namespace: "https://iam.amazonaws.com/doc/",
    dialect: Dialect::Plain,
};

pub(super) const RDS: Service = Service {
    name: "rds",
    version: "2014-10-31",
    namespace: "http://rds.amazonaws.com/doc/",
    dialect: Dialect::Plain,
};

pub(super) const EC2: Service = Service {
    name: "ec2",
    version: "2016-11-15",
    namespace: "http://ec2.amazonaws.com/doc/",
    dialect: Dialect::Ec2,
};

impl Service {
    /// The service a request is meant for. At AWS its host name says so; here all share one, so the
    /// service it is signed for counts, and the version asked for when that is none of these.
    pub(super) fn of(request: &Request) -> &'static Self {
        const ALL: [&Service; 4] = [&STS, &IAM, &RDS, &EC2];
        let form = Form::of(request);
        let signed_for = iam::signed_service(&request.uri, &request.headers);
        let version = form.get("Version");
        let by_name = |service: &&Self| signed_for.as_deref() == Some(service.name);
        let by_version = |service: &&Self| version == Some(service.version);
        let found = ALL.into_iter().find(by_name);
        let found = found.or_else(|| ALL.into_iter().find(by_version));
        found.unwrap_or(&STS)
    }

    fn xmlns(&self) -> String {
        format!("xmlns=\"{}{}/\"", self.namespace, self.version)
    }

    fn throttled(&self) -> ApiError {
        match self.dialect {
            Dialect::Plain => ApiError::new("Throttling", "Rate exceeded"),
            Dialect::Ec2 => ApiError {
                status: StatusCode::SERVICE_UNAVAILABLE,
                ..ApiError::new("RequestLimitExceeded", "Request limit exceeded.")
            },
        }
    }

    fn unauthenticated(&self, error: &AuthError) -> ApiError {
        let (code, status, message) = match self.dialect {
            Dialect::Plain => (error.query_code(), error.query_status(), error.to_string()),
            Dialect::Ec2 => (error.ec2_code(), error.ec2_status(), error.ec2_message()),
        };
        ApiError {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN),
            code: code.to_owned(),
            message,
        }
    }

    fn success(&self, action: &str, content: Xml) -> Reply {
        let id = Uuid::new_v4().to_string();
        let mut xml = Xml::default();
        match self.dialect {
            Dialect::Plain => {
                xml.nest(&format!("{action}Result"), |xml| xml.extend(content))
                    .nest("ResponseMetadata", |xml| {
                        xml.text("RequestId", &id);
                    });
            }
            Dialect::Ec2 => {
                xml.text("requestId", &id).extend(content);
            }
        }
        let body = xml.document(&format!("{action}Response {}", self.xmlns()));
        with_id(typed_reply(StatusCode::OK, self.content_type(), body), &id)
    }

    fn failure(&self, error: &ApiError) -> Reply {
        let id = Uuid::new_v4().to_string();
        let mut xml = Xml::default();
        let root = match self.dialect {
            Dialect::Plain => {
                let fault = match error.status.is_server_error() {
                    true => "Receiver",
                    false => "Sender",
                };
                xml.nest("Error", |xml| {
                    xml.text("Type", fault)
                        .text("Code", &error.code)
                        .text("Message", &error.message);
                })
                .text("RequestId", &id);
                format!("ErrorResponse {}", self.xmlns())
            }
            Dialect::Ec2 => {
                xml.list("Errors", "Error", [error], |xml, error| {
                    xml.text("Code", &error.code)
                        .text("Message", &error.message);
                })
                .text("RequestID", &id);
                "Response".to_owned()
            }
        };
        let reply = typed_reply(error.status, self.content_type(), xml.document(&root));
        with_id(reply, &id)
    }

    fn content_type(&self) -> &'static str {
        match self.dialect {
            Dialect::Plain => "text/xml",
            Dialect::Ec2 => "text/xml;charset=UTF-8",
        }
    }
}

/// The request id stands in the header as well as in the body.
fn with_id(mut reply: Reply, id: &str) -> Reply {
    if let Ok(value) = HeaderValue::from_str(id) {
        reply.headers_mut().insert("x-amzn-requestid", value);
    }
    reply
}

/// Names and values of a request, from its query string and its body.
#[derive(Debug)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    pub(super) fn of(request: &Request) -> Self {
        let query = request.uri.query().unwrap_or_default().as_bytes();
        let parts = [query, &request.body].into_iter();
        let pairs = parts.flat_map(url::form_urlencoded::parse);
        Self(
            pairs
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    /// One value; an empty one counts as none.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(n, _)| n == name);
        found.map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// A number, or what the service says when it is none.
    pub(super) fn number(&self, name: &str) -> Result<Option<usize>, ApiError> {
        let parsed = self.get(name).map(str::parse).transpose();
        parsed.map_err(|_| {
            let text = format!("The value for {name} is not a number");
            ApiError::new("MalformedInput", text)
        })
    }

    /// `prefix.1`, `prefix.2` and so on, up to the first gap.
    pub(super) fn values(&self, prefix: &str) -> Vec<&str> {
        let numbers = 1..;
        let found = numbers.map_while(|n| {
            let name = format!("{prefix}.{n}");
            let pair = self.0.iter().find(|(known, _)| *known == name);
            pair.map(|(_, value)| value.as_str())
        });
        found.collect()
    }

    /// Filters: `prefix.N.Name` with the values at `prefix.N.VALUES.M`.
    pub(super) fn filters(&self, prefix: &str, values: &str) -> Vec<Filter<'_>> {
        let numbers = 1..;
        let found = numbers.map_while(|n| {
            let name = self.get(&format!("{prefix}.{n}.Name"))?;
            let values = self.values(&format!("{prefix}.{n}.{values}"));
            Some(Filter { name, values })
        });
        found.collect()
    }
}

/// What a list is to be narrowed to.
#[derive(Debug)]
pub(super) struct Filter<'a> {
    pub(super) name: &'a str,
    pub(super) values: Vec<&'a str>,
}

/// One authenticated request.
pub(super) struct Call<'a> {
    pub(super) cloud: &'a Cloud,
    pub(super) user: &'a User,
    pub(super) form: Form,
}

impl Call<'_> {
    /// What IAM says to the action on this resource.
    pub(super) fn allow(&self, action: &str, resource: &str) -> Result<(), ApiError> {
        allow(self.user, action, action, resource).map_err(|error| ApiError {
            status: StatusCode::FORBIDDEN,
            code: "AccessDenied".to_owned(),
            ..error
        })
    }
}

/// Finds out who asks, plays an ordered fault, and lets `act` answer the action.
pub(super) async fn serve(
    cloud: &Cloud,
    request: &Request,
    service: &Service,
    act: impl FnOnce(&Call<'_>, &str) -> Result<Xml, ApiError>,
) -> Reply {
    let form = Form::of(request);
    let action = form.get("Action").unwrap_or_default().to_owned();
    let name = format!("{}:{action}", service.name);
    let refuse = |error: &ApiError| {
        cloud.note_denied(&name, &error.code);
        service.failure(error)
    };
    let user = match cloud.authenticate(request, service.name) {
        Ok(user) => user,
        Err(error) => return refuse(&service.unauthenticated(&error)),
    };
    let say = |error: &ApiError| service.failure(error);
    if let Some(reply) = play_fault(cloud, &action, service.throttled(), say).await {
        return reply;
    }
    if form.get("Version") != Some(service.version) {
        return refuse(&unknown(service, &action));
    }
    let call = Call {
        cloud,
        user: &user,
        form,
    };
    match act(&call, &action) {
        Ok(content) => {
            cloud.events.push(Event::Asked {
                action: name,
                user_arn: user.arn.clone(),
            });
            service.success(&action, content)
        }
        Err(error) => refuse(&error),
    }
}

/// Plays an ordered fault and lets `act` answer an action that is not signed.
pub(super) async fn serve_unsigned(
    cloud: &Cloud,
    form: &Form,
    service: &Service,
    act: impl FnOnce() -> Result<Xml, ApiError>,
) -> Reply {
    let action = form.get("Action").unwrap_or_default();
    let say = |error: &ApiError| service.failure(error);
    if let Some(reply) = play_fault(cloud, action, service.throttled(), say).await {
        return reply;
    }
    match act() {
        Ok(content) => service.success(action, content),
        Err(error) => {
            cloud.note_denied(&format!("{}:{action}", service.name), &error.code);
            service.failure(&error)
        }
    }
}

/// There is no such action, or not in the version asked for.
pub(super) fn unknown(service: &Service, action: &str) -> ApiError {
    let text = match service.dialect {
        Dialect::Ec2 => format!("The action {action} is not valid for this web service."),
        Dialect::Plain => {
            let version = service.version;
            format!("Could not find operation {action} for version {version}")
        }
    };
    ApiError::new("InvalidAction", text)
}
