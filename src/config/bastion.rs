//! Bastion of a tunnel: several notations for a list of nodes, a tag, or an automatic choice.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::base::names::NodeId;
use crate::base::quote::printable;

/// Prefix of a tag on the command line, and in a string in the file.
const TAG_PREFIX: &str = "tag:";
/// Value for the automatic choice.
const AUTO: &str = "auto";
/// Length of the id of an ECS task: 16 bytes in hexadecimal (ECS Developer Guide, "Account
/// settings", long ARN format).
const TASK_ID: usize = 32;

const EXPECTED: &str = "expected the ID of a managed node (i-…, mi-… or ecs:CLUSTER_TASK_RUNTIME), a list of IDs, a tag, or auto";

/// The managed node or nodes that can carry a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bastion {
    /// `i-…`, `mi-…` or `ecs:cluster_task_runtime`, in order of preference; never empty.
    Nodes(Vec<NodeId>),
    /// Any managed node with this tag.
    Tag {
        /// Key of the tag.
        key: String,
        /// Value of the tag.
        value: String,
    },
    /// The most suitable node for the database: see [`discover`](crate::aws::discover).
    Auto,
}

impl fmt::Display for Bastion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(nodes) => f.write_str(&nodes.join(", ")),
            Self::Tag { key, value } => write!(f, "tag {key}={value}"),
            Self::Auto => f.write_str(AUTO),
        }
    }
}

/// A bastion as written, to be parsed by [`WrittenBastion::parse`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WrittenBastion {
    /// `"i-1"`, `"i-1,i-2"` or `"tag:Name=bastion"`: in the file and on the command line.
    Text(String),
    /// `["i-1", "mi-2"]` in the file, `--bastion i-1 --bastion mi-2` on the command line.
    List(Vec<String>),
    /// `{ tag = "Name=bastion" }`: in the file.
    Tag(String),
}

impl WrittenBastion {
    /// Parses the value.
    ///
    /// # Errors
    /// The problem and a valid form.
    pub fn parse(&self) -> Result<Bastion, String> {
        match self {
            Self::Text(text) if text.trim() == AUTO => Ok(Bastion::Auto),
            Self::Text(text) => match text.strip_prefix(TAG_PREFIX) {
                Some(tag) => parse_tag(tag),
                None => parse_nodes(text.split(',').map(str::trim)),
            },
            Self::List(one) if one.len() == 1 => Self::Text(one.concat()).parse(),
            Self::List(nodes) => {
                let nodes = nodes.iter().flat_map(|nodes| nodes.split(','));
                parse_nodes(nodes.map(str::trim))
            }
            Self::Tag(tag) => parse_tag(tag),
        }
    }
}

impl From<Vec<String>> for WrittenBastion {
    /// Converts the values of one or several `--bastion` flags.
    fn from(mut values: Vec<String>) -> Self {
        match values.len() {
            1 => Self::Text(values.remove(0)),
            _ => Self::List(values),
        }
    }
}

impl fmt::Display for WrittenBastion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::List(nodes) => write!(f, "{nodes:?}"),
            Self::Tag(tag) => write!(f, "{{ tag = {tag:?} }}"),
        }
    }
}

fn parse_tag(tag: &str) -> Result<Bastion, String> {
    match tag.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok(Bastion::Tag {
            key: key.to_owned(),
            value: value.to_owned(),
        }),
        _ => Err(
            "expected a tag KEY=VALUE, such as Name=bastion; neither part may be empty".to_owned(),
        ),
    }
}

fn parse_nodes<'a>(written: impl Iterator<Item = &'a str>) -> Result<Bastion, String> {
    let mut nodes: Vec<NodeId> = Vec::new();
    for node in written {
        check_node(node)?;
        if !nodes.iter().any(|known| *known == node) {
            nodes.push(node.into());
        }
    }
    if nodes.is_empty() {
        return Err(format!("the list is empty; {EXPECTED}"));
    }
    Ok(Bastion::Nodes(nodes))
}

fn check_node(node: &str) -> Result<(), String> {
    if let Some(task) = node.strip_prefix("ecs:") {
        return check_task(node, task);
    }
    let id = node
        .strip_prefix("i-")
        .or_else(|| node.strip_prefix("mi-"))
        .filter(|id| !id.is_empty());
    match id {
        Some(id)
            if id
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) =>
        {
            Ok(())
        }
        Some(_) => Err(format!(
            "\"{}\" is not a managed node ID: only digits and lower-case letters may follow {}-",
            printable(node),
            if node.starts_with("mi-") { "mi" } else { "i" }
        )),
        None if node.is_empty() => Err(format!("it contains an empty ID; {EXPECTED}")),
        None if node.starts_with(TAG_PREFIX) => Err(
            "a tag cannot be combined with IDs; set bastion = { tag = \"KEY=VALUE\" }, or use --bastion tag:KEY=VALUE"
                .to_owned(),
        ),
        None => Err(format!(
            "\"{}\" is not a managed node ID; {EXPECTED}.\nhint: list the managed nodes: aws ssm describe-instance-information",
            printable(node)
        )),
    }
}

/// Checks `CLUSTER_TASK_RUNTIME`. The cluster's name may contain underscores.
fn check_task(node: &str, task: &str) -> Result<(), String> {
    let mut parts = task.rsplitn(3, '_');
    let (runtime, id, cluster) = (parts.next(), parts.next(), parts.next());
    let hex = |id: &str| id.len() == TASK_ID && id.bytes().all(|b| b.is_ascii_hexdigit());
    let word = |text: &str, more: &[u8]| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    if cluster.is_some_and(|cluster| word(cluster, b"-_"))
        && id.is_some_and(hex)
        && runtime.is_some_and(|runtime| word(runtime, b"-"))
    {
        return Ok(());
    }
    Err(format!(
        "\"{node}\" is not an ECS target; expected ecs:CLUSTER_TASK_RUNTIME, with the cluster's name, the task's ID ({TASK_ID} hexadecimal digits) \
         and the container's runtimeId.\nhint: show the runtimeId: aws ecs describe-tasks --cluster CLUSTER --tasks TASK --query \"tasks[].containers[].runtimeId\""
    ))
}

impl From<&Bastion> for WrittenBastion {
    fn from(bastion: &Bastion) -> Self {
        match bastion {
            Bastion::Nodes(nodes) => {
                Self::List(nodes.iter().map(|node| node.as_str().to_owned()).collect())
            }
            Bastion::Tag { key, value } => Self::Tag(format!("{key}={value}")),
            Bastion::Auto => Self::Text(AUTO.to_owned()),
        }
    }
}

impl Serialize for WrittenBastion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(nodes) => serializer.collect_seq(nodes),
            Self::Tag(tag) => serializer.serialize_str(&format!("{TAG_PREFIX}{tag}")),
        }
    }
}

impl<'de> Deserialize<'de> for WrittenBastion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BastionVisitor;

        impl<'de> Visitor<'de> for BastionVisitor {
            type Value = WrittenBastion;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "the ID of a node, a list of IDs such as [\"i-…\", \"i-…\"], { tag = \"KEY=VALUE\" }, or \"auto\"",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(WrittenBastion::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut nodes = Vec::new();
                while let Some(node) = seq.next_element()? {
                    nodes.push(node);
                }
                Ok(WrittenBastion::List(nodes))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut tag = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key != "tag" {
                        map.next_value::<IgnoredAny>()?;
                        return Err(de::Error::unknown_field(&key, &["tag"]));
                    }
                    tag = Some(map.next_value()?);
                }
                let tag = tag.ok_or_else(|| de::Error::missing_field("tag"))?;
                Ok(WrittenBastion::Tag(tag))
            }
        }

        deserializer.deserialize_any(BastionVisitor)
    }
}
