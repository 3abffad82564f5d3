//! `ec2:DescribeInstances`: names and VPCs of instances.

use std::collections::HashMap;

use roxmltree::{Document, Node};

use super::DiscoverError;
use super::ask::{self, LookupContext};
use crate::aws::pages::PageLimits;
use crate::aws::query::Query;

pub(super) const LIST: &str = "ec2:DescribeInstances";
/// Maximum number of values in one filter (EC2 API Reference, "Filter").
const MOST_VALUES: usize = 200;
/// Maximum number of instances on a page.
const PAGE: &str = "1000";

/// Properties of an EC2 instance.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InstanceFacts {
    pub(super) name: Option<String>,
    pub(super) vpc: Option<String>,
}

/// Returns those instances with these ids that exist. The ids are sent as a filter: with ids as
/// parameters EC2 would refuse the whole call if one instance is gone.
///
/// # Errors
/// [`DiscoverError`].
pub(super) async fn machines(
    asker: &LookupContext<'_>,
    ids: &[&str],
) -> Result<HashMap<String, InstanceFacts>, DiscoverError> {
    let (mut found, mut bounds) = (HashMap::new(), PageLimits::default());
    for some in ids.chunks(MOST_VALUES) {
        let mut next = None;
        loop {
            let params = params(some, next);
            let query = Query {
                service: "ec2",
                name: LIST,
                version: "2016-11-15",
                action: "DescribeInstances",
                params,
                region: asker.region,
            };
            let text = asker.query(LIST, query).await?;
            let counted = bounds.page(text.len());
            counted.map_err(|endless| ask::endless(LIST, endless))?;
            let page = InstancePage::read(&text).map_err(|reason| DiscoverError::Answer {
                action: LIST,
                reason: reason.into(),
            })?;
            found.extend(page.machines);
            next = page.next;
            if next.is_none() {
                break;
            }
        }
    }
    Ok(found)
}

fn params(ids: &[&str], next: Option<String>) -> Vec<(String, String)> {
    let name = ("Filter.1.Name".to_owned(), "instance-id".to_owned());
    let size = ("MaxResults".to_owned(), PAGE.to_owned());
    let values = (1..).zip(ids);
    let values = values.map(|(n, id)| (format!("Filter.1.Value.{n}"), (*id).to_owned()));
    let next = next.map(|token| ("NextToken".to_owned(), token));
    [name, size].into_iter().chain(values).chain(next).collect()
}

/// One page of the list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InstancePage {
    pub(super) machines: Vec<(String, InstanceFacts)>,
    pub(super) next: Option<String>,
}

impl InstancePage {
    /// Parses a page.
    ///
    /// # Errors
    /// A description of the problem with the document.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let document = Document::parse(text).map_err(|error| error.to_string())?;
        let root = document.root_element();
        let reservations = child(root, "reservationSet").ok_or("missing element reservationSet")?;
        let machines = items(reservations)
            .filter_map(|reservation| child(reservation, "instancesSet"))
            .flat_map(items)
            .filter_map(machine);
        Ok(Self {
            machines: machines.collect(),
            next: text_of(root, "nextToken"),
        })
    }
}

fn machine(item: Node<'_, '_>) -> Option<(String, InstanceFacts)> {
    let tags = child(item, "tagSet").into_iter().flat_map(items);
    let name = tags
        .filter(|tag| text_of(*tag, "key").as_deref() == Some("Name"))
        .find_map(|tag| text_of(tag, "value"));
    let vpc = text_of(item, "vpcId");
    Some((text_of(item, "instanceId")?, InstanceFacts { name, vpc }))
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children()
        .find(|child| child.tag_name().name() == name)
}

fn items<'a, 'input>(list: Node<'a, 'input>) -> impl Iterator<Item = Node<'a, 'input>> {
    list.children()
        .filter(|child| child.tag_name().name() == "item")
}

/// Returns the text of a child element, if it has any.
fn text_of(node: Node<'_, '_>, name: &str) -> Option<String> {
    let text = child(node, name)?.text()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}
