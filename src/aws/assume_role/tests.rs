//! Chains of roles with and without MFA, against a stand-in for STS.

mod sandbox;

use aws_profile::{Origin, Setting, Source, format_date};
use serde_json::Value as Json;
use tempfile::TempDir;

use super::*;
use crate::aws::tests::stand_in::{NOW, StandIn, clock};

const SERIAL: &str = "arn:aws:iam::111122223333:mfa/me";

fn setting(value: &str) -> Setting {
    Setting {
        value: value.into(),
        origin: Origin::Request,
    }
}

fn role(name: &str, serial: Option<&str>) -> Role {
    Role {
        profile: name.into(),
        role_arn: setting(&format!("arn:aws:iam::111122223333:role/{name}")),
        external_id: None,
        session_name: None,
        duration_seconds: None,
        mfa_serial: serial.map(setting),
    }
}

fn chain(roles: &[Role]) -> RoleChain {
    RoleChain {
        base: Box::new(Source::Instance),
        roles: roles.to_vec(),
    }
}

fn base() -> Credentials {
    Credentials::new("AKIABASE", "base-secret-value", None, None, "test")
}

fn answer(action: &str, id: &str) -> String {
    let end = format_date(NOW + 3600);
    format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>\
         <AssumedRoleUser><AssumedRoleId>AROA:x</AssumedRoleId>\
         <Arn>arn:aws:sts::111122223333:assumed-role/{id}/x</Arn></AssumedRoleUser>\
         <Credentials><AccessKeyId>{id}</AccessKeyId><SecretAccessKey>secret-of-{id}-value</SecretAccessKey>\
         <SessionToken>token-of-{id}-value</SessionToken><Expiration>{end}</Expiration></Credentials>\
         </{action}Result></{action}Response>"
    )
}

struct Scene {
    _home: TempDir,
    files: CacheFiles,
    service: StandIn,
    roles: RoleAssumer,
}

impl Scene {
    async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let files = CacheFiles::below(home.path());
        let service = StandIn::start().await;
        Self {
            roles: RoleAssumer::new(service.config(), files.clone(), clock()),
            _home: home,
            files,
            service,
        }
    }

    /// Assumes a chain as a caller does, and returns the id of the keys.
    async fn ask(&self, chain: &RoleChain, code: Option<&str>) -> Result<String, AssumeRoleError> {
        let cached = self.roles.cached(chain).await;
        let start = cached.unwrap_or_else(|| ChainStart::of_base(base(), chain));
        let keys = self.roles.assume(start, code.map(MfaCode::new)).await?;
        Ok(keys.access_key_id().to_owned())
    }

    /// Returns the parameters of the requests so far, and the key that signed each of them.
    fn asked(&self) -> Vec<(String, Vec<(String, String)>)> {
        let parse = |request: String| {
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            let (_, signed) = head.split_once("Credential=").unwrap();
            let key = signed.split('/').next().unwrap().to_owned();
            let pairs = url::form_urlencoded::parse(body.as_bytes()).into_owned();
            let named = pairs.filter(|(name, _)| name != "Action" && name != "Version");
            (key, named.collect())
        };
        self.service.requests().into_iter().map(parse).collect()
    }

    fn cache(&self) -> Vec<String> {
        let dir = self.files.dir(CacheDir::Cli);
        let Ok(entries) = std::fs::read_dir(dir) else {
            return Vec::new();
        };
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    fn write_cached(&self, name: &str, left: i64) {
        let date = format_date(NOW + left);
        let text = format!(
            r#"{{"Credentials": {{"AccessKeyId": "CACHED", "SecretAccessKey": "s", "SessionToken": "t", "Expiration": "{date}"}}}}"#
        );
        std::fs::create_dir_all(self.files.dir(CacheDir::Cli)).unwrap();
        std::fs::write(self.files.path(CacheDir::Cli, name), text).unwrap();
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(pair).collect()
}

#[tokio::test]
async fn roles_are_assumed_in_order_with_their_settings() {
    let scene = Scene::new().await;
    let inner = Role {
        external_id: Some(setting("xid")),
        session_name: Some(setting("me")),
        duration_seconds: Some(7200),
        ..role("inner", None)
    };
    let outer = Role {
        session_name: Some(setting("")),
        ..role("outer", None)
    };
    let chain = chain(&[inner, outer]);
    scene.service.answer(200, answer("AssumeRole", "INNER"));
    scene.service.answer(200, answer("AssumeRole", "OUTER"));
    let start = ChainStart::of_base(base(), &chain);
    let keys = scene.roles.assume(start, None).await.unwrap();
    assert_eq!(keys.access_key_id(), "OUTER");
    assert_eq!(keys.account_id().unwrap().as_str(), "111122223333");
    assert_eq!(seconds(keys.expiry().unwrap()), NOW + 3600);
    let expected = [
        (
            "AKIABASE".to_owned(),
            pairs(&[
                ("RoleArn", "arn:aws:iam::111122223333:role/inner"),
                ("RoleSessionName", "me"),
                ("DurationSeconds", "7200"),
                ("ExternalId", "xid"),
            ]),
        ),
        (
            "INNER".to_owned(),
            pairs(&[
                ("RoleArn", "arn:aws:iam::111122223333:role/outer"),
                ("RoleSessionName", &format!("pgiam-session-{NOW}")),
            ]),
        ),
    ];
    assert_eq!(scene.asked(), expected);
    assert_eq!(
        scene.cache(),
        Vec::<String>::new(),
        "keys without MFA stay in memory"
    );
}

#[tokio::test]
async fn keys_with_mfa_come_from_the_cache_of_the_cli() {
    for (left, expected) in [
        (3600, Ok("CACHED")),
        (60, Ok("CACHED")),
        (59, Err(())),
        (-5, Err(())),
    ] {
        let scene = Scene::new().await;
        let of_mfa = role("mfa", Some(SERIAL));
        scene.write_cached(&of_mfa.cache_file(), left);
        let got = scene.ask(&chain(&[of_mfa]), None).await;
        assert_eq!(got.as_deref().map_err(|_| ()), expected, "{left}");
        assert_eq!(scene.asked(), []);
    }
    // Without MFA the cache does not count, though the AWS CLI may have written it.
    let scene = Scene::new().await;
    let plain = role("plain", None);
    scene.write_cached(&plain.cache_file(), 3600);
    scene.service.answer(200, answer("AssumeRole", "NEW"));
    assert_eq!(scene.ask(&chain(&[plain]), None).await.unwrap(), "NEW");
}

#[tokio::test]
async fn a_code_is_used_once_and_its_keys_are_written() {
    let scene = Scene::new().await;
    let of_mfa = role("mfa", Some(SERIAL));
    let name = of_mfa.cache_file();
    let chain = chain(&[of_mfa]);
    let error = scene.ask(&chain, None).await.unwrap_err();
    assert!(matches!(
        &error,
        AssumeRoleError::MfaRequired { profile, serial, role_arn }
            if profile == "mfa" && serial == SERIAL && role_arn.ends_with(":role/mfa")
    ));
    assert_eq!(scene.asked(), []);
    scene.service.answer(200, answer("AssumeRole", "MFA"));
    assert_eq!(scene.ask(&chain, Some("123456")).await.unwrap(), "MFA");
    let asked = scene.asked();
    let with_code = pairs(&[("SerialNumber", SERIAL), ("TokenCode", "123456")]);
    assert!(
        with_code.iter().all(|pair| asked[0].1.contains(pair)),
        "{asked:?}"
    );
    assert_eq!(scene.cache(), [name.as_str()]);
    let text = std::fs::read(scene.files.path(CacheDir::Cli, &name)).unwrap();
    let file: Json = serde_json::from_slice(&text).unwrap();
    assert_eq!(file["Credentials"]["AccessKeyId"], "MFA");
    assert_eq!(file["Credentials"]["AccountId"], "111122223333");
    assert_eq!(
        file["Credentials"]["Expiration"],
        "2026-11-30T13:00:00+00:00"
    );
    assert_eq!(file["AssumedRoleUser"]["AssumedRoleId"], "AROA:x");
    // The next process needs neither code nor request.
    assert_eq!(scene.ask(&chain, None).await.unwrap(), "MFA");
    assert_eq!(scene.asked(), []);
}

#[tokio::test]
async fn each_device_of_a_chain_has_its_own_code() {
    let scene = Scene::new().await;
    let chain = chain(&[
        role("one", Some(SERIAL)),
        role("two", Some("GAHT1")),
        role("three", None),
    ]);
    scene.service.answer(200, answer("AssumeRole", "ONE"));
    let error = scene.ask(&chain, Some("111111")).await.unwrap_err();
    assert!(matches!(error, AssumeRoleError::MfaRequired { serial, .. } if serial == "GAHT1"));
    assert_eq!(scene.asked().len(), 1);
    scene.service.answer(200, answer("AssumeRole", "TWO"));
    scene.service.answer(200, answer("AssumeRole", "THREE"));
    assert_eq!(scene.ask(&chain, Some("222222")).await.unwrap(), "THREE");
    let signed: Vec<String> = scene.asked().into_iter().map(|(key, _)| key).collect();
    assert_eq!(signed, ["ONE", "TWO"]);
    // Only the role behind the last device is assumed again.
    scene.service.answer(200, answer("AssumeRole", "THREE"));
    assert_eq!(scene.ask(&chain, None).await.unwrap(), "THREE");
    assert_eq!(scene.asked()[0].0, "TWO");
}

#[tokio::test]
async fn refusals_name_the_role_and_show_no_secret() {
    let scene = Scene::new().await;
    let chain = chain(&[role("mfa", Some(SERIAL))]);
    scene.service.answer(
        403,
        "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>\
         <Message>MultiFactorAuthentication failed with invalid MFA one time pass code.</Message>\
         </Error><RequestId>1</RequestId></ErrorResponse>",
    );
    let error = scene.ask(&chain, Some("654321")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot assume role arn:aws:iam::111122223333:role/mfa of profile mfa: sts:AssumeRole: \
         AccessDenied: MultiFactorAuthentication failed with invalid MFA one time pass code."
    );
    assert!(!format!("{error:?}").contains("654321"));
    assert_eq!(
        scene.cache(),
        Vec::<String>::new(),
        "no temporary file is left"
    );
    let broken = Credentials::new("AKIA\n", "s", None, None, "test");
    let start = ChainStart::of_base(broken, &chain);
    let error = scene
        .roles
        .assume(start, Some(MfaCode::new("1")))
        .await
        .unwrap_err();
    assert!(matches!(error, AssumeRoleError::Malformed(_)));
    // A service that answers something else.
    let chain = self::chain(&[role("plain", None)]);
    scene.service.answer(200, "<html>");
    let error = scene.ask(&chain, None).await.unwrap_err();
    let is_answer = matches!(
        error,
        AssumeRoleError::Role {
            source: CallError::Answer { .. },
            ..
        }
    );
    assert!(is_answer);
}

#[tokio::test]
async fn static_keys_with_a_device_get_temporary_ones() {
    let scene = Scene::new().await;
    assert!(
        scene
            .roles
            .cached_session("AKIABASE", SERIAL)
            .await
            .is_none()
    );
    scene.service.answer(200, answer("GetSessionToken", "TEMP"));
    let keys = scene
        .roles
        .session_token(&base(), SERIAL, MfaCode::new("123456"))
        .await;
    assert_eq!(keys.unwrap().access_key_id(), "TEMP");
    let expected = pairs(&[("SerialNumber", SERIAL), ("TokenCode", "123456")]);
    assert_eq!(scene.asked(), [("AKIABASE".to_owned(), expected)]);
    let cached = scene
        .roles
        .cached_session("AKIABASE", SERIAL)
        .await
        .unwrap();
    assert_eq!(cached.session_token(), Some("token-of-TEMP-value"));
    assert!(
        scene
            .roles
            .cached_session("AKIAOTHER", SERIAL)
            .await
            .is_none()
    );
    assert!(
        scene
            .roles
            .cached_session("AKIABASE", "GAHT1")
            .await
            .is_none()
    );
}

#[test]
fn durations_stay_in_range() {
    for (seconds, sent) in [(3600, 3600), (i64::MAX, i32::MAX), (i64::MIN, i32::MIN)] {
        assert_eq!(in_range(seconds), sent);
    }
}
