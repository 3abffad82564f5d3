//! Requests signed by the `aws-sigv4` crate, whole and damaged.

use std::time::{Duration, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use http::Request;

use super::*;

const REGION: &str = "eu-central-1";

fn signed_at() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_772_366_400)
}

fn iam(session_token: Option<&str>) -> Iam {
    let iam = Iam::new(REGION, "123456789012");
    let mut user = User::example("dev", iam.account());
    user.session_token = session_token.map(str::to_owned);
    iam.add(user);
    iam
}

struct Signer {
    secret: &'static str,
    session_token: Option<&'static str>,
    region: &'static str,
    service: &'static str,
    presign: Option<u64>,
}

impl Default for Signer {
    fn default() -> Self {
        Self {
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            session_token: None,
            region: REGION,
            service: "ssm",
            presign: None,
        }
    }
}

impl Signer {
    fn sign(&self, mut request: Request<Vec<u8>>) -> Request<Vec<u8>> {
        let identity = Credentials::new(
            "AKIAIOSFODNN7EXAMPLE",
            self.secret,
            self.session_token.map(str::to_owned),
            None,
            "test",
        )
        .into();
        let mut settings = SigningSettings::default();
        if let Some(seconds) = self.presign {
            settings.signature_location = SignatureLocation::QueryParams;
            settings.expires_in = Some(Duration::from_secs(seconds));
        }
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(signed_at())
            .settings(settings)
            .build()
            .unwrap()
            .into();
        let headers: Vec<(&str, &str)> = request
            .headers()
            .iter()
            .map(|(n, v)| (n.as_str(), v.to_str().unwrap()))
            .collect();
        let uri = request.uri().to_string();
        let signable = SignableRequest::new(
            request.method().as_str(),
            &uri,
            headers.into_iter(),
            SignableBody::Bytes(request.body()),
        )
        .unwrap();
        let (instructions, _) = sign(signable, &params).unwrap().into_parts();
        instructions.apply_to_request_http1x(&mut request);
        request
    }
}

fn call() -> Request<Vec<u8>> {
    Request::post("https://localhost:4566/")
        .header("host", "localhost:4566")
        .header("x-amz-target", "AmazonSSM.StartSession")
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-spaces", "a   b")
        .body(br#"{"Target":"i-0123456789abcdef0"}"#.to_vec())
        .unwrap()
}

fn upgrade() -> Request<Vec<u8>> {
    let path = "/v1/data-channel/dev-0a%40b@c.d?role=publish_subscribe&cell=a+b%2Fc";
    Request::get(format!("https://ssmmessages.{REGION}.amazonaws.com{path}"))
        .header("host", format!("ssmmessages.{REGION}.amazonaws.com"))
        .body(Vec::new())
        .unwrap()
}

fn judge(
    iam: &Iam,
    request: &Request<Vec<u8>>,
    service: &str,
    seconds_later: i64,
) -> Result<User, AuthError> {
    let shift = Duration::from_secs(seconds_later.unsigned_abs());
    let now = if seconds_later < 0 {
        signed_at() - shift
    } else {
        signed_at() + shift
    };
    let parts = Parts {
        method: request.method(),
        uri: request.uri(),
        headers: request.headers(),
        body: request.body(),
    };
    authenticate(iam, &parts, service, now)
}

#[test]
fn header_signatures_are_accepted() {
    let request = Signer::default().sign(call());
    assert_eq!(
        judge(&iam(None), &request, "ssm", 0).unwrap().name,
        "dev",
        "long-term key"
    );
    let signer = Signer {
        session_token: Some("session+token/=="),
        ..Signer::default()
    };
    let request = signer.sign(call());
    judge(&iam(Some("session+token/==")), &request, "ssm", 0).expect("temporary key");
}

#[test]
fn upgrade_requests_are_accepted_signed_and_presigned() {
    for (presign, session_token) in [
        (None, None),
        (None, Some("tok+en")),
        (Some(60), None),
        (Some(60), Some("tok+en")),
    ] {
        let signer = Signer {
            service: "ssmmessages",
            presign,
            session_token,
            ..Signer::default()
        };
        let request = signer.sign(upgrade());
        judge(&iam(session_token), &request, "ssmmessages", 30)
            .unwrap_or_else(|e| panic!("{presign:?} {session_token:?}: {e}"));
    }
}

#[test]
fn any_change_breaks_the_signature() {
    let iam = iam(None);
    let good = Signer::default().sign(call());
    type Change = fn(&mut Request<Vec<u8>>);
    let changes: [(&str, Change); 5] = [
        ("body", |r| r.body_mut().push(b' ')),
        ("method", |r| *r.method_mut() = Method::PUT),
        ("path", |r| *r.uri_mut() = "/x".parse().unwrap()),
        ("query", |r| *r.uri_mut() = "/?a=b".parse().unwrap()),
        ("header", |r| {
            let value = "AmazonSSM.TerminateSession".parse().unwrap();
            r.headers_mut().insert("x-amz-target", value);
        }),
    ];
    for (what, change) in changes {
        let mut request = good.clone();
        change(&mut request);
        assert_eq!(
            judge(&iam, &request, "ssm", 0).unwrap_err(),
            AuthError::Mismatch,
            "{what}"
        );
    }
    let signer = Signer {
        secret: "another",
        ..Signer::default()
    };
    let error = judge(&iam, &signer.sign(call()), "ssm", 0).unwrap_err();
    assert_eq!(error.json_code(), "InvalidSignatureException");
    assert_eq!(error.query_code(), "SignatureDoesNotMatch");
}

#[test]
fn scope_must_fit() {
    let signer = Signer {
        region: "us-east-1",
        ..Signer::default()
    };
    let request = signer.sign(call());
    let error = judge(&iam(None), &request, "ssm", 0).unwrap_err();
    assert!(error.to_string().contains("not 'us-east-1'"), "{error}");
    let request = Signer::default().sign(call());
    let error = judge(&iam(None), &request, "ssmmessages", 0).unwrap_err();
    assert!(error.to_string().contains("'ssmmessages'"), "{error}");
}

#[test]
fn clocks_may_differ_by_a_quarter_of_an_hour() {
    let iam = iam(None);
    let request = Signer::default().sign(call());
    for fine in [-900, -1, 0, 900] {
        judge(&iam, &request, "ssm", fine).unwrap_or_else(|e| panic!("{fine}: {e}"));
    }
    let error = judge(&iam, &request, "ssm", 901).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Signature expired: 20260301T120000Z is now earlier than 20260301T120001Z \
         (20260301T121501Z - 15 min.)"
    );
    assert_eq!(error.json_code(), "InvalidSignatureException");
    let error = judge(&iam, &request, "ssm", -901).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Signature not yet current: 20260301T120000Z is still later than 20260301T115959Z \
         (20260301T114459Z + 15 min.)"
    );
}

#[test]
fn presigned_requests_end_when_they_say() {
    let signer = Signer {
        service: "ssmmessages",
        presign: Some(60),
        ..Signer::default()
    };
    let request = signer.sign(upgrade());
    judge(&iam(None), &request, "ssmmessages", 60).unwrap();
    assert!(matches!(
        judge(&iam(None), &request, "ssmmessages", 61).unwrap_err(),
        AuthError::WrongScopeOrTime(_)
    ));
}

#[test]
fn keys_and_session_tokens_must_belong_together() {
    let request = Signer::default().sign(call());
    let nobody = Iam::new(REGION, "123456789012");
    let error = judge(&nobody, &request, "ssm", 0).unwrap_err();
    assert_eq!(error.json_code(), "UnrecognizedClientException");
    assert_eq!(error.query_code(), "InvalidClientTokenId");
    let error = judge(&iam(Some("expected")), &request, "ssm", 0).unwrap_err();
    assert_eq!(error, AuthError::UnknownKey, "token missing");
    let signer = Signer {
        session_token: Some("other"),
        ..Signer::default()
    };
    let request = signer.sign(call());
    for expected in [None, Some("expected")] {
        let error = judge(&iam(expected), &request, "ssm", 0).unwrap_err();
        assert_eq!(error, AuthError::UnknownKey, "expected {expected:?}");
    }
}

#[test]
fn ended_credentials_are_named() {
    let iam = iam(Some("token"));
    iam.update("AKIAIOSFODNN7EXAMPLE", |u| u.expires = Some(signed_at()));
    let signer = Signer {
        session_token: Some("token"),
        ..Signer::default()
    };
    let request = signer.sign(call());
    let error = judge(&iam, &request, "ssm", 0).unwrap_err();
    assert_eq!(error, AuthError::ExpiredCredentials);
    assert_eq!(error.json_code(), "ExpiredTokenException");
    judge(&iam, &request, "ssm", -1).expect("one second before the end");
}

#[test]
fn unsigned_parts_are_refused() {
    let iam = iam(None);
    assert_eq!(
        judge(&iam, &call(), "ssm", 0).unwrap_err(),
        AuthError::Missing
    );
    let mut request = Signer::default().sign(call());
    request
        .headers_mut()
        .insert("x-amz-extra", "1".parse().unwrap());
    let error = judge(&iam, &request, "ssm", 0).unwrap_err();
    assert!(error.to_string().ends_with("not signed: x-amz-extra"));
    let mut request = Signer::default().sign(call());
    let value = request.headers()["authorization"].to_str().unwrap();
    let value = value.replace("host;", "").parse().unwrap();
    request.headers_mut().insert("authorization", value);
    let error = judge(&iam, &request, "ssm", 0).unwrap_err();
    assert!(error.to_string().contains("'Host'"), "{error}");
    request.headers_mut().remove("x-amz-date");
    let error = judge(&iam, &request, "ssm", 0).unwrap_err();
    assert_eq!(error.json_code(), "IncompleteSignatureException");
}
