//! What IAM's simulator says about the sandbox's users.

use std::time::Duration;

use protocol_tests::aws::iam::User;
use protocol_tests::aws::sandbox::Sandbox;

use crate::http::{Answer, query};

const DEV: &str = "arn:aws:iam::123456789012:user/dev";
const DATABASE: &str = "arn:aws:rds-db:eu-central-1:123456789012:dbuser:cluster-ABC";

async fn simulate(sandbox: &Sandbox, source: &str, rest: &str) -> Answer {
    let parameters = format!("SimulatePrincipalPolicy&PolicySourceArn={source}&{rest}");
    query(sandbox, sandbox.user(), "iam", &parameters).await
}

async fn connect(sandbox: &Sandbox, db_user: &str) -> Answer {
    let rest =
        format!("ActionNames.member.1=rds-db:connect&ResourceArns.member.1={DATABASE}/{db_user}");
    let answer = simulate(sandbox, DEV, &rest).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer
}

fn change(sandbox: &Sandbox, change: impl FnOnce(&mut User)) {
    assert!(sandbox.iam().update(&sandbox.user().access_key_id, change));
}

#[tokio::test]
async fn decisions_follow_the_users_lists() {
    let sandbox = Sandbox::builder().start().await.unwrap();
    let answer = connect(&sandbox, "db_user").await;
    assert_eq!(answer.texts("EvalDecision"), ["allowed"]);
    assert_eq!(answer.texts("EvalActionName"), ["rds-db:connect"]);
    assert_eq!(
        answer.texts("EvalResourceName"),
        [format!("{DATABASE}/db_user")]
    );
    assert_eq!(answer.texts("IsTruncated"), ["false"]);
    assert_eq!(answer.texts("AllowedByOrganizations"), ["true"]);
    change(&sandbox, |user| user.db_users = vec!["reader".to_owned()]);
    let decision = async |db_user: &str| connect(&sandbox, db_user).await.texts("EvalDecision");
    assert_eq!(decision("reader").await, ["allowed"]);
    assert_eq!(decision("db_user").await, ["implicitDeny"]);
    change(&sandbox, |user| {
        user.deny = ["explicit:rds-db:connect".to_owned()].into()
    });
    assert_eq!(decision("reader").await, ["explicitDeny"]);
    change(&sandbox, |user| {
        user.deny = [format!("scp:rds-db:connect {DATABASE}/reader")].into()
    });
    let answer = connect(&sandbox, "reader").await;
    assert_eq!(answer.texts("EvalDecision"), ["explicitDeny"]);
    assert_eq!(answer.texts("AllowedByOrganizations"), ["false"]);
    assert_eq!(answer.texts("MatchedStatements"), [""]);
}

#[tokio::test]
async fn several_resources_have_results_of_their_own() {
    let sandbox = Sandbox::builder().start().await.unwrap();
    change(&sandbox, |user| user.db_users = vec!["reader".to_owned()]);
    let rest = format!(
        "ActionNames.member.1=rds-db:connect&ActionNames.member.2=ssm:StartSession\
         &ResourceArns.member.1={DATABASE}/reader&ResourceArns.member.2={DATABASE}/other"
    );
    let answer = simulate(&sandbox, DEV, &rest).await;
    assert_eq!(
        answer.texts("EvalActionName"),
        ["rds-db:connect", "ssm:StartSession"]
    );
    // Of all together, which says little: one is enough.
    assert_eq!(answer.texts("EvalDecision"), ["allowed", "allowed"]);
    assert_eq!(
        answer.texts("EvalResourceDecision"),
        ["allowed", "implicitDeny", "allowed", "allowed"]
    );
    let names = answer.texts("EvalResourceName");
    assert!(names[0].contains("${Region}"), "{names:?}");
    assert_eq!(
        names[1..3],
        [format!("{DATABASE}/reader"), format!("{DATABASE}/other")]
    );
}

#[tokio::test]
async fn results_come_in_pages() {
    let sandbox = Sandbox::builder().start().await.unwrap();
    sandbox.api().limit_pages(2);
    let actions = "ActionNames.member.1=a:A&ActionNames.member.2=a:B&ActionNames.member.3=a:C";
    let first = simulate(&sandbox, DEV, actions).await;
    assert_eq!(first.texts("EvalActionName"), ["a:A", "a:B"]);
    assert_eq!(first.texts("IsTruncated"), ["true"]);
    let marker = first.texts("Marker").concat();
    let second = simulate(&sandbox, DEV, &format!("{actions}&Marker={marker}")).await;
    assert_eq!(second.texts("EvalActionName"), ["a:C"]);
    assert_eq!(second.texts("IsTruncated"), ["false"]);
}

#[tokio::test]
async fn a_session_is_not_what_has_policies() {
    let builder = Sandbox::builder().temporary_credentials(Duration::from_secs(600));
    let sandbox = builder.start().await.unwrap();
    let action = "ActionNames.member.1=rds-db:connect";
    let session = &sandbox.user().arn;
    let answer = simulate(&sandbox, session, action).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "InvalidInput")
    );
    let text =
        format!("Invalid Entity Arn: {session} does not clearly define entity type and name.");
    assert_eq!(answer.texts("Message"), [text]);
    let role = "arn:aws:iam::123456789012:role/Developer";
    let answer = simulate(&sandbox, role, action).await;
    assert_eq!(answer.texts("EvalDecision"), ["allowed"]);
}

#[tokio::test]
async fn who_may_not_or_is_not_there_is_told_so() {
    let sandbox = Sandbox::builder().start().await.unwrap();
    let action = "ActionNames.member.1=rds-db:connect";
    let unknown = simulate(&sandbox, "arn:aws:iam::123456789012:role/x/Nobody", action).await;
    assert_eq!(
        (unknown.status, unknown.code().as_str()),
        (404, "NoSuchEntity")
    );
    assert_eq!(
        unknown.texts("Message"),
        ["The role with name Nobody cannot be found."]
    );
    let nothing = simulate(&sandbox, DEV, "").await;
    assert_eq!(
        (nothing.status, nothing.code().as_str()),
        (400, "ValidationError")
    );
    change(&sandbox, |user| {
        user.deny = ["iam:SimulatePrincipalPolicy".to_owned()].into()
    });
    let denied = simulate(&sandbox, DEV, action).await;
    assert_eq!(
        (denied.status, denied.code().as_str()),
        (403, "AccessDenied")
    );
    let text = "User: arn:aws:iam::123456789012:user/dev is not authorized to perform: \
         iam:SimulatePrincipalPolicy on resource: arn:aws:iam::123456789012:user/dev because no \
         identity-based policy allows the iam:SimulatePrincipalPolicy action";
    assert_eq!(denied.texts("Message"), [text]);
}
