//! `DescribeInstanceInformation`: what the service knows about the managed nodes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::{Value, json};

use super::ApiError;
use crate::aws::agent::AgentSettings;
use crate::aws::cloud::Cloud;
use crate::harness::sync::lock;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Query {
    #[serde(default)]
    filters: Vec<Filter>,
    max_results: Option<usize>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Filter {
    key: String,
    values: Vec<String>,
}

pub(super) fn describe(cloud: &Cloud, query: &Query) -> Result<Value, ApiError> {
    let limit = query.max_results.unwrap_or(50);
    if !(5..=50).contains(&limit) {
        let text = format!(
            "1 validation error detected: Value '{limit}' at 'maxResults' failed to \
             satisfy constraint: Member must have value between 5 and 50"
        );
        return Err(ApiError::new("ValidationException", text));
    }
    let start = match query.next_token.as_deref() {
        None | Some("") => 0,
        Some(token) => token
            .parse()
            .map_err(|_| ApiError::new("InvalidNextToken", "The specified token is not valid."))?,
    };
    let limit = cloud.api.page_size(limit);
    // Tasks take sessions but are not in this list.
    let nodes: Vec<(String, AgentSettings)> = lock(&cloud.nodes)
        .iter()
        .filter(|(id, _)| !id.starts_with("ecs:"))
        .map(|(id, control)| (id.clone(), control.settings()))
        .collect();
    let mut found = Vec::new();
    for (id, node) in &nodes {
        let mut wanted = true;
        for filter in &query.filters {
            wanted &= matches(filter, id, node)?;
        }
        if wanted {
            found.push(describe_one(id, node));
        }
    }
    let rest = found.len().saturating_sub(start);
    let mut answer = json!({
        "InstanceInformationList": found.iter().skip(start).take(limit).collect::<Vec<_>>(),
    });
    if rest > limit {
        answer["NextToken"] = json!((start + limit).to_string());
    }
    Ok(answer)
}

fn matches(filter: &Filter, id: &str, node: &AgentSettings) -> Result<bool, ApiError> {
    if filter.values.is_empty() {
        let text = format!("The filter {} has no values.", filter.key);
        return Err(ApiError::new("InvalidInstanceInformationFilterValue", text));
    }
    let has = |value: &str| filter.values.iter().any(|v| v == value);
    if let Some(tag) = filter.key.strip_prefix("tag:") {
        return Ok(node.tags.get(tag).is_some_and(|value| has(value)));
    }
    match filter.key.as_str() {
        "tag-key" => Ok(node.tags.keys().any(|key| has(key))),
        "InstanceIds" => Ok(has(id)),
        "PingStatus" => Ok(has(ping_status(node))),
        "AgentVersion" => Ok(has(&node.version)),
        "PlatformTypes" => Ok(has("Linux")),
        "ResourceType" => Ok(has(resource_type(id))),
        other => {
            let text = format!("The filter key {other} is not valid.");
            Err(ApiError::new("InvalidFilterKey", text))
        }
    }
}

fn resource_type(id: &str) -> &'static str {
    if id.starts_with("mi-") {
        "ManagedInstance"
    } else {
        "EC2Instance"
    }
}

fn ping_status(node: &AgentSettings) -> &'static str {
    if node.online {
        "Online"
    } else {
        "ConnectionLost"
    }
}

fn describe_one(id: &str, node: &AgentSettings) -> Value {
    // An agent reports every five minutes; a lost one stopped some time ago.
    let age = Duration::from_secs(if node.online { 60 } else { 3600 });
    let ping = (SystemTime::now() - age)
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64());
    json!({
        "InstanceId": id,
        "PingStatus": ping_status(node),
        "LastPingDateTime": ping,
        "AgentVersion": node.version,
        "IsLatestVersion": false,
        "PlatformType": "Linux",
        "PlatformName": "Amazon Linux",
        "PlatformVersion": "2023",
        "ResourceType": resource_type(id),
        "IPAddress": node.ip_address,
        "ComputerName": node.computer_name,
    })
}
