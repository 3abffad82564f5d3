//! `DescribeDBProxies` and `DescribeDBProxyEndpoints`.

use super::{ApiError, CREATED, Call, Xml, not_found};
use crate::aws::inventory::{DbProxy, ProxyEndpoint};

/// The proxies in question: the named one, or all.
fn proxies(call: &Call<'_>, action: &str) -> Result<Vec<DbProxy>, ApiError> {
    let name = call.identifier(action, "db-proxy", "DBProxyName")?;
    let lists = call.cloud.inventory.lists();
    let mut found: Vec<_> = lists.proxies.into_values().collect();
    if let Some(name) = name {
        found.retain(|proxy| proxy.name == name);
        if found.is_empty() {
            let text = format!("DBProxy {name} not found.");
            return Err(not_found("DBProxyNotFoundFault", text));
        }
    }
    // Which filters there are is not documented: none is supported at present.
    call.filters(&[])?;
    Ok(found)
}

pub(super) fn describe(call: &Call<'_>) -> Result<Xml, ApiError> {
    let found = proxies(call, "rds:DescribeDBProxies")?;
    call.page(("DBProxies", "member"), found, |xml, proxy| {
        describe_one(call, xml, &proxy);
    })
}

fn describe_one(call: &Call<'_>, xml: &mut Xml, proxy: &DbProxy) {
    let scheme = match proxy.family.as_str() {
        "POSTGRESQL" => "POSTGRES_SCRAM_SHA_256",
        "MYSQL" => "MYSQL_NATIVE_PASSWORD",
        _ => "SQL_SERVER_AUTHENTICATION",
    };
    let iam = &call.cloud.iam;
    let role = format!(
        "arn:{}:iam::{}:role/proxy",
        iam.partition().name,
        iam.account()
    );
    xml.text("DBProxyName", &proxy.name)
        .text("DBProxyArn", call.rds_arn("db-proxy", &proxy.resource_id))
        .text("Status", &proxy.status)
        .text("EngineFamily", &proxy.family);
    network(xml, proxy);
    xml.text("DefaultAuthScheme", "NONE")
        .list("Auth", "member", &proxy.users, |xml, user| {
            let secret = iam.resource_arn("secretsmanager", &format!("secret:{user}-AbCdEf"));
            xml.text("AuthScheme", "SECRETS")
                .text("SecretArn", secret)
                .text("IAMAuth", if proxy.iam { "REQUIRED" } else { "DISABLED" })
                .text("ClientPasswordAuthType", scheme);
        })
        .text("RoleArn", role)
        .text("Endpoint", &proxy.host)
        .text("RequireTLS", proxy.require_tls)
        .text("IdleClientTimeout", 1800)
        .text("DebugLogging", false)
        .text("CreatedDate", CREATED)
        .text("UpdatedDate", CREATED);
}

fn network(xml: &mut Xml, proxy: &DbProxy) {
    xml.text("VpcId", &proxy.vpc)
        .texts("VpcSecurityGroupIds", "member", &proxy.security_groups)
        .texts("VpcSubnetIds", "member", ["subnet-0a1b2c3d"]);
}

pub(super) fn describe_endpoints(call: &Call<'_>) -> Result<Xml, ApiError> {
    let found = proxies(call, "rds:DescribeDBProxyEndpoints")?;
    let asked = call.form.get("DBProxyEndpointName");
    let all = found.iter().flat_map(|proxy| {
        let endpoints = proxy.endpoints.iter();
        endpoints.map(move |endpoint| (proxy, endpoint))
    });
    let named = |endpoint: &ProxyEndpoint| {
        asked.is_none_or(|name| endpoint.name.eq_ignore_ascii_case(name))
    };
    let rows: Vec<_> = all.filter(|(_, endpoint)| named(endpoint)).collect();
    if let (Some(name), true) = (asked, rows.is_empty()) {
        let text = format!("DBProxyEndpoint {name} not found.");
        return Err(not_found("DBProxyEndpointNotFoundFault", text));
    }
    call.page(("DBProxyEndpoints", "member"), rows, |xml, (proxy, one)| {
        describe_endpoint(call, xml, proxy, one);
    })
}

fn describe_endpoint(call: &Call<'_>, xml: &mut Xml, proxy: &DbProxy, endpoint: &ProxyEndpoint) {
    let role = match endpoint.read_only {
        true => "READ_ONLY",
        false => "READ_WRITE",
    };
    let arn = call.rds_arn("db-proxy-endpoint", &endpoint.resource_id);
    xml.text("DBProxyEndpointName", &endpoint.name)
        .text("DBProxyEndpointArn", arn)
        .text("DBProxyName", &proxy.name)
        .text("Status", &endpoint.status);
    network(xml, proxy);
    xml.text("Endpoint", &endpoint.host)
        .text("CreatedDate", CREATED)
        .text("TargetRole", role)
        .text("IsDefault", false);
}
