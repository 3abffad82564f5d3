//! STS: roles with trust policies, MFA, chains and web identities.

use std::time::Duration;

use protocol_tests::aws::events::Event;
use protocol_tests::aws::iam::User;
use protocol_tests::aws::roles::Role;
use protocol_tests::aws::sandbox::Sandbox;

use crate::http::{Answer, call, query, query_request};

const ROLE: &str = "arn:aws:iam::123456789012:role/deploy/Admin";
const INVALID_CODE: &str = "MultiFactorAuthentication failed with invalid MFA one time pass code. ";

async fn with_role(change: impl FnOnce(&mut Role)) -> Sandbox {
    let sandbox = Sandbox::builder().start().await.unwrap();
    let mut role = Role::new(ROLE);
    change(&mut role);
    sandbox.roles().add(role);
    sandbox
}

async fn assume(sandbox: &Sandbox, user: &User, rest: &str) -> Answer {
    let parameters = format!("AssumeRole&RoleArn={ROLE}&RoleSessionName=me{rest}");
    query(sandbox, user, "sts", &parameters).await
}

/// The user that the credentials in an answer belong to.
fn user(answer: &Answer) -> User {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let text = |name: &str| answer.texts(name).concat();
    User {
        access_key_id: text("AccessKeyId"),
        secret_access_key: text("SecretAccessKey"),
        session_token: Some(text("SessionToken")),
        ..User::example("dev", "123456789012")
    }
}

fn assert_refused(answer: &Answer, status: u16, code: &str, message: &str) {
    let found = (
        answer.status,
        answer.code(),
        answer.texts("Message").concat(),
    );
    assert_eq!(found, (status, code.to_owned(), message.to_owned()));
}

async fn arn(sandbox: &Sandbox, user: &User) -> String {
    let answer = query(sandbox, user, "sts", "GetCallerIdentity").await;
    answer.texts("Arn").concat()
}

#[tokio::test]
async fn a_role_is_assumed_for_an_hour() {
    let sandbox = with_role(|role| role.deny = ["ssm:StartSession".to_owned()].into()).await;
    let answer = assume(&sandbox, sandbox.user(), "").await;
    let session = user(&answer);
    let session_arn = "arn:aws:sts::123456789012:assumed-role/Admin/me";
    assert_eq!(answer.texts("Arn"), [session_arn]);
    assert!(answer.texts("AssumedRoleId")[0].ends_with(":me"));
    let expiration = answer.texts("Expiration").concat();
    assert!(
        expiration.len() == 20 && expiration.ends_with('Z'),
        "{expiration}"
    );
    assert_eq!(arn(&sandbox, &session).await, session_arn);
    let known = sandbox.iam().get(&session.access_key_id).unwrap();
    assert!(known.is_denied("ssm:StartSession"));
    let assumed = Event::RoleAssumed {
        role_arn: ROLE.to_owned(),
        session_name: "me".to_owned(),
        seconds: 3600,
        external_id: None,
        mfa: None,
        user_arn: sandbox.user().arn.clone(),
    };
    assert_eq!(sandbox.events().count(|event| *event == assumed), 1);
}

#[tokio::test]
async fn a_trust_policy_names_principals_and_conditions() {
    let sandbox = with_role(|_| {}).await;
    let user = sandbox.user();
    let message = format!(
        "User: {} is not authorized to perform: sts:AssumeRole on resource: {ROLE}",
        user.arn
    );
    let own = [
        "*",
        "arn:aws:iam::123456789012:root",
        "arn:aws:iam::123456789012:user/dev",
    ];
    let others = [
        "arn:aws:iam::210987654321:root",
        "arn:aws:iam::123456789012:user/other",
        "arn:aws:iam::123456789012:role/dev",
    ];
    for (principals, status) in [(own, 200), (others, 403)] {
        for principal in principals {
            let mut role = Role::new(ROLE);
            role.trusts = vec![principal.to_owned()];
            sandbox.roles().add(role);
            let answer = assume(&sandbox, user, "").await;
            assert_eq!(answer.status, status, "{principal}");
        }
    }
    assert_refused(
        &assume(&sandbox, user, "").await,
        403,
        "AccessDenied",
        &message,
    );
    let mut role = Role::new(ROLE);
    role.external_id = Some("x/1".to_owned());
    sandbox.roles().add(role);
    for wrong in ["", "&ExternalId=x"] {
        let answer = assume(&sandbox, user, wrong).await;
        assert_refused(&answer, 403, "AccessDenied", &message);
    }
    assert_eq!(
        assume(&sandbox, user, "&ExternalId=x%2F1").await.status,
        200
    );
    assert!(sandbox.roles().remove(ROLE).is_some());
    let answer = assume(&sandbox, user, "").await;
    assert_refused(&answer, 403, "AccessDenied", &message);
}

#[tokio::test]
async fn a_policy_of_the_user_may_forbid_it() {
    let sandbox = with_role(|_| {}).await;
    let user = sandbox.user();
    sandbox.iam().update(&user.access_key_id, |user| {
        user.deny = ["sts:AssumeRole".to_owned()].into();
    });
    let answer = assume(&sandbox, user, "").await;
    let message = format!(
        "User: {} is not authorized to perform: sts:AssumeRole on resource: {ROLE} because no \
         identity-based policy allows the sts:AssumeRole action",
        user.arn
    );
    assert_refused(&answer, 403, "AccessDenied", &message);
}

#[tokio::test]
async fn a_code_opens_a_role_with_mfa_once() {
    let sandbox = with_role(|role| role.requires_mfa = true).await;
    let dev = sandbox.user();
    let mfa = sandbox.mfa();
    let serial = mfa.enable(&dev.arn);
    let with = |code: &str| format!("&SerialNumber={serial}&TokenCode={code}");
    let answer = assume(&sandbox, dev, "").await;
    assert_eq!(answer.status, 403);
    let code = mfa.next_code(&serial).unwrap();
    assert_eq!(assume(&sandbox, dev, &with(&code)).await.status, 200);
    let again = assume(&sandbox, dev, &with(&code)).await;
    assert_refused(&again, 403, "AccessDenied", INVALID_CODE);
    let incomplete = assume(&sandbox, dev, "&TokenCode=123456").await;
    assert_refused(
        &incomplete,
        403,
        "AccessDenied",
        "MultiFactorAuthentication failed, must provide both MFA serial number and one time pass \
         code.",
    );
    let next = mfa.next_code(&serial).unwrap();
    let wrong = with(&next).replace("mfa/dev", "mfa/other");
    let not_mine = assume(&sandbox, dev, &wrong).await;
    assert_refused(
        &not_mine,
        403,
        "AccessDenied",
        "MultiFactorAuthentication failed, unable to validate MFA code.  Please verify your MFA \
         serial number is valid and associated with this user.",
    );
    assert_eq!(assume(&sandbox, dev, &with(&next)).await.status, 200);
    let codes = |e: &Event| matches!(e, Event::RoleAssumed { mfa: Some(s), .. } if *s == serial);
    assert_eq!(sandbox.events().count(codes), 2);
}

#[tokio::test]
async fn a_session_token_carries_mfa() {
    let sandbox = with_role(|role| role.requires_mfa = true).await;
    let dev = sandbox.user();
    let serial = sandbox.mfa().enable(&dev.arn);
    let plain = query(&sandbox, dev, "sts", "GetSessionToken").await;
    let plain = user(&plain);
    assert_eq!(arn(&sandbox, &plain).await, dev.arn);
    assert_eq!(assume(&sandbox, &plain, "").await.status, 403);
    let code = sandbox.mfa().next_code(&serial).unwrap();
    let parameters =
        format!("GetSessionToken&DurationSeconds=900&SerialNumber={serial}&TokenCode={code}");
    let answer = query(&sandbox, dev, "sts", &parameters).await;
    let session = user(&answer);
    assert_eq!(assume(&sandbox, &session, "").await.status, 200);
    let answer = query(&sandbox, &session, "sts", "GetSessionToken").await;
    let text = "Cannot call GetSessionToken with session credentials";
    assert_refused(&answer, 403, "AccessDenied", text);
    let parameters = format!("GetSessionToken&SerialNumber={serial}&TokenCode=000000x");
    let answer = query(&sandbox, dev, "sts", &parameters).await;
    assert_refused(&answer, 403, "AccessDenied", INVALID_CODE);
}

#[tokio::test]
async fn durations_have_bounds() {
    let sandbox = with_role(|role| role.max_session = Duration::from_secs(7200)).await;
    let dev = sandbox.user();
    assert_eq!(
        assume(&sandbox, dev, "&DurationSeconds=7200").await.status,
        200
    );
    let bound = |seconds: u32, fault: &str| {
        format!(
            "1 validation error detected: Value '{seconds}' at 'durationSeconds' failed to satisfy \
             constraint: Member must have value {fault}"
        )
    };
    for (seconds, message) in [
        (899, bound(899, "greater than or equal to 900")),
        (43_201, bound(43_201, "less than or equal to 43200")),
        (
            7201,
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
                .to_owned(),
        ),
    ] {
        let answer = assume(&sandbox, dev, &format!("&DurationSeconds={seconds}")).await;
        assert_refused(&answer, 400, "ValidationError", &message);
    }
    let session = user(&assume(&sandbox, dev, "").await);
    let answer = assume(&sandbox, &session, "&DurationSeconds=3601").await;
    assert_refused(
        &answer,
        400,
        "ValidationError",
        "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role \
         chaining.",
    );
    let parameters = "GetSessionToken&DurationSeconds=129601";
    let answer = query(&sandbox, dev, "sts", parameters).await;
    assert_refused(
        &answer,
        400,
        "ValidationError",
        &bound(129_601, "less than or equal to 129600"),
    );
    for wrong in ["", "&RoleSessionName=a", "&RoleSessionName=a%20b"] {
        let parameters = format!("AssumeRole&RoleArn={ROLE}{wrong}");
        let answer = query(&sandbox, dev, "sts", &parameters).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "ValidationError")
        );
    }
}

#[tokio::test]
async fn roles_form_a_chain() {
    let first = "arn:aws:iam::123456789012:role/First";
    let sandbox = with_role(|role| role.trusts = vec![first.to_owned()]).await;
    let elsewhere = "arn:aws:iam::210987654321:role/Elsewhere";
    let mut last = Role::new(elsewhere);
    last.trusts = vec![ROLE.to_owned()];
    sandbox.roles().add(last);
    sandbox.roles().add(Role::new(first));
    let dev = sandbox.user();
    assert_eq!(assume(&sandbox, dev, "").await.status, 403);
    let parameters = format!("AssumeRole&RoleArn={first}&RoleSessionName=one");
    let one = user(&query(&sandbox, dev, "sts", &parameters).await);
    let two = user(&assume(&sandbox, &one, "").await);
    let parameters = format!("AssumeRole&RoleArn={elsewhere}&RoleSessionName=three");
    let three = user(&query(&sandbox, &two, "sts", &parameters).await);
    let answer = query(&sandbox, &three, "sts", "GetCallerIdentity").await;
    assert_eq!(answer.texts("Account"), ["210987654321"]);
    let expected = "arn:aws:sts::210987654321:assumed-role/Elsewhere/three";
    assert_eq!(answer.texts("Arn"), [expected]);
}

#[tokio::test]
async fn a_web_identity_needs_no_signature() {
    let sandbox = with_role(|role| role.web_identity = Some("a.b.c\n".to_owned())).await;
    let web = async |rest: &str| {
        let action = "AssumeRoleWithWebIdentity&RoleSessionName=me";
        let parameters = format!("{action}{rest}");
        call(&sandbox, None, query_request("sts", &parameters)).await
    };
    let role = format!("&RoleArn={ROLE}");
    let answer = web(&format!("{role}&WebIdentityToken=a.b.c%0A")).await;
    let session = user(&answer);
    let session_arn = "arn:aws:sts::123456789012:assumed-role/Admin/me";
    assert_eq!(arn(&sandbox, &session).await, session_arn);
    let answer = web(&format!("{role}&WebIdentityToken=a.b.c")).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "InvalidIdentityToken")
    );
    let answer = web("&RoleArn=arn:aws:iam::123456789012:role/x&WebIdentityToken=a").await;
    let text = "Not authorized to perform sts:AssumeRoleWithWebIdentity";
    assert_refused(&answer, 403, "AccessDenied", text);
    let answer = web(&role).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "ValidationError")
    );
    let unsigned = call(&sandbox, None, query_request("sts", "GetCallerIdentity")).await;
    assert_eq!(
        (unsigned.status, unsigned.code().as_str()),
        (403, "MissingAuthenticationToken")
    );
}
