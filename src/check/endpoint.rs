//! The endpoint step.

use super::{CheckError, CheckRun, StepOutcome};
use crate::base::names::Region;
use crate::config::{Auth, Endpoint, EndpointKind};
use crate::failure::connection::ConnectionError;
use crate::report;
use crate::tunnel::TunnelError;

impl CheckRun {
    /// Runs the endpoint step: looks up an identifier at RDS and follows a CNAME.
    pub(super) async fn endpoint(&mut self) -> Result<StepOutcome, CheckError> {
        let context = match self.served.context().await {
            Ok(context) => context,
            Err(ConnectionError::Config(error)) => return Err(error.into()),
            Err(ConnectionError::Setup(error)) => return Err(error.into()),
            Err(error) => return Ok(StepOutcome::failed(report::explain(&error, None))),
        };
        let endpoint = match context.endpoint().await {
            Ok(endpoint) => endpoint,
            Err(error) => return Ok(StepOutcome::failed(context.explain(&error))),
        };
        self.endpoint = Some(endpoint.clone());
        let region = self.region().await;
        if region.is_none() && context.target.settings.login.auth == Auth::Iam {
            let error = ConnectionError::Tunnel(TunnelError::NoRegion);
            return Ok(StepOutcome::failed(context.explain(&error)));
        }
        let said = describe(&context.target.endpoint, &endpoint, region.as_ref());
        Ok(StepOutcome::ok(said)
            .fact("host", endpoint.host.clone())
            .fact("port", endpoint.port)
            .fact("kind", kind(endpoint.kind()))
            .fact("region", region.as_deref())
            .fact(
                "db",
                self.config().rds_identifier().map(ToString::to_string),
            ))
    }
}

/// Describes the dialled endpoint, the endpoint behind a CNAME, its kind and its region.
fn describe(dialled: &Endpoint, real: &Endpoint, region: Option<&Region>) -> String {
    let alias = match dialled.host == real.host {
        true => String::new(),
        false => format!("{} → ", dialled.host),
    };
    let mut said = format!("{alias}{real}");
    let words = match real.kind() {
        EndpointKind::Instance => Some("an instance"),
        EndpointKind::Cluster => Some("a cluster's writer"),
        EndpointKind::Reader => Some("a cluster's readers"),
        EndpointKind::Custom => Some("a custom endpoint"),
        EndpointKind::Proxy => Some("an RDS Proxy"),
        EndpointKind::Dsql => Some("Aurora DSQL"),
        EndpointKind::Other => None,
    };
    for part in words.into_iter().chain(region.map(Region::as_str)) {
        said = format!("{said}, {part}");
    }
    said
}

fn kind(kind: EndpointKind) -> &'static str {
    match kind {
        EndpointKind::Instance => "instance",
        EndpointKind::Cluster => "cluster",
        EndpointKind::Reader => "reader",
        EndpointKind::Custom => "custom",
        EndpointKind::Proxy => "proxy",
        EndpointKind::Dsql => "dsql",
        EndpointKind::Other => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_shown_with_what_it_stands_for() {
        let endpoint = |text: &str| text.parse::<Endpoint>().unwrap();
        let real = endpoint("orders.cluster-ro-abc.eu-central-1.rds.amazonaws.com");
        assert_eq!(
            describe(&real, &real, Some(&"eu-central-1".into())),
            "orders.cluster-ro-abc.eu-central-1.rds.amazonaws.com:5432, a cluster's readers, eu-central-1"
        );
        let alias = endpoint("db.corp.example");
        assert_eq!(
            describe(&alias, &real, None),
            "db.corp.example → orders.cluster-ro-abc.eu-central-1.rds.amazonaws.com:5432, a cluster's readers"
        );
        assert_eq!(describe(&alias, &alias, None), "db.corp.example:5432");
    }
}
