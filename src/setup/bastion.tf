@header@

terraform {
  required_version = ">= 1.3"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

provider "aws" {
@provider@}

variable "vpc_id" {
  description = "The VPC of the database."
  type        = string
@default:vpc_id@
}

variable "subnet_id" {
  description = "A private subnet of this VPC, with a NAT gateway unless there are VPC endpoints."
  type        = string
@default:subnet_id@
}

variable "database_security_group_id" {
  description = "A security group of the database. The template adds one rule to it, for the bastion."
  type        = string
@default:database_security_group_id@
}

variable "database_port" {
  description = "The port of the database."
  type        = number
  default     = @port@
}

variable "instance_type" {
  description = "Instance type (arm64). For an x86_64 type, also change image_parameter."
  type        = string
  default     = "t4g.nano"
}

variable "image_parameter" {
  # The standard image has the SSM agent; al2023-ami-minimal-... has none.
  description = "Public SSM parameter with the id of the newest image."
  type        = string
  default     = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64"
}

variable "session_kms_key_arn" {
  description = "ARN of the KMS key that encrypts the sessions of the account; empty for none."
  type        = string
  default     = @kms@
}

@relay:begin@
variable "relay_bucket" {
  description = "S3 bucket with the pgiam program for the architecture of the instance; empty to use relay_url."
  type        = string
  default     = ""
}

variable "relay_key" {
  description = "Key of the program in the bucket."
  type        = string
  default     = "pgiam"
}

variable "relay_url" {
  description = "URL of the program, if it is in no bucket."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^$|^https://[A-Za-z0-9._~/%+=:?&-]+$", var.relay_url))
    error_message = "Expected an https URL."
  }
}

variable "relay_sha256" {
  description = "SHA-256 of the program, in lower case. The instance runs nothing else."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.relay_sha256))
    error_message = "Expected 64 hexadecimal digits in lower case."
  }
}

variable "relay_allow" {
  description = "Targets that clients may reach, comma-separated; rds stands for all RDS and DSQL endpoints."
  type        = string
  default     = "@relay-allow@"
}

variable "relay_port" {
  description = "Port of the relay on the loopback interface."
  type        = number
  default     = @relay-port@
}

variable "relay_s3_prefix_list" {
  description = "Prefix list of S3 (pl-...), for a VPC whose only way to the bucket is a gateway endpoint."
  type        = string
  default     = ""
}

@relay:end@
variable "create_vpc_endpoints" {
  description = "Create VPC endpoints for Systems Manager. The VPC must not have them yet."
  type        = bool
  default     = @endpoints@
}

variable "endpoint_services" {
  description = "Services of the VPC endpoints. Regions opened since 2024 have no ec2messages; tunnels do not need it."
  type        = set(string)
  default     = ["ssm", "ssmmessages", "ec2messages"]
}

variable "endpoint_client_cidr" {
  description = "Addresses of other machines in the VPC that use Systems Manager, such as 10.0.0.0/16. They will use the endpoints, too."
  type        = string
  default     = ""
}

data "aws_partition" "current" {}

data "aws_region" "current" {}

data "aws_ssm_parameter" "image" {
  name = var.image_parameter
}

locals {
  name = @name@
}

data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.${data.aws_partition.current.dns_suffix}"]
    }
  }
}

resource "aws_iam_role" "bastion" {
  name_prefix        = "pgiam-bastion-"
  description        = "Permissions of the SSM agent of the pgiam bastion"
  assume_role_policy = data.aws_iam_policy_document.trust.json
}

resource "aws_iam_role_policy_attachment" "agent" {
  role       = aws_iam_role.bastion.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

data "aws_iam_policy_document" "session_encryption" {
  count = var.session_kms_key_arn == "" ? 0 : 1

  statement {
    actions   = ["kms:Decrypt"]
    resources = [var.session_kms_key_arn]
  }
}

resource "aws_iam_role_policy" "session_encryption" {
  count  = var.session_kms_key_arn == "" ? 0 : 1
  name   = "session-encryption"
  role   = aws_iam_role.bastion.id
  policy = data.aws_iam_policy_document.session_encryption[0].json
}

@relay:begin@
data "aws_iam_policy_document" "relay_program" {
  count = var.relay_bucket == "" ? 0 : 1

  statement {
    actions   = ["s3:GetObject"]
    resources = ["arn:${data.aws_partition.current.partition}:s3:::${var.relay_bucket}/${var.relay_key}"]
  }
}

resource "aws_iam_role_policy" "relay_program" {
  count  = var.relay_bucket == "" ? 0 : 1
  name   = "relay-program"
  role   = aws_iam_role.bastion.id
  policy = data.aws_iam_policy_document.relay_program[0].json
}

resource "aws_vpc_security_group_egress_rule" "relay_program" {
  count             = var.relay_s3_prefix_list == "" ? 0 : 1
  description       = "S3, for the program of the relay"
  security_group_id = aws_security_group.bastion.id
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  prefix_list_id    = var.relay_s3_prefix_list
}

@relay:end@
resource "aws_iam_instance_profile" "bastion" {
  name_prefix = "pgiam-bastion-"
  role        = aws_iam_role.bastion.name
}

# The provider removes the default rule of new groups that allows all outbound traffic.
resource "aws_security_group" "bastion" {
  name_prefix = "pgiam-bastion-"
  description = "pgiam bastion: no inbound; outbound to the database and Systems Manager"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_egress_rule" "database" {
  description                  = "The database"
  security_group_id            = aws_security_group.bastion.id
  ip_protocol                  = "tcp"
  from_port                    = var.database_port
  to_port                      = var.database_port
  referenced_security_group_id = var.database_security_group_id
}

resource "aws_vpc_security_group_egress_rule" "systems_manager" {
  count             = var.create_vpc_endpoints ? 0 : 1
  description       = "Systems Manager"
  security_group_id = aws_security_group.bastion.id
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_vpc_security_group_egress_rule" "endpoints" {
  count                        = var.create_vpc_endpoints ? 1 : 0
  description                  = "Systems Manager, through the VPC endpoints"
  security_group_id            = aws_security_group.bastion.id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
  referenced_security_group_id = aws_security_group.endpoints[0].id
}

resource "aws_vpc_security_group_ingress_rule" "database" {
  description                  = "pgiam bastion"
  security_group_id            = var.database_security_group_id
  ip_protocol                  = "tcp"
  from_port                    = var.database_port
  to_port                      = var.database_port
  referenced_security_group_id = aws_security_group.bastion.id
}

resource "aws_instance" "bastion" {
  ami                         = data.aws_ssm_parameter.image.insecure_value
  instance_type               = var.instance_type
  subnet_id                   = var.subnet_id
  associate_public_ip_address = false
  vpc_security_group_ids      = [aws_security_group.bastion.id]
  iam_instance_profile        = aws_iam_instance_profile.bastion.name

  # IMDSv2 only, and only for the instance itself.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

@relay:begin@
  user_data = <<-EOT
    #!/bin/bash
    set -euo pipefail
    cd "$(mktemp -d)"
    # The way out may come up later than the instance.
    for attempt in $(seq 30); do
      if [ -n "${var.relay_bucket}" ]; then
        aws s3 cp --only-show-errors "s3://${var.relay_bucket}/${var.relay_key}" pgiam && break
      else
        curl --proto =https --fail --silent --show-error --location --output pgiam "${var.relay_url}" && break
      fi
      sleep 10
    done
    echo "${var.relay_sha256}  pgiam" | sha256sum --check
    install -m 755 pgiam /usr/bin/pgiam
    mkdir -p /etc/pgiam
    cat > /etc/pgiam/relay.env <<'ENV'
    PGIAM_ALLOW=${var.relay_allow}
    PGIAM_PORT=${var.relay_port}
    ENV
    cat > /etc/systemd/system/pgiam-relay.service <<'UNIT'
    @relay-unit@
    UNIT
    systemctl daemon-reload
    systemctl enable --now pgiam-relay
  EOT

@relay:end@
  root_block_device {
    encrypted             = true
    volume_type           = "gp3"
    delete_on_termination = true
  }

  tags = {
    Name            = local.name
    "pgiam:bastion" = "true"
  }

  lifecycle {
    # A newer image does not replace the instance, because that would change its id.
    ignore_changes = [ami]
  }

  depends_on = [aws_iam_role_policy_attachment.agent]
}

resource "aws_security_group" "endpoints" {
  count       = var.create_vpc_endpoints ? 1 : 0
  name_prefix = "pgiam-endpoints-"
  description = "VPC endpoints of Systems Manager: inbound from the pgiam bastion"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  count                        = var.create_vpc_endpoints ? 1 : 0
  description                  = "pgiam bastion"
  security_group_id            = aws_security_group.endpoints[0].id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
  referenced_security_group_id = aws_security_group.bastion.id
}

resource "aws_vpc_security_group_ingress_rule" "endpoint_clients" {
  count             = var.create_vpc_endpoints && var.endpoint_client_cidr != "" ? 1 : 0
  description       = "Other machines in the VPC that use Systems Manager"
  security_group_id = aws_security_group.endpoints[0].id
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = var.endpoint_client_cidr
}

resource "aws_vpc_endpoint" "systems_manager" {
  for_each            = var.create_vpc_endpoints ? var.endpoint_services : []
  vpc_endpoint_type   = "Interface"
  service_name        = "com.amazonaws.${data.aws_region.current.name}.${each.key}"
  vpc_id              = var.vpc_id
  subnet_ids          = [var.subnet_id]
  security_group_ids  = [aws_security_group.endpoints[0].id]
  private_dns_enabled = true
}

output "instance_id" {
  description = "The bastion"
  value       = aws_instance.bastion.id
}

output "pgiam_toml" {
  description = "The line for the target in pgiam.toml"
  value       = "bastion = \"${aws_instance.bastion.id}\""
}
