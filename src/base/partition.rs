//! AWS partitions: the regions of each, and the domains of its services.

/// A partition: one of the separate sets of regions that AWS consists of. Identities, ARNs and
/// domain names are valid in one partition only.
#[derive(Debug, PartialEq, Eq)]
pub struct Partition {
    /// Name in the second field of an ARN.
    pub name: &'static str,
    /// Common prefix of its region names.
    prefix: &'static str,
    /// Domain of its service endpoints, without a leading dot.
    pub dns_suffix: &'static str,
    /// Domain of the endpoints that also support IPv6.
    pub dual_stack_suffix: &'static str,
    /// Region in the signatures of IAM requests: IAM is one service for all regions.
    pub iam_region: &'static str,
}

/// Partition of every region that is in none of [`OTHERS`].
const COMMERCIAL: Partition = Partition {
    name: "aws",
    prefix: "",
    dns_suffix: "amazonaws.com",
    dual_stack_suffix: "api.aws",
    iam_region: "us-east-1",
};

/// Partitions from the table that AWS gives to its SDKs (`partitions.json`). The SDK has it too,
/// but does not export it.
const OTHERS: [Partition; 7] = [
    Partition {
        name: "aws-cn",
        prefix: "cn-",
        dns_suffix: "amazonaws.com.cn",
        dual_stack_suffix: "api.amazonwebservices.com.cn",
        iam_region: "cn-north-1",
    },
    Partition {
        name: "aws-us-gov",
        prefix: "us-gov-",
        dns_suffix: "amazonaws.com",
        dual_stack_suffix: "api.aws",
        iam_region: "us-gov-west-1",
    },
    Partition {
        name: "aws-iso",
        prefix: "us-iso-",
        dns_suffix: "c2s.ic.gov",
        dual_stack_suffix: "api.aws.ic.gov",
        iam_region: "us-iso-east-1",
    },
    Partition {
        name: "aws-iso-b",
        prefix: "us-isob-",
        dns_suffix: "sc2s.sgov.gov",
        dual_stack_suffix: "api.aws.scloud",
        iam_region: "us-isob-east-1",
    },
    Partition {
        name: "aws-iso-e",
        prefix: "eu-isoe-",
        dns_suffix: "cloud.adc-e.uk",
        dual_stack_suffix: "api.cloud-aws.adc-e.uk",
        iam_region: "eu-isoe-west-1",
    },
    Partition {
        name: "aws-iso-f",
        prefix: "us-isof-",
        dns_suffix: "csp.hci.ic.gov",
        dual_stack_suffix: "api.aws.hci.ic.gov",
        iam_region: "us-isof-south-1",
    },
    Partition {
        name: "aws-eusc",
        prefix: "eusc-",
        dns_suffix: "amazonaws.eu",
        dual_stack_suffix: "api.amazonwebservices.eu",
        iam_region: "eusc-de-east-1",
    },
];

/// Regions and their places, for completion (AWS General Reference, "AWS Regions"). Nothing else
/// depends on the list: pgiam accepts regions that are newer. Those of the `aws-iso` partitions are
/// not public.
pub const REGIONS: &[(&str, &str)] = &[
    ("af-south-1", "Cape Town"),
    ("ap-east-1", "Hong Kong"),
    ("ap-east-2", "Taipei"),
    ("ap-northeast-1", "Tokyo"),
    ("ap-northeast-2", "Seoul"),
    ("ap-northeast-3", "Osaka"),
    ("ap-south-1", "Mumbai"),
    ("ap-south-2", "Hyderabad"),
    ("ap-southeast-1", "Singapore"),
    ("ap-southeast-2", "Sydney"),
    ("ap-southeast-3", "Jakarta"),
    ("ap-southeast-4", "Melbourne"),
    ("ap-southeast-5", "Malaysia"),
    ("ap-southeast-6", "New Zealand"),
    ("ap-southeast-7", "Thailand"),
    ("ca-central-1", "Canada (Central)"),
    ("ca-west-1", "Calgary"),
    ("cn-north-1", "Beijing"),
    ("cn-northwest-1", "Ningxia"),
    ("eu-central-1", "Frankfurt"),
    ("eu-central-2", "Zurich"),
    ("eu-north-1", "Stockholm"),
    ("eu-south-1", "Milan"),
    ("eu-south-2", "Spain"),
    ("eu-west-1", "Ireland"),
    ("eu-west-2", "London"),
    ("eu-west-3", "Paris"),
    ("eusc-de-east-1", "Germany (European Sovereign Cloud)"),
    ("il-central-1", "Tel Aviv"),
    ("me-central-1", "United Arab Emirates"),
    ("me-south-1", "Bahrain"),
    ("mx-central-1", "Mexico (Central)"),
    ("sa-east-1", "São Paulo"),
    ("us-east-1", "N. Virginia"),
    ("us-east-2", "Ohio"),
    ("us-gov-east-1", "GovCloud (US-East)"),
    ("us-gov-west-1", "GovCloud (US-West)"),
    ("us-west-1", "N. California"),
    ("us-west-2", "Oregon"),
];

impl Partition {
    /// Returns the partition of a region. An unknown region counts as commercial, as in the SDK.
    #[must_use]
    pub fn of(region: &str) -> &'static Self {
        OTHERS
            .iter()
            .find(|partition| region.starts_with(partition.prefix))
            .unwrap_or(&COMMERCIAL)
    }

    /// Returns the labels of a host name before the domain of its partition; `None` for a name that is
    /// in no partition. The host is in lower case.
    #[must_use]
    pub fn labels_of(host: &str) -> Option<&str> {
        let all = std::iter::once(&COMMERCIAL).chain(&OTHERS);
        let labels = |partition: &Self| host.strip_suffix(partition.dns_suffix)?.strip_suffix('.');
        all.map(labels).find_map(|labels| labels)
    }

    /// Returns the host name of IAM, which is in no region (IAM Reference, "IAM endpoints and
    /// quotas").
    #[must_use]
    pub fn iam_host(&self, fips: bool, dual_stack: bool) -> String {
        let suffix = self.dns_suffix;
        match self.name {
            // FIPS takes precedence: IAM has no name with validated cryptography and IPv6.
            "aws" if fips => format!("iam-fips.{suffix}"),
            "aws" if dual_stack => format!("iam.global.{}", self.dual_stack_suffix),
            "aws" => format!("iam.{suffix}"),
            "aws-us-gov" => format!("iam.us-gov.{suffix}"),
            _ => format!("iam.{}.{suffix}", self.iam_region),
        }
    }

    /// Returns `true` if `host`, in lower case, is below one of the partition's domains.
    #[must_use]
    pub fn owns(&self, host: &str) -> bool {
        [self.dns_suffix, self.dual_stack_suffix]
            .iter()
            .any(|suffix| {
                let below = host.strip_suffix(suffix);
                let labels = below.and_then(|below| below.strip_suffix('.'));
                labels.is_some_and(|labels| !labels.is_empty())
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_find_their_partition() {
        for (region, name) in [
            ("eu-central-1", "aws"),
            ("us-east-1", "aws"),
            ("mx-central-1", "aws"),
            ("xx-new-1", "aws"),
            ("cn-northwest-1", "aws-cn"),
            ("us-gov-west-1", "aws-us-gov"),
            ("us-iso-east-1", "aws-iso"),
            ("us-isob-east-1", "aws-iso-b"),
            ("eu-isoe-west-1", "aws-iso-e"),
            ("us-isof-south-1", "aws-iso-f"),
            ("eusc-de-east-1", "aws-eusc"),
        ] {
            assert_eq!(Partition::of(region).name, name, "{region}");
        }
    }

    #[test]
    fn iam_is_one_for_a_partition() {
        for (region, host, signed_for) in [
            ("eu-central-1", "iam.amazonaws.com", "us-east-1"),
            ("us-gov-east-1", "iam.us-gov.amazonaws.com", "us-gov-west-1"),
            (
                "cn-northwest-1",
                "iam.cn-north-1.amazonaws.com.cn",
                "cn-north-1",
            ),
            (
                "eusc-de-east-1",
                "iam.eusc-de-east-1.amazonaws.eu",
                "eusc-de-east-1",
            ),
        ] {
            let partition = Partition::of(region);
            assert_eq!(partition.iam_host(false, false), host);
            assert_eq!(partition.iam_region, signed_for);
        }
        let commercial = Partition::of("eu-central-1");
        assert_eq!(commercial.iam_host(true, false), "iam-fips.amazonaws.com");
        assert_eq!(commercial.iam_host(false, true), "iam.global.api.aws");
    }

    #[test]
    fn a_partition_owns_what_is_below_its_domains_and_nothing_else() {
        let owns = |region, host| Partition::of(region).owns(host);
        assert!(owns(
            "eu-central-1",
            "ssmmessages.eu-central-1.amazonaws.com"
        ));
        assert!(owns("eu-central-1", "ssmmessages.eu-central-1.api.aws"));
        assert!(owns(
            "cn-north-1",
            "ssmmessages.cn-north-1.api.amazonwebservices.com.cn"
        ));
        assert!(owns("us-isob-east-1", "x.us-isob-east-1.sc2s.sgov.gov"));
        for foreign in [
            "amazonaws.com",
            ".amazonaws.com",
            "evilamazonaws.com",
            "x.amazonaws.com.example.org",
            "x.amazonaws.com.",
            "x.evil-api.aws",
            "ssmmessages.cn-north-1.amazonaws.com.cn",
        ] {
            assert!(!owns("eu-central-1", foreign), "{foreign}");
        }
        assert!(!owns("cn-north-1", "ssmmessages.us-east-1.amazonaws.com"));
    }
}
