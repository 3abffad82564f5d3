//! The same against the sandbox's STS, which accepts each code once.

use super::*;
use crate::aws::tests::stand_in::sandbox;
use crate::base::single_flight::system_clock;

#[tokio::test]
async fn a_code_opens_a_chain_for_the_life_of_its_keys() {
    let (sandbox, config) = sandbox().await;
    let user = sandbox.user();
    let serial = sandbox.mfa().enable(&user.arn);
    let account = sandbox.iam().account().to_owned();
    let arn = |name: &str| format!("arn:aws:iam::{account}:role/{name}");
    sandbox.roles().add(protocol_tests::aws::roles::Role {
        requires_mfa: true,
        external_id: Some("xid".to_owned()),
        ..protocol_tests::aws::roles::Role::new(&arn("mfa"))
    });
    sandbox
        .roles()
        .add(protocol_tests::aws::roles::Role::new(&arn("plain")));
    let home = tempfile::tempdir().unwrap();
    let files = CacheFiles::below(home.path());
    let assumer = RoleAssumer::new(config, files, system_clock());
    let keys = || {
        let (id, secret) = (user.access_key_id.clone(), user.secret_access_key.clone());
        Credentials::new(id, secret, None, None, "test")
    };
    let of_mfa = Role {
        role_arn: setting(&arn("mfa")),
        external_id: Some(setting("xid")),
        duration_seconds: Some(900),
        ..role("mfa", Some(&serial))
    };
    let plain = Role {
        role_arn: setting(&arn("plain")),
        ..role("plain", None)
    };
    let chain = chain(&[of_mfa, plain]);
    let ask = async |code: Option<String>| {
        let start = assumer.cached(&chain).await;
        let start = start.unwrap_or_else(|| ChainStart::of_base(keys(), &chain));
        assumer.assume(start, code.map(MfaCode::new)).await
    };
    let wrong = ask(Some("000000".to_owned())).await.unwrap_err();
    assert!(
        wrong.to_string().contains("invalid MFA one time pass code"),
        "{wrong}"
    );
    let code = sandbox.mfa().next_code(&serial);
    let first = ask(code).await.unwrap();
    assert_eq!(first.account_id().unwrap().as_str(), account);
    let second = ask(None).await.unwrap();
    assert_ne!(first.access_key_id(), second.access_key_id());
}
