//! Calls against a service on loopback, and their documents.

use std::sync::{Arc, LazyLock};

use aws_config::BehaviorVersion;
use aws_credential_types::Credentials;
use aws_types::region::Region as SdkRegion;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use super::send::ErrorAnswer;
use super::*;
use crate::aws::AwsOptions;
use crate::base::names::Region;

static REGION: LazyLock<Region> = LazyLock::new(|| "eu-central-1".into());

const FOUND: &str = "<DescribeInstancesResponse><reservationSet/></DescribeInstancesResponse>";
const OF_RDS: &str = "<ErrorResponse xmlns=\"http://rds.amazonaws.com/doc/2014-10-31/\"><Error>\
    <Type>Sender</Type><Code>AccessDenied</Code><Message>User: x is not authorized</Message></Error>\
    <RequestId>11-22</RequestId></ErrorResponse>";
const OF_EC2: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error>\
    <Code>UnauthorizedOperation</Code><Message>You are not &lt;you&gt;.</Message></Error></Errors>\
    <RequestID>33-44</RequestID></Response>";
const THROTTLED: &str = "<Response><Errors><Error><Code>RequestLimitExceeded</Code>\
    <Message>Request limit exceeded.</Message></Error></Errors><RequestID>5</RequestID></Response>";

/// Starts a service that gives these answers, one to each request, and records the requests.
async fn service(
    answers: &[(u16, &'static str)],
) -> (AwsContext, TempDir, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (log, answers) = (asked.clone(), answers.to_vec());
    tokio::spawn(async move {
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"Version=2016-11-15&Filter.1.Name=a%26b") {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
            }
            log.lock().await.push(String::from_utf8(request).unwrap());
            let answer = format!(
                "HTTP/1.1 {status} X\r\nconnection: close\r\ndate: Mon, 21 Sep 2026 14:13:20 GMT\r\n\
                 x-amzn-requestid: of-header\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        "[profile dev]\nservices = here\naws_access_key_id = AKID\naws_secret_access_key = sk\n\
         aws_session_token = session\n[services here]\nec2 =\n  endpoint_url = http://{at}/below\n"
    );
    std::fs::write(dir.path().join("config"), config).unwrap();
    std::fs::write(dir.path().join("none"), "").unwrap();
    let aws = AwsContext::new(AwsOptions {
        profile: Some("dev".to_owned()),
        config_file: Some(dir.path().join("config")),
        credentials_file: Some(dir.path().join("none")),
        ..AwsOptions::default()
    });
    (aws, dir, asked)
}

fn instances() -> Query<'static> {
    Query {
        service: "ec2",
        name: "ec2:DescribeInstances",
        version: "2016-11-15",
        action: "DescribeInstances",
        params: vec![("Filter.1.Name".to_owned(), "a&b".to_owned())],
        region: &REGION,
    }
}

#[tokio::test]
async fn a_call_is_a_signed_form_at_the_endpoint_of_the_profile() {
    let (aws, _dir, asked) = service(&[(200, FOUND)]).await;
    assert_eq!(aws.query(instances()).await.unwrap(), FOUND);
    assert!(aws.clock_offset().is_some(), "the answer's time is noted");
    let request = asked.lock().await.remove(0).to_ascii_lowercase();
    assert!(
        request.starts_with("post /below/ http/1.1\r\n"),
        "{request}"
    );
    for part in [
        "content-type: application/x-www-form-urlencoded; charset=utf-8\r\n",
        "x-amz-security-token: session\r\n",
        "/eu-central-1/ec2/aws4_request, signedheaders=content-type;host;x-amz-date;x-amz-security-token, ",
        "\r\n\r\naction=describeinstances&version=2016-11-15&",
    ] {
        assert!(request.contains(part), "{part}: {request}");
    }
}

#[tokio::test]
async fn what_a_moment_may_mend_is_asked_once_more() {
    for first in [
        (503, ""),
        (500, OF_RDS),
        (400, THROTTLED),
        (429, "slow down"),
    ] {
        let (aws, _dir, asked) = service(&[first, (200, FOUND)]).await;
        assert_eq!(aws.query(instances()).await.unwrap(), FOUND, "{first:?}");
        assert_eq!(asked.lock().await.len(), 2);
    }
    let (aws, _dir, asked) = service(&[(503, ""), (503, THROTTLED), (200, FOUND)]).await;
    let QueryError::Refused { answer, .. } = aws.query(instances()).await.unwrap_err() else {
        panic!("a refusal");
    };
    assert_eq!(answer.code, "RequestLimitExceeded");
    assert_eq!(asked.lock().await.len(), 2);
}

#[tokio::test]
async fn refusals_are_told_in_the_services_words() {
    for (status, body, denied, code, id) in [
        (403, OF_RDS, true, "AccessDenied", "11-22"),
        (403, OF_EC2, true, "UnauthorizedOperation", "33-44"),
        (
            404,
            "<html><br></html>",
            false,
            "HTTP status 404, no reason given",
            "of-header",
        ),
    ] {
        let (aws, _dir, _) = service(&[(status, body)]).await;
        let error = aws.query(instances()).await.unwrap_err();
        assert_eq!(error.is_denied(), denied, "{error}");
        assert_eq!(error.rejects_keys(), None);
        let QueryError::Refused { answer, action, .. } = error else {
            panic!("a refusal");
        };
        assert_eq!(action, "DescribeInstances");
        assert_eq!(
            (answer.code.as_str(), answer.request_id.as_deref()),
            (code, Some(id))
        );
        assert!(answer.clock.is_some());
    }
}

#[tokio::test]
async fn answers_of_proxies_are_no_refusals_and_a_bare_429_is_throttling() {
    for status in [302, 407, 511] {
        let (aws, _dir, _) = service(&[(status, "<html>"), (status, "<html>")]).await;
        match aws.query(instances()).await.unwrap_err() {
            QueryError::BadAnswer { reason, .. } => {
                assert!(
                    reason.starts_with(&format!("HTTP status {status}: ")),
                    "{reason}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    let (aws, _dir, _) = service(&[(429, ""), (429, "")]).await;
    let QueryError::Refused { answer, .. } = aws.query(instances()).await.unwrap_err() else {
        panic!("a refusal");
    };
    assert!(throttles(&answer.code), "{}", answer.code);
    assert!(!throttles("HTTP status 503, no reason given"));
}

#[test]
fn faults_are_found_in_both_shapes_and_nowhere_else() {
    let of_ec2 = ErrorAnswer::read(OF_EC2).unwrap();
    assert_eq!(of_ec2.message, "You are not <you>.");
    let of_rds = ErrorAnswer::read(OF_RDS).unwrap();
    assert_eq!(of_rds.message, "User: x is not authorized");
    for no_fault in ["", "Bad gateway", FOUND, "<Error/>", "<Response><Errors>"] {
        assert_eq!(ErrorAnswer::read(no_fault), None, "{no_fault}");
    }
    for end in 0..OF_EC2.len() {
        assert_eq!(ErrorAnswer::read(&OF_EC2[..end]), None, "{end}");
    }
}

#[tokio::test]
async fn where_nothing_listens_the_host_is_named() {
    let (aws, dir, _) = service(&[]).await;
    let config = dir.path().join("config");
    let text = std::fs::read_to_string(&config).unwrap();
    let (before, rest) = text.split_once("http://").unwrap();
    let (_, after) = rest.split_once("/below").unwrap();
    let refused = async |url: &str| {
        let text = format!("{before}{url}{after}");
        std::fs::write(&config, text).unwrap();
        aws.invalidate();
        aws.query(instances()).await.unwrap_err()
    };
    let error = refused("http://127.0.0.1:1").await;
    let QueryError::Unreachable { host, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(host, "127.0.0.1");
    let error = refused("nonsense").await.to_string();
    assert!(
        error.starts_with("endpoint_url of ec2 from profile dev is not a URL"),
        "{error}"
    );
}

async fn place(service: &'static str, region: &Region, fips: bool, dual_stack: bool) -> String {
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(SdkRegion::new(String::from(region)))
        .use_fips(fips)
        .use_dual_stack(dual_stack)
        .build();
    let query = Query {
        service,
        region,
        ..instances()
    };
    let place = QueryEndpoint::of(&config, &query).unwrap();
    format!("{} {}", place.url, place.region)
}

#[tokio::test]
async fn services_are_where_aws_says() {
    for (service, region, fips, dual_stack, expected) in [
        (
            "ec2",
            "eu-central-1",
            false,
            false,
            "https://ec2.eu-central-1.amazonaws.com/ eu-central-1",
        ),
        (
            "ec2",
            "us-east-1",
            true,
            false,
            "https://ec2-fips.us-east-1.amazonaws.com/ us-east-1",
        ),
        (
            "ec2",
            "us-east-1",
            false,
            true,
            "https://ec2.us-east-1.api.aws/ us-east-1",
        ),
        (
            "ec2",
            "us-gov-west-1",
            true,
            false,
            "https://ec2.us-gov-west-1.amazonaws.com/ us-gov-west-1",
        ),
        (
            "ec2",
            "cn-north-1",
            false,
            false,
            "https://ec2.cn-north-1.amazonaws.com.cn/ cn-north-1",
        ),
        (
            "iam",
            "eu-central-1",
            false,
            false,
            "https://iam.amazonaws.com/ us-east-1",
        ),
        (
            "iam",
            "us-gov-east-1",
            false,
            false,
            "https://iam.us-gov.amazonaws.com/ us-gov-west-1",
        ),
        (
            "iam",
            "cn-northwest-1",
            false,
            false,
            "https://iam.cn-north-1.amazonaws.com.cn/ cn-north-1",
        ),
    ] {
        assert_eq!(
            place(service, &region.into(), fips, dual_stack).await,
            expected
        );
    }
}

#[test]
fn signatures_are_the_reference_implementations() {
    // botocore 1.44.8: SigV4Auth(Credentials("AKID", "sk", "session"), "iam", "us-east-1") over the same
    // request at the same time.
    let place = QueryEndpoint {
        url: Url::parse("https://iam.amazonaws.com/").unwrap(),
        region: "us-east-1".into(),
    };
    let request = QueryRequest {
        service: "iam",
        action: "SimulatePrincipalPolicy",
        place: &place,
        form: "Action=SimulatePrincipalPolicy&Version=2010-05-08".to_owned(),
    };
    let credentials = Credentials::new("AKID", "sk", Some("session".to_owned()), None, "test");
    let now = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    let headers = request.signed(&credentials, now).unwrap();
    let authorization = headers.iter().find(|(name, _)| name == "authorization");
    let (_, authorization) = authorization.unwrap();
    assert!(
        authorization.ends_with(
            "Signature=340416a7d1d6abd887f6bd7737bf8de364f4954a6bdeba0000682fcb9cbe7770"
        ),
        "{authorization}"
    );
}
