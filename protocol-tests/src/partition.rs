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
}

/// Region prefix and partition; the first match counts, so longer prefixes stand first.
const PARTITIONS: [(&str, Partition); 6] = [
    (
        "cn-",
        partition("aws-cn", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
    ),
    (
        "us-gov-",
        partition("aws-us-gov", "amazonaws.com", "api.aws"),
    ),
    (
        "us-isob-",
        partition("aws-iso-b", "sc2s.sgov.gov", "api.aws.scloud"),
    ),
    (
        "us-isof-",
        partition("aws-iso-f", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
    ),
    (
        "us-iso-",
        partition("aws-iso", "c2s.ic.gov", "api.aws.ic.gov"),
    ),
    (
        "eu-isoe-",
        partition("aws-iso-e", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
    ),
];

const fn partition(name: &'static str, suffix: &'static str, dual: &'static str) -> Partition {
    Partition {
        name,
        suffix,
        dual_stack_suffix: dual,
    }
}

impl Partition {
    /// The partition a region belongs to; `aws` unless its prefix says otherwise.
    pub fn of_region(region: &str) -> Self {
        let found = PARTITIONS.iter().find(|(p, _)| region.starts_with(p));
        found.map_or(partition("aws", "amazonaws.com", "api.aws"), |(_, p)| *p)
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
        let names = Partition::of_region("cn-north-1").host_names("ssm", "cn-north-1");
        assert_eq!(names[0], "ssm.cn-north-1.amazonaws.com.cn");
        assert_eq!(names[1], "ssm-fips.cn-north-1.amazonaws.com.cn");
    }
}
