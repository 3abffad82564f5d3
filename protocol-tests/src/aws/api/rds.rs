//! `rds`: the lists of databases and of proxies before them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::StatusCode;

use super::ApiError;
use super::query::{Call, Filter, RDS, unknown};
use super::xml::Xml;

mod clusters;
mod instances;
mod proxies;

/// Least and most items that may be asked for on a page.
const PAGE: std::ops::RangeInclusive<usize> = 20..=100;
/// When everything was made.
const CREATED: &str = "2025-03-01T09:30:00.000Z";

pub(super) fn answer(call: &Call<'_>, action: &str) -> Result<Xml, ApiError> {
    match action {
        "DescribeDBInstances" => instances::describe(call),
        "DescribeDBClusters" => clusters::describe(call),
        "DescribeDBClusterEndpoints" => clusters::describe_endpoints(call),
        "DescribeDBProxies" => proxies::describe(call),
        "DescribeDBProxyEndpoints" => proxies::describe_endpoints(call),
        _ => Err(unknown(&RDS, action)),
    }
}

impl Call<'_> {
    fn rds_arn(&self, kind: &str, id: &str) -> String {
        self.cloud.iam.resource_arn("rds", &format!("{kind}:{id}"))
    }

    /// The identifier asked for, in lower case as it is kept, once IAM has agreed to show it. A
    /// database's may be given as an ARN.
    fn identifier(
        &self,
        action: &str,
        kind: &str,
        parameter: &str,
    ) -> Result<Option<String>, ApiError> {
        let given = self.form.get(parameter).map(str::to_ascii_lowercase);
        let id = given.map(|given| plain(&given).to_owned());
        let resource = self.rds_arn(kind, id.as_deref().unwrap_or("*"));
        self.allow(action, &resource)?;
        match id {
            Some(id) if !is_identifier(&id) => {
                let text = format!(
                    "The parameter {parameter} is not a valid identifier. Identifiers must begin \
                     with a letter; must contain only ASCII letters, digits, and hyphens; and must \
                     not end with a hyphen or contain two consecutive hyphens."
                );
                Err(ApiError::new("InvalidParameterValue", text))
            }
            id => Ok(id),
        }
    }

    /// The filters, all of which must have one of these names and a value.
    fn filters(&self, known: &[&str]) -> Result<Vec<Filter<'_>>, ApiError> {
        let filters = self.form.filters("Filters.Filter", "Values.Value");
        for filter in &filters {
            let text = if !known.contains(&filter.name) {
                format!("Unrecognized filter name: {}", filter.name)
            } else if filter.values.is_empty() {
                format!("The filter {} has no values.", filter.name)
            } else {
                continue;
            };
            return Err(ApiError::new("InvalidParameterValue", text));
        }
        Ok(filters)
    }

    /// The page asked for as the list `name` of `item`s, with a marker if another follows.
    fn page<T>(
        &self,
        (name, item): (&str, &str),
        all: Vec<T>,
        fill: impl Fn(&mut Xml, T),
    ) -> Result<Xml, ApiError> {
        let limit = self.form.number("MaxRecords")?.unwrap_or(*PAGE.end());
        if !PAGE.contains(&limit) {
            let (least, most) = (PAGE.start(), PAGE.end());
            let text =
                format!("Invalid value {limit} for MaxRecords. Must be between {least} and {most}");
            return Err(ApiError::new("InvalidParameterValue", text));
        }
        let limit = self.cloud.api.page_size(limit);
        let start = match self.form.get("Marker") {
            None => 0,
            Some(marker) => read_marker(marker)
                .ok_or_else(|| ApiError::new("InvalidParameterValue", "Invalid Marker"))?,
        };
        let end = start + limit;
        let mut xml = Xml::default();
        xml.maybe("Marker", (all.len() > end).then(|| write_marker(end)));
        xml.list(name, item, all.into_iter().skip(start).take(limit), fill);
        Ok(xml)
    }
}

/// Markers are nothing a client could make sense of.
fn write_marker(start: usize) -> String {
    BASE64.encode(format!("from {start}"))
}

fn read_marker(marker: &str) -> Option<usize> {
    let text = String::from_utf8(BASE64.decode(marker).ok()?).ok()?;
    text.strip_prefix("from ")?.parse().ok()
}

/// The identifier at the end of an ARN.
fn plain(id: &str) -> &str {
    match id.starts_with("arn:") {
        true => id.rsplit(':').next().unwrap_or_default(),
        false => id,
    }
}

fn is_identifier(id: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
    id.starts_with(|c: char| c.is_ascii_alphabetic())
        && id.chars().all(allowed)
        && !id.ends_with('-')
        && !id.contains("--")
}

/// Whether one of a filter's values is this identifier, or an ARN that ends in it.
fn names(filter: &Filter<'_>, id: &str) -> bool {
    let mut values = filter.values.iter();
    values.any(|value| plain(value).eq_ignore_ascii_case(id))
}

fn not_found(code: &str, text: String) -> ApiError {
    ApiError {
        status: StatusCode::NOT_FOUND,
        ..ApiError::new(code, text)
    }
}

fn security_groups(xml: &mut Xml, groups: &[String]) {
    let item = "VpcSecurityGroupMembership";
    xml.list("VpcSecurityGroups", item, groups, |xml, group| {
        xml.text("VpcSecurityGroupId", group)
            .text("Status", "active");
    });
}

fn tags(xml: &mut Xml, tags: &[(String, String)]) {
    xml.list("TagList", "Tag", tags, |xml, (name, value)| {
        xml.text("Key", name).text("Value", value);
    });
}
