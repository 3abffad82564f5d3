//! Tokens made by botocore, whole and damaged.

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Vectors {
    amz_date: String,
    access_key_id: String,
    secret_access_key: String,
    tokens: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    user: String,
    host: String,
    port: u16,
    region: String,
    session_token: Option<String>,
    token: String,
}

impl Vector {
    fn endpoint(&self) -> DbEndpoint {
        DbEndpoint {
            host: self.host.clone(),
            port: self.port,
            region: self.region.clone(),
        }
    }
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../../../vectors/db-tokens.json")).unwrap()
}

/// The vectors, the index of one of them, and the identity service that knows its signer.
fn setup(name: &str) -> (Iam, Vector, SystemTime) {
    let vectors = vectors();
    let vector = vectors.tokens.into_iter().find(|v| v.name == name).unwrap();
    let iam = Iam::new(&vector.region, "123456789012");
    iam.add(User {
        access_key_id: vectors.access_key_id,
        secret_access_key: vectors.secret_access_key,
        session_token: vector.session_token.clone(),
        ..User::example("dev", "123456789012")
    });
    (
        iam,
        vector,
        sigv4::parse_amz_date(&vectors.amz_date).unwrap(),
    )
}

#[test]
fn botocore_tokens_are_accepted() {
    for name in vectors().tokens.into_iter().map(|v| v.name) {
        let (iam, vector, now) = setup(&name);
        let user = iam
            .verify_db_token(&vector.token, &vector.endpoint(), &vector.user, now)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(user.name, "dev");
    }
}

#[test]
fn every_changed_character_is_noticed() {
    let (iam, vector, now) = setup("session token");
    let db = vector.endpoint();
    for at in 0..vector.token.len() {
        let mut bytes = vector.token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'b' { b'c' } else { b'b' };
        let altered = String::from_utf8(bytes).unwrap();
        let percent_case = vector.token.as_bytes()[at - at.min(2)..at].contains(&b'%')
            && vector.token.as_bytes()[at] == b'B';
        let outcome = iam.verify_db_token(&altered, &db, &vector.user, now);
        // "%2B" and "%2b" are the same text to everybody, so they are the same token.
        assert_eq!(outcome.is_ok(), percent_case, "at {at}: {outcome:?}");
    }
}

#[test]
fn every_truncation_is_noticed() {
    let (iam, vector, now) = setup("session token");
    for length in 0..vector.token.len() {
        let cut = &vector.token[..length];
        assert!(
            iam.verify_db_token(cut, &vector.endpoint(), &vector.user, now)
                .is_err(),
            "first {length} bytes"
        );
    }
}

#[test]
fn the_purpose_must_fit() {
    let (iam, vector, now) = setup("plain");
    let judge = |db: DbEndpoint, user: &str| {
        iam.verify_db_token(&vector.token, &db, user, now)
            .unwrap_err()
            .to_string()
    };
    let mut db = vector.endpoint();
    db.host = "other.rds.amazonaws.com".to_owned();
    assert_says(&judge(db, "db_user"), "token is for host");
    let mut db = vector.endpoint();
    db.port = 5433;
    assert_says(&judge(db, "db_user"), "token is for port \"5432\"");
    let mut db = vector.endpoint();
    db.region = "us-east-1".to_owned();
    assert_says(&judge(db, "db_user"), "signed for region \"eu-central-1\"");
    assert_says(&judge(vector.endpoint(), "boss"), "for database user");
    for (from, to, expected) in [
        ("Action=connect", "Action=drop", "action \"drop\""),
        ("rds-db", "rds", "service \"rds\""),
        ("%2F20260301%2F", "%2F20260302%2F", "different days"),
        ("Expires=900", "Expires=901", "901 s of life"),
        ("Expires=900", "Expires=0", "0 s of life"),
        ("Expires=900", "Expires=x", "not a number"),
        ("Expires=900", "Expires=800", "signature does not match"),
        ("AKIA", "AKIB", "unknown"),
        ("=host", "=host%3Bx-a", "exactly the host"),
        ("&X-Amz-Expires", "&A=b&X-Amz-Expires", "unknown parameter"),
        ("Action=", "Action=connect&Action=", "twice"),
        ("HMAC-SHA256", "HMAC-SHA1", "algorithm"),
        ("orders.", "https://orders.", "scheme"),
    ] {
        let altered = vector.token.replace(from, to);
        let error = iam
            .verify_db_token(&altered, &vector.endpoint(), "db_user", now)
            .unwrap_err();
        assert_says(&error.to_string(), expected);
    }
}

fn assert_says(text: &str, expected: &str) {
    assert!(text.contains(expected), "{text:?} lacks {expected:?}");
}

#[test]
fn tokens_live_for_fifteen_minutes() {
    let (iam, vector, made) = setup("plain");
    let judge = |now| iam.verify_db_token(&vector.token, &vector.endpoint(), "db_user", now);
    let second = Duration::from_secs(1);
    judge(made + 900 * second).expect("the last second counts");
    assert_eq!(
        judge(made + 901 * second).unwrap_err(),
        TokenRefusal::Expired(1)
    );
    judge(made - 900 * second).expect("a clock may be a quarter of an hour fast");
    assert_eq!(
        judge(made - 901 * second).unwrap_err(),
        TokenRefusal::NotYetValid(901)
    );
}

#[test]
fn session_tokens_and_credentials_are_checked() {
    let (iam, vector, now) = setup("session token");
    let db = vector.endpoint();
    let judge = || {
        iam.verify_db_token(&vector.token, &db, "db_user", now)
            .unwrap_err()
    };
    let key = "AKIAIOSFODNN7EXAMPLE";
    iam.update(key, |u| u.expires = Some(now));
    assert_eq!(judge(), TokenRefusal::CredentialsExpired);
    iam.update(key, |u| {
        u.expires = None;
        u.db_users = vec!["other".to_owned()];
    });
    assert!(matches!(judge(), TokenRefusal::NotAuthorized { .. }));
    iam.update(key, |u| u.session_token = Some("renewed".to_owned()));
    assert_eq!(judge(), TokenRefusal::SessionTokenWrong);
    iam.update(key, |u| u.session_token = None);
    assert_eq!(judge(), TokenRefusal::SessionTokenWrong);
    let (iam, plain, now) = setup("plain");
    iam.update(key, |u| u.session_token = Some("needed".to_owned()));
    assert_eq!(
        iam.verify_db_token(&plain.token, &plain.endpoint(), "db_user", now)
            .unwrap_err(),
        TokenRefusal::SessionTokenMissing
    );
    iam.remove(key);
    assert_eq!(
        iam.verify_db_token(&plain.token, &plain.endpoint(), "db_user", now)
            .unwrap_err(),
        TokenRefusal::UnknownKey(key.to_owned())
    );
}

/// `generate_db_connect_admin_auth_token` and `generate_db_connect_auth_token` of botocore 1.43.11,
/// the parameter names shortened to their last words.
const DSQL: [&str; 2] = [
    "Action=DbConnectAdmin&~Algorithm=AWS4-HMAC-SHA256&~Credential=AKIAIOSFODNN7EXAMPLE%2F20261123\
     %2Feu-central-1%2Fdsql%2Faws4_request&~Date=20261123T170509Z&~Expires=900\
     &~SignedHeaders=host\
     &~Signature=9abaa943092eef5e011884f397999037c5fb6255d58ce4868f542617e1964564",
    "Action=DbConnect&~Algorithm=AWS4-HMAC-SHA256&~Credential=AKIAIOSFODNN7EXAMPLE%2F20261123\
     %2Feu-central-1%2Fdsql%2Faws4_request&~Date=20261123T170509Z&~Expires=900\
     &~SignedHeaders=host&~Security-Token=IQoJ%2B%2Fabc%3D%3D\
     &~Signature=35ba71cc72b2c4c8932ae25a6b98d96287b3f2f3f97afc16899697ab89d29ab5",
];

#[test]
fn tokens_for_dsql_name_a_cluster_and_an_action() {
    let host = "abc123.dsql.eu-central-1.on.aws";
    let [admin, custom] = DSQL.map(|query| format!("{host}/?{}", query.replace('~', "X-Amz-")));
    let db = DbEndpoint {
        host: host.to_owned(),
        port: 5432,
        region: "eu-central-1".to_owned(),
    };
    let now = sigv4::parse_amz_date("20261123T170600Z").unwrap();
    let iam = Iam::new("eu-central-1", "123456789012");
    let key = "AKIAIOSFODNN7EXAMPLE";
    iam.add(User::example("dev", "123456789012"));
    let judge = |token: &str, role: &str| {
        let verdict = iam.verify_dsql_token(token, &db, role, now);
        verdict.map(|_| ()).map_err(|refusal| refusal.to_string())
    };
    judge(&admin, "admin").unwrap();
    let refused = judge(&admin, "app").unwrap_err();
    assert_says(&refused, "action \"DbConnectAdmin\", not \"DbConnect\"");
    iam.update(key, |u| u.session_token = Some("IQoJ+/abc==".to_owned()));
    judge(&custom, "app").unwrap();
    assert_says(
        &judge(&custom, "admin").unwrap_err(),
        "action \"DbConnect\"",
    );
    assert_says(
        &judge(&admin, "admin").unwrap_err(),
        "session token is missing",
    );
    for (from, to, expected) in [
        ("/?", ":5432/?", "a port"),
        (
            "Expires=900",
            "Expires=604801",
            "604801 s of life, not for 1 to 604800",
        ),
        ("Expires=900", "Expires=604800", "signature does not match"),
        ("dsql%2F", "rds-db%2F", "service \"rds-db\", not \"dsql\""),
        ("abc123", "abc124", "for host"),
        ("Action=", "DBUser=app&Action=", "unknown parameter"),
    ] {
        assert_says(
            &judge(&custom.replace(from, to), "app").unwrap_err(),
            expected,
        );
    }
    let rds = iam.verify_db_token(&admin, &db, "admin", now).unwrap_err();
    assert_says(&rds.to_string(), "no port");
    // Its own action is all that `admin` needs; other roles need an association too.
    iam.update(key, |u| u.db_users.clear());
    assert_says(
        &judge(&custom, "app").unwrap_err(),
        "not associated with the role \"app\"",
    );
    iam.update(key, |u| {
        u.deny.insert("dsql:DbConnect".to_owned());
        u.db_users = vec!["app".to_owned()];
    });
    assert_says(
        &judge(&custom, "app").unwrap_err(),
        "may not dsql:DbConnect as \"app\"",
    );
}
