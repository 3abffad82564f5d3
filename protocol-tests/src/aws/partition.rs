//! The worlds AWS is divided into: what their ARNs start with and what their host names end in.

/// A partition, as the endpoint list of the AWS SDKs describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// Second part of every ARN.
    pub name: &'static str,
    /// End of `service.region.…`.
    pub suffix: &'static str,
    /// End of `service.region.…` for names with IPv4 and IPv6 addresses.
    pub dual_stack_suffix: &'static str,
    /// The region IAM is signed for; the rest of the partition has no IAM of its own.
    pub iam_region: &'static str,
}

/// Region prefix and partition; the first match counts, so longer prefixes stand first.
const PARTITIONS: [(&str, Partition); 6] = [
    (
        "cn-",
        partition(
            "aws-cn",
            "amazonaws.com.cn",
            "api.amazonwebservices.com.cn",
            "cn-north-1",
        ),
    ),
    (
        "us-gov-",
        partition("aws-us-gov", "amazonaws.com", "api.aws", "us-gov-west-1"),
    ),
    (
        "us-isob-",
        partition(
            "aws-iso-b",
            "sc2s.sgov.gov",
            "api.aws.scloud",
            "us-isob-east-1",
        ),
    ),
    (
        "us-isof-",
        partition(
            "aws-iso-f",
            "csp.hci.ic.gov",
            "api.aws.hci.ic.gov",
            "us-isof-south-1",
        ),
    ),
    (
        "us-iso-",
        partition("aws-iso", "c2s.ic.gov", "api.aws.ic.gov", "us-iso-east-1"),
    ),
    (
        "eu-isoe-",
        partition(
            "aws-iso-e",
            "cloud.adc-e.uk",
            "api.cloud-aws.adc-e.uk",
            "eu-isoe-west-1",
        ),
    ),
];

const fn partition(
    name: &'static str,
    suffix: &'static str,
    dual: &'static str,
    iam_region: &'static str,
) -> Partition {
    Partition {
        name,
        suffix,
        dual_stack_suffix: dual,
        iam_region,
    }
}

impl Partition {
    /// The partition a region belongs to; `aws` unless its prefix says otherwise.
    pub fn of_region(region: &str) -> Self {
        let found = PARTITIONS.iter().find(|(p, _)| region.starts_with(p));
        found.map_or(
            partition("aws", "amazonaws.com", "api.aws", "us-east-1"),
            |(_, p)| *p,
        )
    }

    /// Every public name of IAM, which is in no region but, in some partitions, called after one.
    pub fn iam_host_names(&self) -> Vec<String> {
        let (plain, region) = (self.suffix, self.iam_region);
        match self.name {
            "aws" => vec![
                format!("iam.{plain}"),
                format!("iam-fips.{plain}"),
                "iam.global.api.aws".to_owned(),
            ],
            "aws-us-gov" => vec![format!("iam.us-gov.{plain}")],
            _ => vec![format!("iam.{region}.{plain}")],
        }
    }

    /// Every public name of a service: plain, FIPS, dual-stack, both, and a VPC endpoint's.
    pub fn host_names(&self, service: &str, region: &str) -> [String; 5] {
        let (plain, dual) = (self.suffix, self.dual_stack_suffix);
        [
            format!("{service}.{region}.{plain}"),
            format!("{service}-fips.{region}.{plain}"),
            format!("{service}.{region}.{dual}"),
            format!("{service}-fips.{region}.{dual}"),
            format!("*.{service}.{region}.vpce.{plain}"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_lead_to_their_partition() {
        let name = |region| Partition::of_region(region).name;
        assert_eq!(name("eu-central-1"), "aws");
        assert_eq!(name("us-east-1"), "aws");
        assert_eq!(name("cn-north-1"), "aws-cn");
        assert_eq!(name("us-gov-west-1"), "aws-us-gov");
        assert_eq!(name("us-iso-east-1"), "aws-iso");
        assert_eq!(name("us-isob-east-1"), "aws-iso-b");
        let iam = |region| Partition::of_region(region).iam_host_names().swap_remove(0);
        assert_eq!(iam("eu-central-1"), "iam.amazonaws.com");
        assert_eq!(iam("us-gov-east-1"), "iam.us-gov.amazonaws.com");
        assert_eq!(iam("cn-northwest-1"), "iam.cn-north-1.amazonaws.com.cn");
        let names = Partition::of_region("cn-north-1").host_names("ssm", "cn-north-1");
        assert_eq!(names[0], "ssm.cn-north-1.amazonaws.com.cn");
        assert_eq!(names[1], "ssm-fips.cn-north-1.amazonaws.com.cn");
    }
}
