"""An account at moto with databases, a proxy and a machine, made by boto3.

Prints its address, and ends with standard input.
"""

import logging
import sys

import boto3
from moto.server import ThreadedMotoServer

REGION = "eu-central-1"


def client(service, url):
    return boto3.client(
        service,
        region_name=REGION,
        endpoint_url=url,
        aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
        aws_secret_access_key="of-no-worth",
    )


def machines(url):
    """A machine, and the subnets of its VPC."""
    ec2 = client("ec2", url)
    subnets = [subnet["SubnetId"] for subnet in ec2.describe_subnets()["Subnets"]]
    ec2.run_instances(
        ImageId=ec2.describe_images()["Images"][0]["ImageId"],
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[
            {
                "ResourceType": "instance",
                "Tags": [{"Key": "Name", "Value": "my & bastion"}],
            }
        ],
    )
    return subnets


def databases(url, subnets):
    rds = client("rds", url)
    rds.create_db_subnet_group(
        DBSubnetGroupName="private",
        DBSubnetGroupDescription="private",
        SubnetIds=subnets,
    )
    small = {"DBInstanceClass": "db.t4g.micro", "AllocatedStorage": 20}
    user = {"MasterUsername": "postgres", "MasterUserPassword": "of-no-worth"}
    rds.create_db_instance(
        DBInstanceIdentifier="billing",
        Engine="postgres",
        DBSubnetGroupName="private",
        Port=5433,
        EnableIAMDatabaseAuthentication=True,
        **small,
        **user,
    )
    rds.create_db_instance(
        DBInstanceIdentifier="shop", Engine="mysql", **small, **user
    )
    rds.create_db_cluster(
        DBClusterIdentifier="orders", Engine="aurora-postgresql", **user
    )
    rds.create_db_instance(
        DBInstanceIdentifier="orders-1",
        DBClusterIdentifier="orders",
        DBInstanceClass="db.r7g.large",
        Engine="aurora-postgresql",
    )
    rds.create_db_proxy(
        DBProxyName="front",
        EngineFamily="POSTGRESQL",
        Auth=[
            {
                "AuthScheme": "SECRETS",
                "SecretArn": f"arn:aws:secretsmanager:{REGION}:123456789012:secret:x",
                "IAMAuth": "REQUIRED",
            }
        ],
        RoleArn="arn:aws:iam::123456789012:role/proxy",
        VpcSubnetIds=subnets,
    )


def main():
    # A line for every request would hide what goes wrong.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    databases(url, machines(url))
    client("iam", url).create_user(UserName="somebody")
    print(url, flush=True)
    sys.stdin.read()
    server.stop()


main()
