use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

use super::*;

const CERTIFICATE_HASH: &[u8; 32] = b"the hash of a certificate, 32 by";

fn verifier(password: &str) -> Arc<ScramVerifier> {
    Arc::new(ScramVerifier::new(password, [3; SALT]))
}

fn bound() -> Option<Bytes> {
    Some(Bytes::from_static(CERTIFICATE_HASH))
}

fn hash(bytes: &[u8]) -> ChannelBinding {
    ChannelBinding::tls_server_end_point(bytes.to_vec())
}

/// Logs in with the client of another implementation.
fn log_in(
    exchange: &mut ScramExchange,
    mechanism: &str,
    password: &str,
    binding: ChannelBinding,
) -> Result<(), ScramError> {
    let mut client = ScramSha256::new(password.as_bytes(), binding);
    let challenge = exchange.first(mechanism, client.message(), [7; NONCE])?;
    client.update(&challenge).unwrap();
    let answer = exchange.last(client.message())?;
    client.finish(&answer).expect("the client knows us");
    Ok(())
}

#[test]
fn the_example_of_rfc_7677() {
    let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    let verifier = ScramVerifier::new("pencil", salt.try_into().unwrap());
    let mut exchange = ScramExchange::new(Arc::new(verifier), None);
    let challenge = exchange
        .challenge(
            SCRAM_SHA_256,
            b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        )
        .unwrap();
    assert_eq!(
        str::from_utf8(&challenge).unwrap(),
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    );
    let answer = exchange
        .last(
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
              p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        )
        .unwrap();
    assert_eq!(
        str::from_utf8(&answer).unwrap(),
        "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    );
}

#[test]
fn a_strange_client_logs_in() {
    for password in ["hunter2", "größe", "\u{ad}ⅨX", "\u{1f600}é"] {
        let verifier = verifier(password);
        let exchange = |binding| ScramExchange::new(Arc::clone(&verifier), binding);
        let log_in = |mut exchange: ScramExchange, mechanism, binding| {
            log_in(&mut exchange, mechanism, password, binding)
        };
        let without = ChannelBinding::unsupported();
        assert_eq!(log_in(exchange(None), SCRAM_SHA_256, without), Ok(()));
        let unaware = ChannelBinding::unrequested();
        assert_eq!(log_in(exchange(None), SCRAM_SHA_256, unaware), Ok(()));
        let without = ChannelBinding::unsupported();
        assert_eq!(log_in(exchange(bound()), SCRAM_SHA_256, without), Ok(()));
        let binds = hash(CERTIFICATE_HASH);
        assert_eq!(log_in(exchange(bound()), SCRAM_SHA_256_PLUS, binds), Ok(()));
    }
}

#[test]
fn a_wrong_password_is_just_that() {
    for wrong in ["", "hunter3", "Hunter2", "hunter2 "] {
        for (mechanism, binding) in [
            (SCRAM_SHA_256, ChannelBinding::unsupported()),
            (SCRAM_SHA_256_PLUS, hash(CERTIFICATE_HASH)),
        ] {
            let mut exchange = ScramExchange::new(verifier("hunter2"), bound());
            assert_eq!(
                log_in(&mut exchange, mechanism, wrong, binding),
                Err(ScramError::WrongPassword)
            );
        }
    }
}

#[test]
fn binding_is_offered_only_where_there_is_something_to_bind_to() {
    let with = ScramExchange::new(verifier("x"), bound());
    assert_eq!(with.mechanisms(), ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]);
    let mut without = ScramExchange::new(verifier("x"), None);
    assert_eq!(without.mechanisms(), ["SCRAM-SHA-256"]);
    let binds = hash(CERTIFICATE_HASH);
    assert_eq!(
        log_in(&mut without, SCRAM_SHA_256_PLUS, "x", binds),
        Err(ScramError::Mechanism)
    );
    for unknown in ["", "scram-sha-256", "SCRAM-SHA-1", "OAUTHBEARER", "PLAIN"] {
        let mut exchange = ScramExchange::new(verifier("x"), bound());
        assert_eq!(
            exchange.first(unknown, b"n,,n=,r=abc", [7; NONCE]),
            Err(ScramError::Mechanism)
        );
    }
}

#[test]
fn somebody_in_between_is_noticed() {
    // A man in the middle that ends TLS shows another certificate.
    let mut exchange = ScramExchange::new(verifier("x"), bound());
    assert_eq!(
        log_in(&mut exchange, SCRAM_SHA_256_PLUS, "x", hash(&[7; 32])),
        Err(ScramError::Binding)
    );
    // A man in the middle that removes the offer makes the client believe that the server cannot
    // bind.
    let mut exchange = ScramExchange::new(verifier("x"), bound());
    let unaware = ChannelBinding::unrequested();
    assert_eq!(
        log_in(&mut exchange, SCRAM_SHA_256, "x", unaware),
        Err(ScramError::Downgrade)
    );
}

#[test]
fn mechanism_and_message_must_agree() {
    for (mechanism, message) in [
        (SCRAM_SHA_256_PLUS, "n,,n=,r=abc"),
        (SCRAM_SHA_256_PLUS, "y,,n=,r=abc"),
        (SCRAM_SHA_256, "p=tls-server-end-point,,n=,r=abc"),
    ] {
        let mut exchange = ScramExchange::new(verifier("x"), bound());
        assert_eq!(
            exchange.first(mechanism, message.as_bytes(), [7; NONCE]),
            Err(ScramError::BindingMismatch),
            "{message}"
        );
    }
}

fn first(message: &[u8]) -> Result<Vec<u8>, ScramError> {
    let mechanism = match message.first() {
        Some(b'p') => SCRAM_SHA_256_PLUS,
        _ => SCRAM_SHA_256,
    };
    ScramExchange::new(verifier("x"), bound()).first(mechanism, message, [7; NONCE])
}

#[test]
fn first_messages_as_postgresql_takes_them() {
    for good in [
        "n,,n=,r=abc",
        "n,,n=anybody,r=abc",
        "n,,n=\u{fc}=2C,r=!+-~",
        "n,,n=,r=abc,x=ignored,Y=,z=",
        "p=tls-server-end-point,,n=,r=abc",
    ] {
        let answer = String::from_utf8(first(good.as_bytes()).unwrap()).unwrap();
        let nonce = answer.split(',').next().unwrap();
        assert!(nonce.len() > 24 + 2, "our part is there: {answer}");
        assert!(answer.ends_with(",i=4096"), "{answer}");
    }
    let too_long = format!("n,,n=,r={}", "a".repeat(LONGEST_MESSAGE));
    for malformed in [
        "",
        "x,,n=,r=abc",
        "n",
        "n,",
        "n,,",
        "n;,n=,r=abc",
        "n,,r=abc",
        "n,,n=",
        "n,,n,r=abc",
        "n,,n=,r=",
        "n,,n=,r=a b",
        "n,,n=,r=\u{fc}",
        "n,,n=,r=abc,1=x",
        "n,,n=,r=abc,x",
        "n,,n=,r=abc,,",
        "n,b=x,n=,r=abc",
        "n,,n=,r=abc\0",
        "p=tls-server-end-point",
        "p=tls-server-end-point,",
        &too_long,
    ] {
        let error = first(malformed.as_bytes()).unwrap_err();
        assert!(
            matches!(error, ScramError::Malformed(_)),
            "{malformed:?}: {error:?}"
        );
    }
    for unsupported in ["n,a=other,n=,r=abc", "n,,m=x,n=,r=abc", "n,,n=,r=abc,m=x"] {
        let error = first(unsupported.as_bytes()).unwrap_err();
        assert!(matches!(error, ScramError::Unsupported(_)), "{error:?}");
    }
    for other in ["p=tls-unique,,n=,r=abc", "p=,,n=,r=abc", "p=tls-exporter"] {
        assert_eq!(first(other.as_bytes()), Err(ScramError::BindingType));
    }
}

/// Returns an exchange after its challenge, and the client's final message.
fn challenged(mechanism: &str, binding: ChannelBinding) -> (ScramExchange, Vec<u8>) {
    let mut exchange = ScramExchange::new(verifier("x"), bound());
    let mut client = ScramSha256::new(b"x", binding);
    let challenge = exchange
        .first(mechanism, client.message(), [7; NONCE])
        .unwrap();
    client.update(&challenge).unwrap();
    let message = client.message().to_vec();
    (exchange, message)
}

/// Returns the result of the final message when it arrives changed.
fn last(change: impl FnOnce(&str) -> String) -> Result<Vec<u8>, ScramError> {
    let (mut exchange, message) = challenged(SCRAM_SHA_256, ChannelBinding::unsupported());
    exchange.last(change(str::from_utf8(&message).unwrap()).as_bytes())
}

#[test]
fn final_messages_as_postgresql_takes_them() {
    assert!(last(str::to_owned).is_ok());
    let malformed = |change: &dyn Fn(&str) -> String| {
        let error = last(change).unwrap_err();
        assert!(matches!(error, ScramError::Malformed(_)), "{error:?}");
    };
    malformed(&|_| String::new());
    malformed(&|m| m.replacen("c=", "d=", 1));
    malformed(&|m| m.replacen("c=biws,", "", 1));
    malformed(&|m| m.replacen("c=biws", "c=", 1));
    malformed(&|m| m.replacen("biws", "eSws", 1));
    malformed(&|m| m.replacen("biws", "cD10bHMtc2VydmVyLWVuZC1wb2ludCws", 1));
    malformed(&|m| m.replacen(",p=", ",q=", 1));
    malformed(&|m| m.replacen(",p=", ",p=AA==", 1));
    malformed(&|m| m.replacen(",p=", ",p=*", 1));
    malformed(&|m| format!("{m},x=y"));
    malformed(&|m| format!("{m}\0"));
    malformed(&|m| format!("{m},{}", "x".repeat(LONGEST_MESSAGE)));
    assert_eq!(
        last(|m| m.replacen(",r=", ",r=a", 1)),
        Err(ScramError::Nonce)
    );
    assert_eq!(
        last(|m| m.replacen(",p=", "a,p=", 1)),
        Err(ScramError::Nonce)
    );
    assert_eq!(
        last(|m| format!("{},p={}", &m[..m.find(",r=").unwrap() + 3], "A")),
        Err(ScramError::Malformed("the proof is not 32 bytes in base64"))
    );
    // An extension is ignored, but signed: this one was added in transit.
    assert_eq!(
        last(|m| m.replacen(",p=", ",x=y,p=", 1)),
        Err(ScramError::WrongPassword)
    );
    assert_eq!(
        last(|m| m.replacen(",p=", ",m=y,p=", 1)),
        Err(ScramError::Unsupported("a mandatory extension of SCRAM"))
    );
    let no_proof = format!(",p={}", STANDARD.encode([0; KEY]));
    assert_eq!(
        last(|m| format!("{}{no_proof}", &m[..m.find(",p=").unwrap()])),
        Err(ScramError::WrongPassword)
    );
}

/// A client's two messages, and the means to repeat the exchange in which the second is valid.
struct Recorded {
    verifier: Arc<ScramVerifier>,
    mechanism: &'static str,
    first: Vec<u8>,
    last: Vec<u8>,
}

impl Recorded {
    fn both() -> [Self; 2] {
        [
            Self::new(SCRAM_SHA_256, ChannelBinding::unsupported()),
            Self::new(SCRAM_SHA_256_PLUS, hash(CERTIFICATE_HASH)),
        ]
    }

    fn new(mechanism: &'static str, binding: ChannelBinding) -> Self {
        let mut client = ScramSha256::new(b"x", binding);
        let mut recorded = Self {
            verifier: verifier("x"),
            mechanism,
            first: client.message().to_vec(),
            last: Vec::new(),
        };
        let (_, challenge) = recorded.challenged(&recorded.first);
        client.update(&challenge.unwrap()).unwrap();
        recorded.last = client.message().to_vec();
        recorded
    }

    fn challenged(&self, first: &[u8]) -> (ScramExchange, Result<Vec<u8>, ScramError>) {
        let mut exchange = ScramExchange::new(Arc::clone(&self.verifier), bound());
        let challenge = exchange.challenge(self.mechanism, first, "server");
        (exchange, challenge)
    }

    fn last(&self, last: &[u8]) -> Result<Vec<u8>, ScramError> {
        let (mut exchange, challenge) = self.challenged(&self.first);
        challenge.unwrap();
        exchange.last(last)
    }
}

#[test]
fn truncated_anywhere_is_an_error_and_no_panic() {
    for client in Recorded::both() {
        client.last(&client.last).unwrap();
        for end in 0..client.last.len() {
            client.last(&client.last[..end]).unwrap_err();
        }
        // A nonce may have any length: up to its first character.
        let nonce = client
            .first
            .windows(2)
            .position(|two| two == b"r=")
            .unwrap()
            + 2;
        for end in 0..=nonce {
            client.challenged(&client.first[..end]).1.unwrap_err();
        }
    }
}

#[test]
fn every_changed_bit_of_the_response_is_noticed() {
    for client in Recorded::both() {
        for at in 0..client.last.len() {
            for bit in 0..8 {
                let mut message = client.last.clone();
                message[at] ^= 1 << bit;
                client.last(&message).unwrap_err();
            }
        }
    }
}

/// Verifiers of PostgreSQL 15 (`rolpassword` in `pg_authid`), made by it.
#[test]
fn a_password_becomes_what_postgresql_makes_of_it() {
    for (password, kept) in [
        (
            "hunter2",
            "SCRAM-SHA-256$4096:J5jDNJnLmmyz7e0km76csg==$VMiFuKQkmCud9vqBR3Akvq/n4d6xNIZLhNPA5DLggqs=:U4zvWpUa86u9DzBfuFqsUy6SetIi8cYlUgzbKj3GoMA=",
        ),
        (
            "gr\u{f6}\u{df}e \u{2168}\u{ad}",
            "SCRAM-SHA-256$4096:9wkt9+24Q92hh+WnL5x4OA==$NFmcxtt1tg7EakdhsAJI7g2vvGvuPyNTPUuXcCTF/yo=:S4MUlZ6A2rwcTjI7UjSGm91D9Si3nlVMmwXxnnWCVh8=",
        ),
        // Prohibited before normalisation, and not after it.
        (
            "\u{340}\u{fc}",
            "SCRAM-SHA-256$4096:DCCpB0jXrD4kkxrSqFp+tA==$7SRtdeus46qqA6OAdrt5KQ43B+Tv+e3ObXG3jwg56MY=:cFRcy4kv0sR++5BdstGkUiS6Q4FzoB9r8eEwdI8zPfc=",
        ),
        // The reverse: the alef becomes a right-to-left letter only then.
        (
            "\u{2135}a",
            "SCRAM-SHA-256$4096:BxpnK//RNgcAJ3kGqSeQTg==$OgJj3aUi6ptIHWUywiy0pAsY5pG7lEGlbxYacwnGFiU=:9nns14lk9aGP4hR19OhqntR4ZJtsTI/0KM0ix5CcXug=",
        ),
    ] {
        let fields: Vec<Vec<u8>> = kept
            .split(['$', ':'])
            .skip(2)
            .map(|field| STANDARD.decode(field).unwrap())
            .collect();
        let verifier = ScramVerifier::new(password, fields[0].clone().try_into().unwrap());
        assert_eq!(verifier.stored_key.as_slice(), fields[1], "{password:?}");
        assert_eq!(verifier.server_key.as_slice(), fields[2], "{password:?}");
    }
}

#[test]
fn garbage_is_an_error_and_no_panic() {
    // Every string of up to three significant bytes, after each beginning.
    let bytes = b"npyamrcx=,\0\xff/";
    let mut tails: Vec<Vec<u8>> = vec![Vec::new()];
    for _ in 0..3 {
        let longer: Vec<_> = tails
            .iter()
            .flat_map(|tail| bytes.iter().map(|byte| [tail, [*byte].as_slice()].concat()))
            .collect();
        tails.extend(longer);
    }
    for start in ["", "n,,", "n,,n=", "p=tls-server-end-point", "c=biws,r="] {
        for tail in &tails {
            let message = [start.as_bytes(), tail].concat();
            let _ = message::first(&message);
            assert!(message::last(&message).is_err());
        }
    }
}

#[test]
fn errors_and_ends_last() {
    let (mut exchange, good) = challenged(SCRAM_SHA_256, ChannelBinding::unsupported());
    assert_eq!(exchange.last(b"c=biws,r=other,p="), exchange.last(&good));
    exchange.last(&good).unwrap_err();
    exchange
        .first(SCRAM_SHA_256, b"n,,n=,r=abc", [7; NONCE])
        .unwrap_err();

    let (mut exchange, good) = challenged(SCRAM_SHA_256, ChannelBinding::unsupported());
    exchange.last(&good).unwrap();
    assert_eq!(exchange.last(&good), Err(ScramError::OutOfOrder));
    let mut exchange = ScramExchange::new(verifier("x"), None);
    assert_eq!(exchange.last(&good), Err(ScramError::OutOfOrder));
    let again = exchange.first(SCRAM_SHA_256, b"n,,n=,r=abc", [7; NONCE]);
    assert_eq!(again, Err(ScramError::OutOfOrder));
    let (mut exchange, _) = challenged(SCRAM_SHA_256, ChannelBinding::unsupported());
    let again = exchange.first(SCRAM_SHA_256, b"n,,n=,r=abc", [7; NONCE]);
    assert_eq!(again, Err(ScramError::OutOfOrder));
}

#[test]
fn salts_and_nonces_differ_and_nothing_shows() {
    let (one, other) = (
        verifier("hunter2"),
        Arc::new(ScramVerifier::new("hunter2", [4; SALT])),
    );
    assert_ne!(one.salt, other.salt);
    assert_ne!(one.stored_key, other.stored_key);
    let challenge = |nonce| {
        ScramExchange::new(Arc::clone(&one), None).first(
            SCRAM_SHA_256,
            b"n,,n=,r=abc",
            [nonce; NONCE],
        )
    };
    assert_ne!(challenge(7), challenge(8));
    assert_eq!(format!("{one:?}"), "ScramVerifier { .. }");
    assert_eq!(
        format!("{:?}", ScramExchange::new(one, bound())),
        "ScramExchange { state: \"Start\", .. }"
    );
}
