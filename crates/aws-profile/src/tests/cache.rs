//! Cache files: names and formats of sections 4, 5 and 6 of the recorded answers, and Python's `json`
//! and `hashlib` beside them on generated values.

use serde_json::{Value as Json, json};

use super::python;
use super::random::Random;
use crate::*;

fn setting(value: &str) -> Setting {
    Setting {
        value: value.into(),
        origin: Origin::Request,
    }
}

fn role(arn: &str) -> Role {
    Role {
        profile: "dev".into(),
        role_arn: setting(arn),
        external_id: None,
        session_name: None,
        duration_seconds: None,
        mfa_serial: None,
    }
}

fn key<'a>(session: Option<&'a str>, scopes: Option<&'a str>) -> SsoCacheKey<'a> {
    SsoCacheKey {
        session,
        start_url: "https://d-1.awsapps.com/start",
        region: "eu-west-1",
        registration_scopes: scopes,
    }
}

#[test]
fn names_are_those_of_the_cli() {
    let with_scopes = key(Some("corp"), Some("sso:account:access, foo:bar,"));
    let full = Role {
        external_id: Some(setting("xid")),
        session_name: Some(setting("me")),
        duration_seconds: Some(7200),
        ..role("arn:aws:iam::111122223333:role/E18")
    };
    let with_mfa = Role {
        mfa_serial: Some(setting("arn:aws:iam::111122223333:mfa/me")),
        ..role("arn:aws:iam::111122223333:role/E17")
    };
    let login = LoginSession {
        profile: "dev".into(),
        session: setting(" arn:aws:iam::111122223333:user/Admin\t"),
    };
    for (name, expected) in [
        (
            with_scopes.token_file(),
            "ee0bfd2552fbd840c02cc48b6e823320543c450f",
        ),
        (
            key(None, None).token_file(),
            "0c54b6c27e90660baa89eaad85ac1d5dae26cb7d",
        ),
        // Scopes of a profile without a session do not count.
        (
            key(None, Some("x")).registration_file(),
            "8da4b80b5d9b65ac135f58293730b6683603363f",
        ),
        (
            with_scopes.registration_file(),
            "5a60185bbc0ebf23b3d6571c586882083af71eb9",
        ),
        (
            with_scopes.role_file("111122223333", "Dev"),
            "20985b56d713cfd135648cadc68a6115ca80d9a5",
        ),
        (
            key(None, None).role_file("111122223333", "Dev"),
            "9cb5b114acea3c3226059ed5f01fe8cd4da1acb0",
        ),
        (
            key(Some(""), None).role_file("111122223333", "Dev"),
            "9cb5b114acea3c3226059ed5f01fe8cd4da1acb0",
        ),
        (
            role("arn:aws:iam::111122223333:role/E1").cache_file(),
            "ccf7cbf1bbf62b96a25b9977ca3cb282444e4118",
        ),
        (
            full.cache_file(),
            "4e0bd1fd42d354044678f7b0b8b15afda63290e5",
        ),
        (
            with_mfa.cache_file(),
            "d956694237752d85e9394f3cfad11c4353f333bd",
        ),
        (
            login.cache_file(),
            "15ad6a9800868e2ba5939d78849f67465e0f8392752060b3bfa16b8e10b47063",
        ),
    ] {
        assert_eq!(name, format!("{expected}.json"));
    }
    // The AWS CLI invents a name for the session then.
    let empty_name = Role {
        session_name: Some(setting("")),
        ..role("arn:aws:iam::111122223333:role/E1")
    };
    assert_eq!(
        empty_name.cache_file(),
        role("arn:aws:iam::111122223333:role/E1").cache_file()
    );
    let of_keys = session_token_file("AKIAIOSFODNN7EXAMPLE", "arn:aws:iam::111122223333:mfa/me");
    assert_ne!(of_keys, with_mfa.cache_file());
    assert_eq!(key(Some("a"), Some(" , ")).scopes(), Some(Vec::new()));
}

#[test]
fn caches_are_below_the_home_directory() {
    let variable = |name: &str| match name {
        "HOME" => Some("/home/me".to_owned()),
        "USERPROFILE" => Some("C:\\Users\\me".to_owned()),
        "AWS_LOGIN_CACHE_DIRECTORY" => Some("$HOME/logins".to_owned()),
        "AWS_CONFIG_FILE" => Some("/etc/aws".to_owned()),
        _ => None,
    };
    let none = |_: &str| None;
    let homes = |_: Option<&str>| Some("/root".to_owned());
    let posix = |dir, variables| cache_dir(dir, Platform::Posix, variables, &homes);
    assert_eq!(posix(CacheDir::Sso, &variable), "/home/me/.aws/sso/cache");
    assert_eq!(posix(CacheDir::Cli, &none), "/root/.aws/cli/cache");
    assert_eq!(posix(CacheDir::Login, &none), "/root/.aws/login/cache");
    assert_eq!(posix(CacheDir::Login, &variable), "/home/me/logins");
    let windows = cache_dir(CacheDir::Sso, Platform::Windows, &variable, &homes);
    assert_eq!(windows, "C:\\Users\\me/.aws/sso/cache");
}

const TOKEN: &str = r#"{"startUrl": "https://d-1.awsapps.com/start", "region": "eu-west-1", "accessToken": "aoaAAAA", "expiresAt": "2026-11-30T12:00:00Z", "clientId": "id", "clientSecret": "s\u00e4cret", "registrationExpiresAt": "2027-02-28T12:00:00Z", "refreshToken": "aorAAAA", "futureKey": {"a": [1, null], "b": "\ud83d\ude00"}}"#;
/// `2026-11-30T12:00:00Z`.
const NOON: i64 = 1_796_040_000;

#[test]
fn tokens_are_written_as_they_were_read() {
    let token = SsoToken::parse(TOKEN.as_bytes()).unwrap();
    assert_eq!(token.expires_at, NOON);
    assert_eq!(token.client_secret.as_ref().unwrap().expose(), "säcret");
    assert_eq!(token.to_json().expose(), TOKEN);
    let shown = format!("{token:?}");
    for secret in ["aoa", "aor", "cret\"", "😀"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let access = SsoAccess::parse(TOKEN.as_bytes()).unwrap();
    assert_eq!(access.region.as_deref(), Some("eu-west-1"));
    assert_eq!(access.access_token, token.access_token);
}

#[test]
fn tokens_need_a_token_and_its_end() {
    let parse = |text: &str| SsoToken::parse(text.as_bytes());
    let fault = |text: &str| parse(text).unwrap_err();
    for (text, expected) in [
        ("{}", CacheFault::Missing("accessToken")),
        (
            r#"{"accesstoken": "a"}"#,
            CacheFault::Missing("accessToken"),
        ),
        (
            r#"{"accessToken": null}"#,
            CacheFault::Missing("accessToken"),
        ),
        (r#"{"accessToken": 1}"#, CacheFault::Invalid("accessToken")),
        (r#"{"accessToken": "a"}"#, CacheFault::Missing("expiresAt")),
        (
            r#"{"accessToken": "a", "expiresAt": "2026-11-30T12:00:00"}"#,
            CacheFault::Invalid("expiresAt"),
        ),
        (
            r#"{"accessToken": "a", "expiresAt": 1796040000}"#,
            CacheFault::Invalid("expiresAt"),
        ),
        ("[]", CacheFault::NotAnObject),
    ] {
        assert_eq!(fault(text), expected, "{text}");
        assert!(!expected.may_be_partial());
    }
    for end in 0..TOKEN.len() {
        let part = TOKEN.get(..end).unwrap_or("\"");
        assert!(fault(part).may_be_partial(), "{part}");
    }
    let long = format!("{{{}}}", " ".repeat(1 << 16));
    assert_eq!(fault(&long), CacheFault::TooLarge);
    for date in [
        "2026-11-30T12:00:00+00:00",
        "2026-11-30T12:00:00UTC",
        "2026-11-30T12:00:00.701441Z",
        "2026-11-30T13:00:00+0100",
    ] {
        let text = json!({"accessToken": "a", "expiresAt": date, "registrationExpiresAt": "soon"});
        let token = parse(&text.to_string()).unwrap();
        assert_eq!(token.expires_at, NOON, "{date}");
        // Not a reason to refuse a valid token.
        assert_eq!(token.registration_expires_at, None);
    }
}

#[test]
fn tokens_are_refreshed_while_they_can_be() {
    let token = SsoToken::parse(TOKEN.as_bytes()).unwrap();
    for (left, expected) in [
        (3600, Freshness::Fresh),
        (900, Freshness::Fresh),
        (899, Freshness::Ageing),
        (1, Freshness::Ageing),
        (0, Freshness::Expired),
        (-5, Freshness::Expired),
    ] {
        assert_eq!(token.freshness(NOON - left), expected, "{left}");
    }
    let grant = token.refresh_grant(NOON).unwrap();
    assert_eq!(grant.client_id, "id");
    assert_eq!(grant.refresh_token.expose(), "aorAAAA");
    let ends = token.registration_expires_at.unwrap();
    for (change, now, expected) in [
        ("", ends, NotRefreshable::RegistrationExpired(ends)),
        ("refreshToken", NOON, NotRefreshable::NoRefreshToken),
        ("clientId", NOON, NotRefreshable::NoRegistration),
        ("clientSecret", NOON, NotRefreshable::NoRegistration),
        (
            "registrationExpiresAt",
            NOON,
            NotRefreshable::NoRegistration,
        ),
    ] {
        let mut file: Json = serde_json::from_str(TOKEN).unwrap();
        file.as_object_mut().unwrap().remove(change);
        let token = SsoToken::parse(file.to_string().as_bytes()).unwrap();
        assert_eq!(token.refresh_grant(now), Err(expected), "{change}");
    }
    let new = NewAccess {
        access_token: SecretText::new("new"),
        expires_at: NOON + 3600,
        refresh_token: None,
    };
    let new = token.refreshed(new, &key(Some("corp"), None));
    let written: Json = serde_json::from_str(new.to_json().expose()).unwrap();
    assert_eq!(written["accessToken"], "new");
    assert_eq!(written["expiresAt"], "2026-11-30T13:00:00Z");
    assert_eq!(written["clientId"], "id");
    assert_eq!(written["futureKey"]["a"][0], 1);
    assert_eq!(written.get("refreshToken"), None);
}

#[test]
fn registrations_tell_their_kind() {
    let device = r#"{"clientId": "id", "clientSecret": "s", "expiresAt": "2026-11-30T12:00:00Z"}"#;
    let code = r#"{"clientId": "id", "clientSecret": "s", "expiresAt": "2026-11-30T12:00:00Z", "scopes": ["sso:account:access"], "grantTypes": ["authorization_code", "refresh_token"]}"#;
    for (text, kind) in [
        (device, GrantKind::DeviceCode),
        (code, GrantKind::AuthorizationCode),
    ] {
        let read = Registration::parse(text.as_bytes()).unwrap();
        assert_eq!(read.kind(), kind);
        assert_eq!(read.to_json().expose(), text);
        assert_eq!(read.grant_types, kind.grant_types());
        assert!(read.is_usable(kind, NOON - 901));
        assert!(!read.is_usable(kind, NOON - 900));
        assert!(!format!("{read:?}").contains("\"s\""));
    }
    let device = Registration::parse(device.as_bytes()).unwrap();
    assert!(!device.is_usable(GrantKind::AuthorizationCode, 0));
    let fault = Registration::parse(b"{\"clientId\": \"id\"}").unwrap_err();
    assert_eq!(fault, CacheFault::Missing("clientSecret"));
}

#[test]
fn keys_of_roles_are_read_in_every_form() {
    let file = |date: &str| {
        json!({"ProviderType": "sso", "Credentials": {
            "AccessKeyId": "ASIA", "SecretAccessKey": "sekret", "SessionToken": "tok",
            "Expiration": date, "AccountId": "011122223333",
        }, "ResponseMetadata": {"RetryAttempts": 0}})
    };
    for date in [
        "2026-11-30T12:00:00Z",
        "2026-11-30T12:00:00+00:00",
        "2026-11-30T12:00:00UTC",
    ] {
        let text = file(date).to_string();
        let keys = CachedCredentials::parse(text.as_bytes()).unwrap();
        assert_eq!(keys.expires_at, NOON, "{date}");
        assert!(keys.is_sso());
        assert!(keys.is_usable(NOON - 900, CLI_MARGIN) && !keys.is_usable(NOON - 899, CLI_MARGIN));
        assert!(keys.is_usable(NOON - 60, PERSON_MARGIN));
        let shown = format!("{keys:?}");
        assert!(
            !shown.contains("sekret") && !shown.contains("tok\""),
            "{shown}"
        );
    }
    for (missing, expected) in [
        ("SessionToken", CacheFault::Missing("SessionToken")),
        ("Expiration", CacheFault::Missing("Expiration")),
    ] {
        let mut file = file("2026-11-30T12:00:00Z");
        file["Credentials"].as_object_mut().unwrap().remove(missing);
        let fault = CachedCredentials::parse(file.to_string().as_bytes()).unwrap_err();
        assert_eq!(fault, expected);
    }
    let fault = CachedCredentials::parse(b"{\"Credentials\": []}").unwrap_err();
    assert_eq!(fault, CacheFault::Invalid("Credentials"));
    let keys = CachedCredentials {
        provider_type: None,
        access_key_id: "ASIA".to_owned(),
        secret_access_key: SecretText::new("sekret"),
        session_token: SecretText::new("tok"),
        expires_at: NOON,
        account_id: Some("111122223333".to_owned()),
        assumed_role: Some(AssumedRole {
            id: "AROA:me".to_owned(),
            arn: "arn:aws:sts::111122223333:assumed-role/Dev/me".to_owned(),
        }),
    };
    assert_eq!(
        keys.to_json().expose(),
        r#"{"Credentials": {"AccessKeyId": "ASIA", "SecretAccessKey": "sekret", "SessionToken": "tok", "Expiration": "2026-11-30T12:00:00+00:00", "AccountId": "111122223333"}, "AssumedRoleUser": {"AssumedRoleId": "AROA:me", "Arn": "arn:aws:sts::111122223333:assumed-role/Dev/me"}}"#
    );
}

#[test]
fn logins_of_aws_login_tell_their_end() {
    let file = |extra: &str| {
        let access = r#"{"accessKeyId": "ASIA", "accountId": "111122223333", "expiresAt": "2026-11-30T12:00:00Z"}"#;
        let text =
            format!(r#"{{"accessToken": {access}, "clientId": "c", "dpopKey": "k"{extra}}}"#);
        LoginToken::parse(text.as_bytes())
    };
    let expected = LoginToken {
        account_id: Some("111122223333".to_owned()),
        expires_at: NOON,
        is_refreshable: true,
    };
    assert_eq!(file(r#", "refreshToken": "r""#), Ok(expected));
    assert!(!file("").unwrap().is_refreshable);
    let fault = LoginToken::parse(b"{\"accessToken\": {}}").unwrap_err();
    assert_eq!(fault, CacheFault::Missing("expiresAt"));
}

const SCRIPT: &str = r#"
import hashlib, json, sys

def sha1(text):
    return hashlib.sha1(text.encode('utf-8')).hexdigest() + '.json'

lines = [json.loads(line) for line in sys.stdin]
for a, b, c, d, seconds in lines:
    registration = {'tool': 'botocore', 'startUrl': b, 'region': c, 'scopes': [d, a], 'session_name': a}
    sso = {'roleName': c, 'accountId': d, 'sessionName': a}
    role = {'RoleArn': a, 'ExternalId': b, 'SerialNumber': c, 'RoleSessionName': d,
            'DurationSeconds': seconds}
    token = {'startUrl': a, 'accessToken': b, 'expiresAt': '2026-11-30T12:00:00Z', 'refreshToken': c,
             'z': {'y': [d, None, True, seconds], 'x': {}}}
    print(json.dumps([
        sha1(a),
        sha1(json.dumps(registration, sort_keys=True)),
        sha1(json.dumps(sso, sort_keys=True, separators=(',', ':'))),
        sha1(json.dumps(role, sort_keys=True)),
        hashlib.sha256(d.strip().encode('utf-8')).hexdigest() + '.json',
        json.dumps(token),
    ]))
"#;

#[test]
fn generated_values_are_named_and_written_as_python_does() {
    const SEED: u64 = 0x5EED_CAC4;
    println!("seed {SEED:#x}");
    let mut random = Random::new(SEED);
    let pieces = [
        "a",
        "Corp",
        "\"",
        "\\",
        "/",
        "#",
        " ",
        "\u{a0}",
        "\t",
        "\n",
        "\r",
        "\u{8}",
        "\u{c}",
        "\0",
        "\u{1f}",
        "\u{7f}",
        "\u{80}",
        "ä",
        "ß",
        "日本",
        "\u{2028}",
        "\u{ffff}",
        "😀",
        "\u{10ffff}",
        "arn:aws:iam::1:role/x",
        "'",
        "%",
    ];
    let mut text = || -> String {
        let count = 1 + random.below(7);
        let text: String = (0..count).map(|_| random.pick(&pieces)).collect();
        // Scopes are a list with commas, and are trimmed.
        format!("x{}x", text.replace(',', ""))
    };
    let values: Vec<([String; 4], usize)> = (0..2_000)
        .map(|at| ([text(), text(), text(), text()], at * 37))
        .collect();
    let lines: Vec<String> = values
        .iter()
        .map(|([a, b, c, d], seconds)| json!([a, b, c, d, seconds]).to_string())
        .collect();
    let Some(expected) = python::run("import hashlib", SCRIPT, &lines) else {
        return;
    };
    for (([a, b, c, d], seconds), expected) in values.iter().zip(&expected) {
        let scopes = format!("{d} ,{a}");
        let key = SsoCacheKey {
            session: Some(a),
            start_url: b,
            region: c,
            registration_scopes: Some(&scopes),
        };
        let role = Role {
            external_id: Some(setting(b)),
            session_name: Some(setting(d)),
            duration_seconds: i64::try_from(*seconds).ok(),
            mfa_serial: Some(setting(c)),
            ..role(a)
        };
        let login = LoginSession {
            profile: "dev".into(),
            session: setting(&format!(" {d} ")),
        };
        let written = expected[5].as_str().unwrap();
        let token = SsoToken::parse(written.as_bytes()).unwrap();
        let ours = [
            key.token_file(),
            key.registration_file(),
            key.role_file(d, c),
            role.cache_file(),
            login.cache_file(),
        ];
        assert_eq!(
            json!(ours),
            json!(expected.as_array().unwrap()[..5]),
            "{a:?} {b:?} {c:?} {d:?}"
        );
        // Python keeps the order of unknown keys, too; here they are sorted.
        let back: Json = serde_json::from_str(token.to_json().expose()).unwrap();
        assert_eq!(back, serde_json::from_str::<Json>(written).unwrap());
        assert!(token.to_json().expose().is_ascii());
    }
}

#[test]
fn no_bytes_in_a_cache_cause_a_panic() {
    const SEED: u64 = 0x5EED_CAFE;
    println!("seed {SEED:#x}");
    let mut random = Random::new(SEED);
    for _ in 0..5_000 {
        let mut bytes = TOKEN.as_bytes().to_vec();
        for _ in 0..1 + random.below(4) {
            let at = random.below(bytes.len().max(1));
            if bytes.is_empty() {
                continue;
            }
            match random.below(3) {
                0 => drop(bytes.remove(at)),
                1 => bytes[at] = u8::try_from(random.below(256)).unwrap(),
                _ => bytes.truncate(at.max(1)),
            }
        }
        if let Ok(token) = SsoToken::parse(&bytes) {
            let written = token.to_json();
            assert_eq!(SsoToken::parse(written.expose().as_bytes()), Ok(token));
        }
        _ = (
            Registration::parse(&bytes),
            CachedCredentials::parse(&bytes),
        );
        _ = (LoginToken::parse(&bytes), SsoAccess::parse(&bytes));
    }
}

/// Puts each file in a directory and reads it with botocore's own fetchers and loaders.
const BOTOCORE: &str = r#"
import json, os, sys, tempfile
import botocore.credentials as c, botocore.utils as u

def read(cache, role, sso, token, login):
    assumed = c.AssumeRoleCredentialFetcher(None, None, role.pop('RoleArn'), role, cache=cache)
    of_sso = c.SSOCredentialFetcher(cache=cache, client_creator=None, sso_region='eu-west-1', **sso)
    loaded = u.SSOTokenLoader(cache)(**token)
    return {
        'assumed': assumed.fetch_credentials(),
        'sso': of_sso.fetch_credentials(),
        'token': loaded,
        'login': u.generate_login_cache_key(login) + '.json',
    }

lines = [json.loads(line) for line in sys.stdin]
for line in lines:
    with tempfile.TemporaryDirectory() as directory:
        for name, text in line.pop('files').items():
            with open(os.path.join(directory, name), 'w') as file:
                file.write(text)
        print(json.dumps(read(u.JSONFileCache(directory), **line)))
"#;

#[test]
fn botocore_finds_and_reads_what_is_written() {
    const SEED: u64 = 0x5EED_B0CA;
    println!("seed {SEED:#x}");
    let mut random = Random::new(SEED);
    let pieces = [
        "a", "B", "7", "é", "\"", "\\", "/", ":", " ", "😀", "\u{7f}",
    ];
    let mut text = || -> String {
        let count = random.below(6);
        let text: String = (0..count).map(|_| random.pick(&pieces)).collect();
        format!("x{text}x")
    };
    let mut cases = Vec::new();
    for at in 0..300_i64 {
        let optional = |bit: i64, text: String| (at >> bit & 1 == 1).then_some(text);
        let role = Role {
            external_id: optional(0, text()).map(|text| setting(&text)),
            session_name: optional(1, text()).map(|text| setting(&text)),
            duration_seconds: (at >> 2 & 1 == 1).then_some(900 + at),
            mfa_serial: optional(3, text()).map(|text| setting(&text)),
            ..role(&text())
        };
        let session = optional(4, text());
        let (url, account, name, login) = (text(), text(), text(), text());
        let key = SsoCacheKey {
            session: session.as_deref(),
            start_url: &url,
            region: "eu-west-1",
            registration_scopes: None,
        };
        let keys = |provider_type: Option<&str>| CachedCredentials {
            provider_type: provider_type.map(str::to_owned),
            access_key_id: format!("ASIA{at}"),
            secret_access_key: SecretText::new(url.clone()),
            session_token: SecretText::new(name.clone()),
            expires_at: 4_070_908_800,
            account_id: Some(account.clone()),
            assumed_role: None,
        };
        let token = SsoToken::parse(TOKEN.as_bytes()).unwrap();
        let mut arguments = json!({"RoleArn": role.role_arn.as_str()});
        for (name, value) in [
            ("ExternalId", &role.external_id),
            ("RoleSessionName", &role.session_name),
            ("SerialNumber", &role.mfa_serial),
        ] {
            if let Some(value) = value {
                arguments[name] = value.as_str().into();
            }
        }
        if let Some(seconds) = role.duration_seconds {
            arguments["DurationSeconds"] = seconds.into();
        }
        let files = json!({
            role.cache_file(): keys(None).to_json().expose(),
            key.role_file(&account, &name): keys(Some("sso")).to_json().expose(),
            key.token_file(): token.to_json().expose(),
        });
        let line = json!({
            "files": files,
            "role": arguments,
            "sso": {"start_url": url, "role_name": name, "account_id": account,
                "sso_session_name": session},
            "token": {"start_url": url, "session_name": session},
            "login": login,
        });
        let read = |end: &str| {
            json!({"access_key": format!("ASIA{at}"), "secret_key": url, "token": name,
                "expiry_time": end, "account_id": account})
        };
        let session = LoginSession {
            profile: "dev".into(),
            session: setting(&login),
        };
        let expected = json!({
            "assumed": read("2099-01-01T00:00:00+00:00"),
            "sso": read("2099-01-01T00:00:00Z"),
            "token": serde_json::from_str::<Json>(TOKEN).unwrap(),
            "login": session.cache_file(),
        });
        cases.push((line.to_string(), expected));
    }
    let lines: Vec<String> = cases.iter().map(|(line, _)| line.clone()).collect();
    let import = "from botocore.utils import generate_login_cache_key, JSONFileCache";
    let Some(found) = python::run(import, BOTOCORE, &lines) else {
        return;
    };
    assert_eq!(found.len(), cases.len());
    for ((line, expected), found) in cases.iter().zip(&found) {
        assert_eq!(found, expected, "{line}");
    }
}
