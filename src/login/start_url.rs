//! Start URLs: those of AWS are used as they are, a company's own one is followed to AWS's.

use std::convert::Infallible;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use tokio::time::timeout;
use url::Url;

use super::{LoginError, SsoLogin};
use crate::aws::in_words;
use crate::base::foreign_text::ForeignText;

/// Domains of AWS access portals, as in the AWS CLI.
const DOMAINS: [&str; 8] = [
    ".awsapps.com",
    ".awsapps.cn",
    ".app.aws",
    ".portal.amazonaws.com",
    ".portal.amazonaws.com.cn",
    ".portal.amazonaws.eu",
    ".app.amazonwebservices.com.cn",
    ".api.amazonwebservices.eu",
];
/// Hosts of issuer URLs.
const ISSUERS: [&str; 3] = [
    "identitycenter.amazonaws.com",
    "identitycenter.amazonaws.com.cn",
    "identitycenter.amazonaws.eu",
];
/// Timeout of a request to a company's own host, as in the AWS CLI.
const DEADLINE: Duration = Duration::from_secs(10);

/// A start URL at AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StartUrl {
    pub(super) url: String,
    /// Region that the host names; `None` if it names none.
    pub(super) region: Option<String>,
}

impl StartUrl {
    /// Checks that a company's own host leads to the configured region. The token file has that
    /// region, and other programs use it.
    ///
    /// # Errors
    /// [`LoginError::Region`].
    pub(super) fn check_region(&self, login: &SsoLogin) -> Result<(), LoginError> {
        match &self.region {
            Some(region) if *region != login.region => Err(LoginError::Region {
                url: login.start_url.as_str().into(),
                region: region.as_str().into(),
                configured: login.region.as_str().into(),
                section: match &login.session {
                    Some(session) => format!("[sso-session {session}]").into(),
                    None => "the profile".into(),
                },
            }),
            _ => Ok(()),
        }
    }
}

/// Returns the start URL at AWS. For a company's own host it is the target of its redirect.
///
/// # Errors
/// [`LoginError::StartUrl`].
pub(super) async fn resolve(config: &SdkConfig, given: &str) -> Result<StartUrl, LoginError> {
    let unusable = |reason: ForeignText| LoginError::StartUrl {
        url: given.into(),
        reason,
    };
    let url = parse(given).map_err(|reason| unusable(reason.into()))?;
    if is_of_aws(&url) {
        return Ok(StartUrl {
            url: given.to_owned(),
            region: None,
        });
    }
    let target = follow(config, &url).await.map_err(unusable)?;
    Ok(StartUrl {
        region: region(&target),
        url: target.into(),
    })
}

/// Returns the target of the redirect of a company's own host.
async fn follow(config: &SdkConfig, url: &Url) -> Result<Url, ForeignText> {
    let mut answer = fetch(config, "HEAD", url).await?;
    // Some servers do not know HEAD.
    if matches!(answer.status, 405 | 501) {
        answer = fetch(config, "GET", url).await?;
    }
    answer.target(url)
}

fn parse(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "it is not a URL; correct sso_start_url")?;
    match (url.scheme(), url.host_str()) {
        ("https", Some(_)) => Ok(url),
        _ => Err("it must begin with https://; correct sso_start_url"),
    }
}

fn is_of_aws(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let is_below = |domain: &str| host.len() > domain.len() && host.ends_with(domain);
    ISSUERS.contains(&host) || DOMAINS.into_iter().any(is_below)
}

/// Returns the region in the host of a portal: `ID.portal.REGION.app.aws`,
/// `ID.REGION.portal.amazonaws.com`.
fn region(url: &Url) -> Option<String> {
    let labels: Vec<&str> = url.host_str()?.split('.').collect();
    let region = match labels.as_slice() {
        [_, "portal", region, "app", "aws"] => region,
        [_, region, "portal", "amazonaws", ..] => region,
        _ => return None,
    };
    Some((*region).to_owned())
}

/// Status and target of an answer.
#[derive(Debug)]
struct RedirectAnswer {
    status: u16,
    location: Option<String>,
}

impl RedirectAnswer {
    /// Returns the target, which must be AWS's. Only one redirect is followed.
    fn target(&self, from: &Url) -> Result<Url, ForeignText> {
        let location = match (self.status, &self.location) {
            (301 | 302 | 303 | 307 | 308, Some(location)) => location,
            (status, _) => {
                return Err(format!(
                    "expected a redirect to the AWS access portal, got HTTP status {status}"
                )
                .into());
            }
        };
        let target = from.join(location);
        match target.map(|target| (is_of_aws(&target) && target.scheme() == "https", target)) {
            Ok((true, target)) => Ok(target),
            _ => {
                Err(format!("it redirects to {location}, which is not an AWS access portal").into())
            }
        }
    }
}

/// Sends a request without credentials through the SDK's HTTP client, which has the trust roots and
/// the proxy.
async fn fetch(
    config: &SdkConfig,
    method: &'static str,
    url: &Url,
) -> Result<RedirectAnswer, ForeignText> {
    let no_client = || ForeignText::from("no HTTP client is configured");
    let (address, path) = (url.origin().ascii_serialization(), path(url));
    let mut operation = Operation::builder()
        .service_name("start URL")
        .operation_name(method)
        .http_client(config.http_client().ok_or_else(no_client)?)
        .endpoint_url(&address)
        .no_auth()
        .no_retry();
    if let Some(sleep) = config.sleep_impl() {
        operation = operation.sleep_impl(sleep);
    }
    let operation = operation
        .serializer(move |()| {
            let mut request = HttpRequest::new(SdkBody::empty());
            request.set_method(method)?;
            request.set_uri(path.as_str())?;
            Ok(request)
        })
        .deserializer::<_, Infallible>(|response: &HttpResponse| {
            Ok(RedirectAnswer {
                status: response.status().as_u16(),
                location: response.headers().get("location").map(str::to_owned),
            })
        })
        .build();
    match timeout(DEADLINE, operation.invoke(())).await {
        Ok(answer) => answer.map_err(|error| in_words(&error)),
        Err(_) => Err(format!("no answer within {} s", DEADLINE.as_secs()).into()),
    }
}

fn path(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;

    use super::*;

    #[test]
    fn hosts_of_aws_are_told_from_others() {
        for (url, expected) in [
            ("https://d-1.awsapps.com/start", true),
            ("https://d-1.awsapps.com/start/#/", true),
            ("https://ssoins-1.portal.eu-west-1.app.aws", true),
            ("https://identitycenter.amazonaws.com/ssoins-1", true),
            ("https://d-1.eu-west-1.portal.amazonaws.com/", true),
            ("https://awsapps.com/start", false),
            ("https://.awsapps.com/start", false),
            ("https://d-1.awsapps.com.example.org/start", false),
            ("https://d-1.awsapps.com@example.org/start", false),
            ("https://xawsapps.com/", false),
            ("https://sso.example.org/", false),
        ] {
            let is_aws = Url::parse(url).is_ok_and(|url| is_of_aws(&url));
            assert_eq!(is_aws, expected, "{url}");
        }
        assert!(parse("http://d-1.awsapps.com/start").is_err());
        assert!(parse("d-1.awsapps.com/start").is_err());
    }

    /// Answers one request after the other, and returns their first lines.
    async fn answering(answers: &'static [&'static str]) -> (Url, JoinHandle<Vec<String>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/x?y=1", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                asked.push(request.lines().next().unwrap_or_default().to_owned());
                let answer =
                    format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        (Url::parse(&url).unwrap(), served)
    }

    #[tokio::test]
    async fn a_host_of_a_company_is_followed_once() {
        let config = aws_config::defaults(aws_config::BehaviorVersion::latest())
            .no_credentials()
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .region("eu-west-1")
            .load()
            .await;
        let (url, served) = answering(&[
            "405 Method Not Allowed",
            "302 Found\r\nLocation: https://ssoins-1.portal.eu-west-1.app.aws/",
        ])
        .await;
        let target = follow(&config, &url).await.unwrap();
        assert_eq!(
            target.as_str(),
            "https://ssoins-1.portal.eu-west-1.app.aws/"
        );
        assert_eq!(
            served.await.unwrap(),
            ["HEAD /x?y=1 HTTP/1.1", "GET /x?y=1 HTTP/1.1"]
        );
        let (url, _served) = answering(&["302 Found\r\nLocation: /elsewhere"]).await;
        let refused = follow(&config, &url).await.unwrap_err();
        assert_eq!(
            refused.as_str(),
            "it redirects to /elsewhere, which is not an AWS access portal"
        );
        let (url, _served) = answering(&["200 OK"]).await;
        let refused = follow(&config, &url).await.unwrap_err();
        assert_eq!(
            refused.as_str(),
            "expected a redirect to the AWS access portal, got HTTP status 200"
        );
    }

    #[test]
    fn another_region_is_refused() {
        let target = |region: Option<&str>| StartUrl {
            url: "https://ssoins-1.portal.eu-west-1.app.aws/".to_owned(),
            region: region.map(str::to_owned),
        };
        let login = SsoLogin {
            session: Some("corp".to_owned()),
            start_url: "https://sso.example.org/".to_owned(),
            region: "us-east-1".to_owned(),
            scopes: None,
        };
        assert_eq!(target(None).check_region(&login), Ok(()));
        assert_eq!(target(Some("us-east-1")).check_region(&login), Ok(()));
        let error = target(Some("eu-west-1")).check_region(&login).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the start URL https://sso.example.org/ leads to region eu-west-1, but sso_region is \
             us-east-1; set sso_region = eu-west-1 in [sso-session corp]"
        );
    }

    #[test]
    fn a_redirect_leads_to_aws_or_nowhere() {
        let from = Url::parse("https://sso.example.org/x").unwrap();
        let target = |status, location: Option<&str>| {
            let location = location.map(str::to_owned);
            RedirectAnswer { status, location }.target(&from)
        };
        let portal = "https://ssoins-1.portal.eu-west-1.app.aws/";
        let url = target(302, Some(portal)).unwrap();
        assert_eq!(url.as_str(), portal);
        assert_eq!(region(&url).as_deref(), Some("eu-west-1"));
        for (status, location) in [
            (200, Some(portal)),
            (302, None),
            (302, Some("https://evil.example.org/")),
            (302, Some("http://d-1.awsapps.com/start")),
            (302, Some("/start")),
        ] {
            assert!(target(status, location).is_err(), "{status} {location:?}");
        }
        let regional = Url::parse("https://d-1.eu-west-1.portal.amazonaws.com/").unwrap();
        assert_eq!(region(&regional).as_deref(), Some("eu-west-1"));
        let plain = Url::parse("https://d-1.awsapps.com/start").unwrap();
        assert_eq!(region(&plain), None);
    }
}
