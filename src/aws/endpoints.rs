//! Endpoints of Session Manager and other services, as set by the user.

use aws_config::SdkConfig;
use aws_types::service_config::ServiceConfigKey;
use url::Url;

use crate::aws::validation;
use crate::aws::validation::MalformedValue;

/// Environment variable of the AWS tools that sets the endpoint of all services; with the suffix
/// `_SERVICE`, that of one.
const VARIABLE: &str = "AWS_ENDPOINT_URL";
/// The corresponding key in a profile, or in the `services` section that it names.
const KEY: &str = "endpoint_url";
/// Gateway that carries the data channels. It has no API of its own in the SDKs; this name follows
/// their naming rule.
const GATEWAY: &str = "SSMMESSAGES";
/// Name of no service, so that only the endpoint set for all services is found.
const NONE: &str = "NO SUCH SERVICE";

/// Session Manager endpoints set in the environment or the profile. `Default` means that none is
/// set.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    /// Endpoints set for all services, for `SSM` and for `SSMMESSAGES`: hosts that a data channel
    /// may use although they are not AWS names.
    pub configured: Vec<Url>,
    /// Endpoint set for `SSMMESSAGES` in particular. It overrides the host that AWS names for a
    /// data channel, as a VPC endpoint without private DNS needs it.
    pub data_channel: Option<Url>,
    /// Only endpoints with validated cryptography may be used (`AWS_USE_FIPS_ENDPOINT`,
    /// `use_fips_endpoint`).
    pub fips: bool,
}

impl Endpoints {
    /// Reads the endpoints. URLs that do not parse are left out; [`check`] refuses them.
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

/// Services that pgiam calls, by their names in endpoint settings.
const SERVICES: [&str; 10] = [
    "EC2", "IAM", "KMS", "RDS", "SSM", GATEWAY, "SSO", "SSO OIDC", "STS", "Signin",
];

/// Checks the endpoints of all services.
///
/// # Errors
/// [`MalformedValue`] for an endpoint that is not a URL; the SDK panics on an empty one.
pub(super) fn check(config: &SdkConfig) -> Result<(), MalformedValue> {
    const SOURCE: &str = "the environment or the AWS configuration";
    for service in SERVICES {
        if let Some(url) = set_for(config, service) {
            validation::endpoint(&url, &format!("the endpoint URL of {service}"), SOURCE)?;
        }
    }
    Ok(())
}

/// Returns the endpoint of a service as the SDK finds it: the variable for the service, the
/// variable for all services, the key in the profile's `services` section, the profile's key for
/// all. `None` also when the user disables such settings (`AWS_IGNORE_CONFIGURED_ENDPOINT_URLS`).
pub(crate) fn set_for(config: &SdkConfig, service: &str) -> Option<String> {
    let key = ServiceConfigKey::builder()
        .service_id(service)
        .env(VARIABLE)
        .profile(KEY)
        .build()
        .ok()?;
    config.service_config()?.load_config(key)
}

/// Returns `true` if the endpoint was set for the gateway in particular. The SDK does not report
/// the source of a value. The endpoint counts as the gateway's if the variable is set, or if no
/// other service has the same value.
fn is_for_gateway(config: &SdkConfig, found: &str) -> bool {
    let variable = std::env::var(format!("{VARIABLE}_{GATEWAY}"));
    variable.is_ok_and(|value| value == found) || set_for(config, NONE).as_deref() != Some(found)
}
