//! The SSO portal: accounts, roles, credentials, and the end of a login.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol_tests::aws::api::ApiFault;
use protocol_tests::aws::iam::User;
use protocol_tests::aws::sandbox::Sandbox;
use serde_json::json;

use crate::http::{Answer, call, query};

const ACCOUNT: &str = "123456789012";

async fn sandbox() -> Sandbox {
    Sandbox::builder().start().await.unwrap()
}

async fn portal(sandbox: &Sandbox, method: &str, path: &str, token: Option<&str>) -> Answer {
    let mut request = http::Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header("x-amz-sso_bearer_token", token);
    }
    call(sandbox, None, request.body(Vec::new()).unwrap()).await
}

async fn get(sandbox: &Sandbox, path: &str, token: &str) -> Answer {
    portal(sandbox, "GET", path, Some(token)).await
}

fn credentials(role: &str, account: &str) -> String {
    format!("/federation/credentials?role_name={role}&account_id={account}")
}

fn assert_refused(answer: &Answer, status: u16, exception: &str, message: &str) {
    assert_eq!(answer.status, status, "{}", answer.text);
    let namespace = "com.amazonaws.switchboard.portal";
    let name = format!("{exception}:http://internal.amazon.com/coral/{namespace}/");
    assert_eq!(answer.headers["x-amzn-errortype"], name);
    assert_eq!(answer.json()["message"], message);
    assert_eq!(answer.json()["__type"], format!("{namespace}#{exception}"));
}

/// The user that the credentials in an answer belong to.
fn user(answer: &Answer) -> User {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let given = &answer.json()["roleCredentials"];
    let text = |name: &str| given[name].as_str().unwrap().to_owned();
    User {
        access_key_id: text("accessKeyId"),
        secret_access_key: text("secretAccessKey"),
        session_token: Some(text("sessionToken")),
        ..User::example("dev", ACCOUNT)
    }
}

#[tokio::test]
async fn credentials_of_a_role_are_those_of_a_session() {
    let sandbox = sandbox().await;
    let login = sandbox.identity_center().log_in();
    let answer = get(
        &sandbox,
        &credentials("Developer", ACCOUNT),
        &login.access_token,
    )
    .await;
    let user = user(&answer);
    let millis = answer.json()["roleCredentials"]["expiration"].as_u64();
    let end = UNIX_EPOCH + Duration::from_millis(millis.unwrap());
    let life = end.duration_since(SystemTime::now()).unwrap();
    assert!(life > Duration::from_secs(3590) && life <= Duration::from_secs(3600));
    let identity = query(&sandbox, &user, "sts", "GetCallerIdentity").await;
    let arn = &identity.texts("Arn")[0];
    let rest = arn.strip_prefix("arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Developer_");
    assert_eq!(rest.unwrap().split_once('/').unwrap().1, "dev@example.com");
    assert!(identity.texts("UserId")[0].starts_with("AROA"));

    sandbox.iam().set_clock_ahead(3601);
    let late = query(&sandbox, &user, "sts", "GetCallerIdentity").await;
    assert_eq!(
        (late.status, late.code().as_str()),
        (403, "SignatureDoesNotMatch")
    );
    sandbox.iam().set_clock_ahead(0);
    sandbox.iam().update(&user.access_key_id, |user| {
        user.expires = Some(SystemTime::now() - Duration::from_secs(1));
    });
    let late = query(&sandbox, &user, "sts", "GetCallerIdentity").await;
    assert_eq!((late.status, late.code().as_str()), (403, "ExpiredToken"));
}

#[tokio::test]
async fn only_assigned_roles_are_given() {
    let sandbox = sandbox().await;
    let center = sandbox.identity_center();
    let login = center.log_in();
    let token = &login.access_token;
    for (role, account) in [("Admin", ACCOUNT), ("Developer", "210987654321")] {
        let answer = get(&sandbox, &credentials(role, account), token).await;
        assert_refused(&answer, 403, "ForbiddenException", "No access");
    }
    assert!(center.assign(ACCOUNT, "Admin"));
    assert!(!center.assign("210987654321", "Admin"));
    assert!(center.update_role(ACCOUNT, "Admin", |set| set.db_users =
        vec!["app".to_owned()]));
    let answer = get(&sandbox, &credentials("Admin", ACCOUNT), token).await;
    let known = sandbox.iam().get(&user(&answer).access_key_id).unwrap();
    assert_eq!(known.db_users, ["app"]);
    assert!(center.unassign(ACCOUNT, "Admin"));
    let answer = get(&sandbox, &credentials("Admin", ACCOUNT), token).await;
    assert_refused(&answer, 403, "ForbiddenException", "No access");
    let answer = get(&sandbox, "/federation/credentials?role_name=Admin", token).await;
    assert_eq!(answer.status, 400);
    assert!(
        answer.json()["__type"]
            .as_str()
            .unwrap()
            .ends_with("#InvalidRequestException")
    );
}

#[tokio::test]
async fn lists_come_in_pages() {
    let sandbox = sandbox().await;
    let center = sandbox.identity_center();
    center.add_account("210987654321", "Production", "prod@example.com");
    center.add_account("000000000001", "Leading zeros", "zero@example.com");
    center.add_account("999999999999", "Without roles", "none@example.com");
    for role in ["Admin", "ReadOnly"] {
        center.assign("210987654321", role);
        center.assign("000000000001", role);
    }
    let login = center.log_in();
    let token = &login.access_token;
    let mut accounts = Vec::new();
    let mut next = String::new();
    loop {
        let path = format!("/assignment/accounts?max_result=2{next}");
        let page = get(&sandbox, &path, token).await.json();
        accounts.extend(page["accountList"].as_array().unwrap().clone());
        match page["nextToken"].as_str() {
            Some(token) => next = format!("&next_token={token}"),
            None => break,
        }
    }
    let ids: Vec<&str> = accounts
        .iter()
        .map(|a| a["accountId"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["000000000001", "123456789012", "210987654321"]);
    assert_eq!(accounts[2]["accountName"], "Production");
    assert_eq!(accounts[2]["emailAddress"], "prod@example.com");

    sandbox.api().limit_pages(1);
    let path = "/assignment/roles?account_id=210987654321";
    let page = get(&sandbox, path, token).await.json();
    let first = json!([{ "roleName": "Admin", "accountId": "210987654321" }]);
    assert_eq!(page["roleList"], first);
    let path = format!("{path}&next_token={}", page["nextToken"].as_str().unwrap());
    let page = get(&sandbox, &path, token).await.json();
    assert_eq!(page["roleList"][0]["roleName"], "ReadOnly");
    assert!(page["nextToken"].is_null());
    let answer = get(&sandbox, "/assignment/roles?account_id=999999999999", token).await;
    assert_refused(&answer, 403, "ForbiddenException", "No access");
    for wrong in ["max_result=0", "max_result=101", "next_token=x"] {
        let answer = get(&sandbox, &format!("/assignment/accounts?{wrong}"), token).await;
        assert_eq!(answer.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn a_token_is_needed_and_ends() {
    let sandbox = sandbox().await;
    let center = sandbox.identity_center();
    let invalid = "Session token not found or invalid";
    let path = credentials("Developer", ACCOUNT);
    let refused = async |token: Option<&str>| {
        for path in [
            path.as_str(),
            "/assignment/accounts",
            "/assignment/roles?account_id=1",
        ] {
            let answer = portal(&sandbox, "GET", path, token).await;
            assert_refused(&answer, 401, "UnauthorizedException", invalid);
        }
        let answer = portal(&sandbox, "POST", "/logout", token).await;
        assert_refused(&answer, 401, "UnauthorizedException", invalid);
    };
    refused(None).await;
    refused(Some("x")).await;
    let login = center.log_in();
    let given = get(&sandbox, &path, &login.access_token).await;
    let answer = portal(&sandbox, "POST", "/logout", Some(&login.access_token)).await;
    assert_eq!(answer.status, 200);
    refused(Some(&login.access_token)).await;
    let still = query(&sandbox, &user(&given), "sts", "GetCallerIdentity").await;
    assert_eq!(still.status, 200, "credentials outlive the login");

    let login = center.log_in();
    center.expire_access_tokens();
    refused(Some(&login.access_token)).await;
    let login = center.log_in();
    center.end_logins();
    refused(Some(&login.access_token)).await;
    center.update(|settings| settings.access_token_life = Duration::from_secs(60));
    let login = center.log_in();
    sandbox.iam().set_clock_ahead(61);
    refused(Some(&login.access_token)).await;
}

#[tokio::test]
async fn too_many_calls_are_refused() {
    let sandbox = sandbox().await;
    let login = sandbox.identity_center().log_in();
    sandbox
        .api()
        .fail("GetRoleCredentials", ApiFault::Throttled, 1);
    let path = credentials("Developer", ACCOUNT);
    let answer = get(&sandbox, &path, &login.access_token).await;
    assert_eq!(answer.status, 429);
    assert!(
        answer.json()["__type"]
            .as_str()
            .unwrap()
            .ends_with("#TooManyRequestsException")
    );
    assert_eq!(get(&sandbox, &path, &login.access_token).await.status, 200);
}

#[tokio::test]
async fn the_token_file_is_that_of_the_cli() {
    let sandbox = sandbox().await;
    let file = sandbox.identity_center().log_in().token_file();
    let mut names: Vec<&String> = file.as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(
        names,
        [
            "accessToken",
            "clientId",
            "clientSecret",
            "expiresAt",
            "refreshToken",
            "region",
            "registrationExpiresAt",
            "startUrl"
        ]
    );
    let date = file["expiresAt"].as_str().unwrap();
    assert!(date.len() == 20 && date.ends_with('Z'), "{date}");
}
