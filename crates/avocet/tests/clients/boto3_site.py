"""Shares a bucket of a running site with the command line. Ends with an error at the first surprise."""

import sys

import boto3
from botocore.client import Config
from botocore.exceptions import ClientError

endpoint, access_key, secret_key = sys.argv[1:4]


def client(secret):
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret,
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
    )


s3 = client(secret_key)
assert s3.get_object(Bucket="shared", Key="by-cli.txt")["Body"].read() == b"from the command line"
s3.put_object(Bucket="shared", Key="by-boto3.txt", Body=b"from boto3")
assert [entry["Key"] for entry in s3.list_objects_v2(Bucket="shared")["Contents"]] == ["by-boto3.txt", "by-cli.txt"]
s3.put_object(Bucket="shared", Key="gone", Body=b"")
s3.delete_object(Bucket="shared", Key="gone")
try:
    s3.head_object(Bucket="shared", Key="gone")
    raise SystemExit("a deleted object is there")
except ClientError as error:
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 404
try:
    client("wrong").list_buckets()
    raise SystemExit("a wrong key opens the door")
except ClientError as error:
    assert error.response["Error"]["Code"] == "SignatureDoesNotMatch", error
