//! The same against the sandbox's IAM Identity Center, which gives each refresh token once.

use std::path::Path;
use std::sync::Arc;

use protocol_tests::aws::sandbox::Sandbox;

use super::*;
use crate::aws::tests::stand_in::sandbox;
use crate::base::single_flight::system_clock;

const ACCOUNT: &str = "011122223333";

/// A sandbox with a login of the user, and the configuration for its services.
struct Center {
    sandbox: Sandbox,
    config: SdkConfig,
    home: TempDir,
    sso: Sso,
}

impl Center {
    async fn new() -> Self {
        let (sandbox, config) = sandbox().await;
        let center = sandbox.identity_center();
        center.add_account(ACCOUNT, "Production", "prod@example.com");
        assert!(center.assign(ACCOUNT, "Dev"));
        let this = Self {
            config,
            home: tempfile::tempdir().unwrap(),
            sso: Sso {
                start_url: setting(center.start_url()),
                region: setting("eu-central-1"),
                ..sso(Some("corp"))
            },
            sandbox,
        };
        this.log_in("2026-01-01T00:00:00Z");
        this
    }

    /// Writes the token of a new login, which ends at a date.
    fn log_in(&self, expires_at: &str) {
        let mut token = self.sandbox.identity_center().log_in().token_file();
        token["expiresAt"] = expires_at.into();
        let files = CacheFiles::below(self.home.path());
        std::fs::create_dir_all(files.dir(CacheDir::Sso)).unwrap();
        let path = files.path(CacheDir::Sso, &SsoCacheKey::from(&self.sso).token_file());
        std::fs::write(path, token.to_string()).unwrap();
    }

    fn portal(&self, home: &Path) -> SsoPortal {
        SsoPortal::new(self.config.clone(), CacheFiles::below(home), system_clock())
    }

    async fn ask(&self) -> Result<Credentials, &'static str> {
        let portal = self.portal(self.home.path());
        let asked = portal.credentials(&self.sso, CacheUse::Read).await;
        asked.map_err(|error| short(&error))
    }
}

#[tokio::test]
async fn a_login_lasts_until_the_service_ends_it() {
    let center = Center::new().await;
    let service = center.sandbox.identity_center();
    let keys = center.ask().await.unwrap();
    assert!(keys.access_key_id().starts_with("ASIA"));
    let portal = center.portal(center.home.path());
    let key = SsoCacheKey::from(&center.sso);
    let accounts = portal.accounts(&key).await.unwrap();
    let account = accounts
        .iter()
        .find(|account| account.id == ACCOUNT)
        .unwrap();
    assert_eq!(
        (&*account.name, &*account.email),
        ("Production", "prod@example.com")
    );
    assert_eq!(portal.roles(&key, ACCOUNT).await.unwrap(), ["Dev"]);
    assert!(service.unassign(ACCOUNT, "Dev"));
    assert_eq!(center.ask().await.unwrap_err(), "not assigned");
    assert!(service.assign(ACCOUNT, "Dev"));
    service.expire_access_tokens();
    assert_eq!(center.ask().await.unwrap_err(), "rejected");
    center.log_in("2026-01-01T00:00:00Z");
    service.end_logins();
    assert_eq!(center.ask().await.unwrap_err(), "expired: refused");
    center.log_in("2099-01-01T00:00:00Z");
    let token = portal.token(&key).await.unwrap();
    portal
        .end_session("eu-central-1", &token.access_token)
        .await
        .unwrap();
    assert_eq!(center.ask().await.unwrap_err(), "rejected");
}

/// Two processes have no lock in common: here they see the same file below different paths.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_refresh_one_token() {
    let center = Arc::new(Center::new().await);
    let links = tempfile::tempdir().unwrap();
    let other = links.path().join("home");
    std::os::unix::fs::symlink(center.home.path(), &other).unwrap();
    let homes = [center.home.path().to_owned(), other];
    for round in 0..8 {
        center.log_in("2026-01-01T00:00:00Z");
        let asks = homes.clone().map(|home| {
            let center = center.clone();
            tokio::spawn(async move {
                let asked = center.portal(&home);
                let asked = asked.credentials(&center.sso, CacheUse::Read).await;
                asked.map_err(|error| error.to_string())
            })
        });
        for ask in asks {
            let keys = ask.await.unwrap();
            assert!(keys.is_ok(), "round {round}: {keys:?}");
        }
    }
}
