//! What the user's settings say about where Session Manager, and other services, are.

use aws_config::SdkConfig;
use aws_types::service_config::ServiceConfigKey;
use url::Url;

use super::valid::{self, Malformed};

/// The variable of the AWS tools for all services; with `_SERVICE` behind it, for one.
const VARIABLE: &str = "AWS_ENDPOINT_URL";
/// The same in a profile, or in the `services` section that it names.
const KEY: &str = "endpoint_url";
/// The gateway that carries the data channels. It has no API of its own in the SDKs, so this name
/// follows their rule without being one of theirs.
const GATEWAY: &str = "SSMMESSAGES";
/// No service, so that only what is set for all of them is found.
const NONE: &str = "NO SUCH SERVICE";

/// Where the user says Session Manager is, by environment or profile. `Default` is: nothing said.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    /// The endpoints set for all services, for `SSM`, for `SSMMESSAGES`: hosts that a data channel
    /// may be on although they are not AWS names.
    pub configured: Vec<Url>,
    /// The endpoint set for `SSMMESSAGES` in particular. Data channels go there whatever host AWS
    /// names; that is what a VPC endpoint without private DNS needs.
    pub data_channel: Option<Url>,
    /// Only endpoints with validated cryptography may be used (`AWS_USE_FIPS_ENDPOINT`,
    /// `use_fips_endpoint`).
    pub fips: bool,
}

impl Endpoints {
    /// Addresses that do not parse are left out; [`check`] refuses them.
    pub(super) fn of(config: &SdkConfig) -> Self {
        let for_all = config.endpoint_url().map(str::to_owned);
        let for_ssm = set_for(config, "SSM");
        let for_gateway = set_for(config, GATEWAY);
        let parsed = |text: &String| Url::parse(text).ok();
        let data_channel = for_gateway
            .as_ref()
            .filter(|found| is_for_gateway(config, found))
            .and_then(parsed);
        let configured = [for_all, for_ssm, for_gateway];
        Self {
            configured: configured.iter().flatten().filter_map(parsed).collect(),
            data_channel,
            fips: config.use_fips().unwrap_or_default(),
        }
    }
}

/// The services that are asked, as their endpoints are set.
const SERVICES: [&str; 9] = [
    "EC2", "IAM", "KMS", "RDS", "SSM", GATEWAY, "SSO", "SSO OIDC", "STS",
];

/// Checks the endpoints of all services.
///
/// # Errors
/// [`Malformed`] for an endpoint that is no URL; the SDK panics on an empty one.
pub(super) fn check(config: &SdkConfig) -> Result<(), Malformed> {
    const SOURCE: &str = "the environment or the AWS configuration";
    for service in SERVICES {
        if let Some(url) = set_for(config, service) {
            valid::endpoint(&url, &format!("the endpoint URL of {service}"), SOURCE)?;
        }
    }
    Ok(())
}

/// The endpoint of a service as the SDK finds it: its own variable, the one for all services, its
/// own key in the profile's `services` section, the profile's key for all. `None` also when the user
/// wants such settings ignored (`AWS_IGNORE_CONFIGURED_ENDPOINT_URLS`).
pub(super) fn set_for(config: &SdkConfig, service: &str) -> Option<String> {
    let key = ServiceConfigKey::builder()
        .service_id(service)
        .env(VARIABLE)
        .profile(KEY)
        .build()
        .ok()?;
    config.service_config()?.load_config(key)
}

/// Whether the gateway's endpoint was set for it, and not for all services. The SDK does not say
/// where it has found a value, so: it is in the variable, or no other service gets the same.
fn is_for_gateway(config: &SdkConfig, found: &str) -> bool {
    let variable = std::env::var(format!("{VARIABLE}_{GATEWAY}"));
    variable.is_ok_and(|value| value == found) || set_for(config, NONE).as_deref() != Some(found)
}
