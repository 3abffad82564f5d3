//! Homes that are prepared for RDS: libpq finds roots there that did not sign pgiam's certificate.

use std::path::PathBuf;

use rustls::version::{TLS12, TLS13};

use super::{SSL_REQUEST, Wire, certificate, told, trusting};
use crate::support::{PATIENCE, Ran, World, run};

/// A home directory with `~/.postgresql/root.crt`.
fn home_for_rds(world: &World) -> PathBuf {
    let home = world.sandbox.dir().join("home");
    let folder = home.join(".postgresql");
    std::fs::create_dir_all(&folder).expect("a home");
    let roots = world.sandbox.pki().ca_pem_path();
    std::fs::copy(roots, folder.join("root.crt")).expect("roots");
    home
}

async fn at_home(world: &World, sslmode: Option<&str>, conninfo: &str) -> Ran {
    let mut command = world.psql_command(&["-A", "-t", "-d", conninfo, "-c", "select 'alive'"]);
    command.env("HOME", home_for_rds(world));
    if let Some(sslmode) = sslmode {
        command.env("PGSSLMODE", sslmode);
    }
    run(command).await
}

#[tokio::test]
async fn a_client_that_does_not_trust_us_is_explained_in_the_log() {
    let world = World::start().await;
    let certificate = certificate(&world).display().to_string();
    for (known, (sslmode, conninfo)) in [
        (Some("verify-full"), ""),
        (Some("verify-ca"), ""),
        (None, "sslmode=verify-full"),
        // With roots at hand libpq verifies these, too.
        (None, "sslmode=require"),
    ]
    .into_iter()
    .enumerate()
    {
        let ran = at_home(&world, sslmode, conninfo).await;
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stderr.contains("certificate verify failed"), "{ran:?}");
        let line = told(&world, known).await;
        assert_eq!(line["id"], "client.tls", "{line}");
        let said = |field: &str| line[field].as_str().expect("text").to_owned();
        let reason = said("reason");
        assert!(
            reason.contains("does not trust pgiam's own TLS certificate"),
            "{line}"
        );
        let detail = said("detail");
        for cause in ["PGSSLMODE", "verify-full", "~/.postgresql/root.crt"] {
            assert!(detail.contains(cause), "{line}");
        }
        let hint = said("hint");
        let verified = format!("sslmode=verify-full sslrootcert={certificate}");
        assert!(hint.contains("PGSSLMODE=disable"), "{line}");
        assert!(hint.contains(&verified), "{line}");
        // What it says to type works.
        for (sslmode, conninfo) in [
            (Some("disable"), ""),
            (Some("verify-full"), "sslmode=disable"),
            (Some("verify-full"), &verified),
        ] {
            let ran = at_home(&world, sslmode, conninfo).await;
            assert_eq!(ran.rows(), "alive", "{sslmode:?} {conninfo}");
        }
    }
    world.stop().await;
}

/// libpq's default tries TLS first, and goes on without it when it does not trust the certificate.
#[tokio::test]
async fn such_a_home_does_not_keep_the_default_from_working() {
    let world = World::start().await;
    let ran = at_home(&world, None, "").await;
    assert_eq!((ran.rows(), ran.stderr.as_str()), ("alive", ""));
    let line = told(&world, 0).await;
    assert_eq!(
        (&line["id"], &line["level"]),
        (&"client.tls".into(), &"INFO".into())
    );
    world.stop().await;
}

/// Node.js verifies a certificate after the handshake, and closes without an alert.
#[tokio::test]
async fn a_client_that_closes_after_the_handshake_is_explained_too() {
    let world = World::start().await;
    for (known, version) in [&TLS12, &TLS13].into_iter().enumerate() {
        let mut wire = Wire::connect(&world).await;
        wire.send(SSL_REQUEST).await;
        assert_eq!(wire.byte().await, b'S');
        let wire = wire.tls(trusting(&world, &[], &[version])).await;
        drop(wire.expect("TLS"));
        let line = told(&world, known).await;
        assert_eq!(line["id"], "client.gone", "{line}");
        let (reason, hint) = (line["reason"].as_str(), line["hint"].as_str());
        assert!(
            reason.expect("text").contains("after the TLS handshake"),
            "{line}"
        );
        assert!(hint.expect("text").contains("sslrootcert=/"), "{line}");
    }
    assert!(
        world
            .proxy
            .wait_log("connection failed", PATIENCE)
            .await
            .is_some()
    );
    world.stop().await;
}
