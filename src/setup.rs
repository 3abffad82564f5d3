//! The administrator's part of a target's setup, as text to review and apply: IAM policies, SQL, a
//! bastion. Pure: the input is [`SetupFacts`]. Unknown values are never guessed; the output has
//! placeholders for them and the commands that show the values.

pub mod cloudformation;
mod placeholders;
pub mod policy;
mod relay;
pub mod sql;
pub mod terraform;
#[cfg(test)]
mod tests;

use crate::base::names::Region;
use crate::base::partition::Partition;
use crate::base::quote;
use crate::config::{Auth, DatabaseRef, Endpoint, EndpointKind, TargetConfig, Via};

use placeholders::Placeholders;

/// Tag of instances that may serve as bastions; its value does not matter.
pub const MARK: &str = "pgiam:bastion";

/// Known facts about a target and its surroundings.
#[derive(Clone, Debug)]
pub struct SetupFacts {
    /// The target's name.
    pub target: String,
    /// Defined by flags, so its name is in no file.
    pub described: bool,
    /// The account of the database.
    pub account: Option<String>,
    /// The region of database and bastion.
    pub region: Option<Region>,
    /// The AWS profile, for the printed commands.
    pub profile: Option<String>,
    /// The user of the target.
    pub principal: Principal,
    /// The database role.
    pub user: Option<String>,
    /// The database.
    pub database: Option<String>,
    /// Login method of clients.
    pub auth: Auth,
    /// The real endpoint; `None` if it needs a lookup that was not done.
    pub endpoint: Option<Endpoint>,
    /// Identifier by which the endpoint is looked up at every start.
    pub looked_up: Option<String>,
    /// The database's ARN.
    pub arn: Option<String>,
    /// `db-…`, `cluster-…` or `prx-…`.
    pub resource_id: Option<String>,
    /// The path to the database.
    pub via: Via,
    /// The KMS key of session encryption in the account: an id, an alias or an ARN.
    pub kms_key: Option<String>,
    /// The VPC of the database.
    pub vpc: Option<String>,
    /// The subnets of the database.
    pub subnets: Vec<String>,
    /// The security groups of the database.
    pub security_groups: Vec<String>,
    /// IAM authentication, if RDS reported it.
    pub iam: Option<bool>,
}

/// Identity that uses a target. IAM's policy variables and DSQL's database roles distinguish users
/// from roles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Principal {
    /// An IAM user.
    User {
        /// Its ARN.
        arn: String,
    },
    /// An assumed role, as with all users of IAM Identity Center.
    Role {
        /// The role's name. Its ARN may also have a path, which a session does not show.
        name: String,
    },
    /// Unknown identity.
    #[default]
    Unknown,
}

impl Principal {
    /// Parses an ARN as `sts:GetCallerIdentity` returns it.
    #[must_use]
    pub fn of(arn: &str) -> Self {
        let mut fields = arn.splitn(6, ':').skip(2);
        match (fields.next(), fields.nth(2)) {
            (Some("iam"), Some(resource)) if resource.starts_with("user/") => Self::User {
                arn: arn.to_owned(),
            },
            (Some("sts"), Some(resource)) => match resource.strip_prefix("assumed-role/") {
                Some(role) => Self::Role {
                    name: role.split('/').next().unwrap_or(role).to_owned(),
                },
                None => Self::Unknown,
            },
            _ => Self::Unknown,
        }
    }
}

/// Text to apply, with notes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artefact {
    /// The text.
    pub text: String,
    /// Instructions, and missing values.
    pub notes: Vec<String>,
}

impl SetupFacts {
    /// Returns the facts in the configuration; the others come from AWS.
    #[must_use]
    pub fn of(config: &TargetConfig) -> Self {
        let endpoint = match &config.database_ref {
            DatabaseRef::Host(endpoint) => Some(endpoint.clone()),
            DatabaseRef::Identifier(_) => None,
        };
        let in_name = endpoint.as_ref().and_then(Endpoint::region);
        let region = in_name.map(Region::from).or_else(|| config.region.clone());
        Self {
            target: config.name.to_string(),
            described: false,
            account: None,
            region,
            profile: config.settings.profile.clone(),
            principal: Principal::Unknown,
            user: config.settings.user.clone(),
            database: config.settings.database.clone(),
            auth: config.settings.login.auth,
            endpoint,
            looked_up: config.rds_identifier().map(ToString::to_string),
            arn: None,
            resource_id: None,
            via: config.settings.via.clone(),
            kms_key: None,
            vpc: None,
            subnets: Vec::new(),
            security_groups: Vec::new(),
            iam: None,
        }
    }

    fn kind(&self) -> Option<EndpointKind> {
        self.endpoint.as_ref().map(Endpoint::kind)
    }

    fn partition(&self, gaps: &mut Placeholders) -> String {
        match &self.region {
            Some(region) => Partition::of(region).name.to_owned(),
            None => gaps.open(
                "PARTITION",
                "aws, aws-cn (China) or aws-us-gov (GovCloud)".to_owned(),
            ),
        }
    }

    fn region(&self, gaps: &mut Placeholders) -> String {
        gaps.fill(self.region.as_deref(), "REGION", || {
            "the region of the database; it is part of its endpoint's name".to_owned()
        })
    }

    fn account(&self, gaps: &mut Placeholders) -> String {
        gaps.fill(self.account.as_deref(), "ACCOUNT_ID", || {
            let options = self.options();
            format!("aws sts get-caller-identity{options} --query Account --output text")
        })
    }

    fn role(&self, gaps: &mut Placeholders) -> String {
        gaps.fill(self.user.as_deref(), "DATABASE_ROLE", || {
            "the role to log in as; set user for the target, or --user".to_owned()
        })
    }

    /// Returns the options that all AWS commands take.
    fn options(&self) -> String {
        let option = |name: &str, value: Option<&str>| match value {
            Some(value) => format!(" {name} {}", quote::shell(value)),
            None => String::new(),
        };
        option("--profile", self.profile.as_deref()) + &option("--region", self.region.as_deref())
    }

    /// Returns the target's name reduced to letters, digits and hyphens.
    fn slug(&self) -> String {
        const LONGEST: usize = 40;
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let slug: String = self.target.chars().map(plain).take(LONGEST).collect();
        match slug.trim_matches('-') {
            "" => "target".to_owned(),
            slug => slug.to_owned(),
        }
    }

    /// Returns the `pgiam check` command for this target.
    fn check(&self) -> String {
        match self.described {
            true => "pgiam check, with the same flags".to_owned(),
            false => format!("pgiam check {}", quote::shell(&self.target)),
        }
    }
}
