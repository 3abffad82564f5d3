//! Session documents: what they are called, who owns them, and what they make of their parameters.

use std::collections::HashMap;

use super::ApiError;
use crate::aws::iam::Iam;
use crate::aws::session::PortParameters;

/// Forwards to a host beyond the node; agents from 3.1.1374.0 on know it.
pub(super) const REMOTE_HOST: &str = "AWS-StartPortForwardingSessionToRemoteHost";
/// Forwards to the node itself.
pub(super) const LOCAL_PORT: &str = "AWS-StartPortForwardingSession";

/// A document of the account's own, of session type `Port` with local port forwarding. What it does
/// not fix is a parameter: `host`, `portNumber`, and always `localPortNumber`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionDocument {
    /// Where every session of this document goes.
    pub host: Option<String>,
    /// The port every session of this document goes to.
    pub port: Option<u16>,
}

/// The document's ARN: AWS's own documents have no account, a name with an ARN is one already.
pub(super) fn arn(iam: &Iam, document: &str) -> String {
    if document.starts_with("arn:") {
        return document.to_owned();
    }
    if document.starts_with("AWS-") {
        let partition = iam.partition().name;
        return format!("arn:{partition}:ssm:{}::document/{document}", iam.region());
    }
    iam.resource_arn("ssm", &format!("document/{document}"))
}

/// What the session is to do, or why the document does not take these parameters.
pub(super) fn port_parameters(
    document: &SessionDocument,
    is_local: bool,
    given: &HashMap<String, Vec<String>>,
) -> Result<PortParameters, ApiError> {
    let known = |name: &str| match name {
        "host" => !is_local && document.host.is_none(),
        "portNumber" => document.port.is_none(),
        name => name == "localPortNumber",
    };
    if let Some(stranger) = given.keys().find(|k| !known(k)) {
        return Err(invalid(format!(
            "Parameter \"{stranger}\" is not defined in the document"
        )));
    }
    let single = |name: &str| match given.get(name).map(Vec::as_slice) {
        None => Ok(None),
        Some([one]) => Ok(Some(one.clone())),
        Some(_) => Err(invalid(format!("Parameter \"{name}\" must have one value"))),
    };
    let host = match (is_local, document.host.clone().or(single("host")?)) {
        (true, _) => "localhost".to_owned(),
        (false, Some(host)) if !host.is_empty() => host,
        (false, _) => {
            let text = "Parameter \"host\" is wrong for this document";
            return Err(invalid(text.to_owned()));
        }
    };
    let port = match document.port {
        Some(port) => port,
        None => {
            let text = single("portNumber")?.unwrap_or_else(|| "80".to_owned());
            let port = text.parse().ok().filter(|p| *p != 0);
            port.ok_or_else(|| invalid("Parameter \"portNumber\" is not a port".to_owned()))?
        }
    };
    Ok(PortParameters {
        host,
        port,
        local_port: single("localPortNumber")?.unwrap_or_else(|| "0".to_owned()),
    })
}

fn invalid(text: String) -> ApiError {
    ApiError::new("ValidationException", text)
}
