"""What boto3 users do, against the endpoint named on the command line. Ends with an error at the first surprise."""

import base64
import hashlib
import io
import os
import sys
import tempfile
import threading
import urllib.request
import zlib
from urllib.error import HTTPError

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.client import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, MissingDependencyException
from botocore.httpsession import URLLib3Session

endpoint, access_key, secret_key = sys.argv[1:4]
MIB = 1024 * 1024


def client(secret=secret_key, **config):
    options = {"s3": {"addressing_style": "path"}, "retries": {"max_attempts": 1}, **config}
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret,
        region_name="us-east-1",
        config=Config(signature_version="s3v4", **options),
    )


s3 = client()


def fails(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        got = error.response["Error"]["Code"]
        assert got == code, f"{code} expected, got {error}"
        return error
    raise AssertionError(f"{code} expected of {arguments}")


def buckets():
    s3.create_bucket(Bucket="session")
    fails("BucketAlreadyOwnedByYou", s3.create_bucket, Bucket="session")
    s3.head_bucket(Bucket="session")
    fails("404", s3.head_bucket, Bucket="missing")
    assert "session" in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    assert s3.get_bucket_location(Bucket="session")["LocationConstraint"] is None
    s3.create_bucket(Bucket="short-lived")
    s3.put_object(Bucket="short-lived", Key="a", Body=b"")
    fails("BucketNotEmpty", s3.delete_bucket, Bucket="short-lived")
    s3.delete_object(Bucket="short-lived", Key="a")
    s3.delete_bucket(Bucket="short-lived")
    fails("NoSuchBucket", s3.list_objects_v2, Bucket="short-lived")
    fails("NoSuchBucket", s3.put_object, Bucket="short-lived", Key="a", Body=b"x" * 100_000)


def objects():
    key = "dir/ü +%20 &<>'\".txt"
    put = s3.put_object(
        Bucket="session", Key=key, Body=b"hello world", ContentType="text/x-test", Metadata={"origin": "camera-7"}
    )
    assert put["ETag"] == '"5eb63bbbe01eeed093cb22bb8f5acdc3"', put
    got = s3.get_object(Bucket="session", Key=key)
    assert got["Body"].read() == b"hello world"
    assert (got["ContentType"], got["Metadata"], got["ContentLength"]) == ("text/x-test", {"origin": "camera-7"}, 11)
    head = s3.head_object(Bucket="session", Key=key)
    assert (head["ETag"], head["ContentLength"], head["Metadata"]) == (put["ETag"], 11, {"origin": "camera-7"})
    assert head["LastModified"] == got["LastModified"]

    fails("NoSuchKey", s3.get_object, Bucket="session", Key="missing")
    fails("404", s3.head_object, Bucket="session", Key="missing")
    fails("NoSuchBucket", s3.get_object, Bucket="missing", Key="missing")
    fails("KeyTooLongError", s3.put_object, Bucket="session", Key="k" * 1025, Body=b"")
    fails("MetadataTooLarge", s3.put_object, Bucket="session", Key="k", Body=b"", Metadata={"a": "b" * 2048})
    empty = s3.put_object(Bucket="session", Key="empty", Body=b"")
    assert s3.get_object(Bucket="session", Key="empty")["Body"].read() == b"" and empty["ETag"]
    fails("InvalidRange", s3.get_object, Bucket="session", Key="empty", Range="bytes=-1")
    s3.delete_object(Bucket="session", Key="empty")
    s3.delete_object(Bucket="session", Key="empty")


def ranges():
    body = bytes(range(256)) * 4096
    s3.put_object(Bucket="session", Key="range", Body=body)
    for text, expected, shown in [
        ("bytes=0-9", body[:10], "bytes 0-9/1048576"),
        ("bytes=1048570-", body[-6:], "bytes 1048570-1048575/1048576"),
        ("bytes=-3", body[-3:], "bytes 1048573-1048575/1048576"),
        ("bytes=1000-2000000", body[1000:], "bytes 1000-1048575/1048576"),
    ]:
        got = s3.get_object(Bucket="session", Key="range", Range=text)
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
        assert (got["Body"].read(), got["ContentRange"]) == (expected, shown), text
    fails("InvalidRange", s3.get_object, Bucket="session", Key="range", Range="bytes=1048576-")


def conditions():
    etag = s3.put_object(Bucket="session", Key="cond", Body=b"1")["ETag"]
    s3.get_object(Bucket="session", Key="cond", IfMatch=etag)
    fails("304", s3.get_object, Bucket="session", Key="cond", IfNoneMatch=etag)
    fails("304", s3.head_object, Bucket="session", Key="cond", IfNoneMatch=etag)
    fails("PreconditionFailed", s3.get_object, Bucket="session", Key="cond", IfMatch='"0123"')
    modified = s3.head_object(Bucket="session", Key="cond")["LastModified"]
    fails("304", s3.get_object, Bucket="session", Key="cond", IfModifiedSince=modified)
    s3.get_object(Bucket="session", Key="cond", IfUnmodifiedSince=modified)
    fails("PreconditionFailed", s3.put_object, Bucket="session", Key="cond", Body=b"2", IfNoneMatch="*")
    s3.put_object(Bucket="session", Key="cond-new", Body=b"2", IfNoneMatch="*")
    fails("PreconditionFailed", s3.put_object, Bucket="session", Key="cond", Body=b"2", IfMatch='"0123"')
    s3.put_object(Bucket="session", Key="cond", Body=b"2", IfMatch=etag)
    assert s3.get_object(Bucket="session", Key="cond")["Body"].read() == b"2"


def lists():
    s3.create_bucket(Bucket="lists")
    keys = sorted([f"a/{n:02}" for n in range(30)] + ["a b", "b/é/1", "b/é/2", "c", "d+e", "z/"])
    for key in keys:
        s3.put_object(Bucket="lists", Key=key, Body=key.encode())
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="lists", PaginationConfig={"PageSize": 7})
    listed = [entry for page in pages for entry in page.get("Contents", [])]
    assert [entry["Key"] for entry in listed] == keys
    assert all(entry["Size"] == len(entry["Key"].encode()) for entry in listed)
    pages = s3.get_paginator("list_objects").paginate(Bucket="lists", Delimiter="/", PaginationConfig={"PageSize": 2})
    rolled = [(entry["Key"] for entry in page.get("Contents", [])) for page in pages]
    prefixes = s3.list_objects_v2(Bucket="lists", Delimiter="/")
    assert [entry["Prefix"] for entry in prefixes["CommonPrefixes"]] == ["a/", "b/", "z/"]
    assert [entry["Key"] for entry in prefixes["Contents"]] == ["a b", "c", "d+e"] and prefixes["KeyCount"] == 6
    assert [key for keys in rolled for key in keys] == ["a b", "c", "d+e"]
    below = s3.list_objects_v2(Bucket="lists", Prefix="b/", Delimiter="/")
    assert [entry["Prefix"] for entry in below["CommonPrefixes"]] == ["b/é/"] and "Contents" not in below
    after = s3.list_objects_v2(Bucket="lists", StartAfter="c", MaxKeys=1)
    assert [entry["Key"] for entry in after["Contents"]] == ["d+e"] and after["IsTruncated"]
    fails("InvalidArgument", s3.list_objects_v2, Bucket="lists", ContinuationToken="nonsense")
    deleted = s3.delete_objects(Bucket="lists", Delete={"Objects": [{"Key": key} for key in keys + ["never-there"]]})
    assert len(deleted["Deleted"]) == len(keys) + 1 and "Errors" not in deleted
    assert "Contents" not in s3.list_objects_v2(Bucket="lists")
    s3.delete_bucket(Bucket="lists")


def checksums():
    for algorithm in ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"]:
        try:
            put = s3.put_object(Bucket="session", Key="sum", Body=b"summed", ChecksumAlgorithm=algorithm)
        except MissingDependencyException:
            # Some algorithms need an extra of botocore.
            continue
        assert put[f"Checksum{algorithm}"], put
    fails("BadDigest", s3.put_object, Bucket="session", Key="sum", Body=b"summed", ChecksumCRC32="AAAAAA==")
    fails("BadDigest", s3.put_object, Bucket="session", Key="sum", Body=b"summed", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==")
    fails("InvalidDigest", s3.put_object, Bucket="session", Key="sum", Body=b"summed", ContentMD5="nonsense")
    assert s3.get_object(Bucket="session", Key="sum")["Body"].read() == b"summed"


def trailers():
    """What boto3 sends over TLS by default: aws-chunked, unsigned, with the checksum behind the bytes."""

    def send(key, body, checksum):
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in (body[:1000], body[1000:])) + b"0\r\n"
        headers = {
            "Content-Encoding": "aws-chunked",
            "X-Amz-Decoded-Content-Length": str(len(body)),
            "X-Amz-Trailer": "x-amz-checksum-crc32",
        }
        data = chunks + b"x-amz-checksum-crc32:" + checksum + b"\r\n\r\n"
        request = AWSRequest("PUT", f"{endpoint}/session/{key}", headers=headers, data=data)
        auth = S3SigV4Auth(Credentials(access_key, secret_key), "s3", "us-east-1")
        auth.payload = lambda _: "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
        auth.add_auth(request)
        return URLLib3Session().send(request.prepare())

    body = b"trailing" * 1000
    right = base64.b64encode(zlib.crc32(body).to_bytes(4, "big"))
    sent = send("trailed", body, right)
    assert sent.status_code == 200 and sent.headers["x-amz-checksum-crc32"] == right.decode(), sent.content
    assert s3.get_object(Bucket="session", Key="trailed")["Body"].read() == body
    refused = send("trailed-wrong", body, b"AAAAAA==")
    assert refused.status_code == 400 and b"BadDigest" in refused.content, refused.content
    fails("404", s3.head_object, Bucket="session", Key="trailed-wrong")


def large():
    config = TransferConfig(multipart_threshold=8 * MIB, multipart_chunksize=8 * MIB, max_concurrency=4)
    block = os.urandom(MIB)
    body = b"".join(bytes([n]) + block[1:] for n in range(27)) + b"tail"
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        s3.upload_file(file.name, "session", "large.bin", Config=config, ExtraArgs={"Metadata": {"kind": "large"}})
    parts = [body[start : start + 8 * MIB] for start in range(0, len(body), 8 * MIB)]
    md5s = b"".join(hashlib.md5(part).digest() for part in parts)
    head = s3.head_object(Bucket="session", Key="large.bin")
    assert head["ETag"] == f'"{hashlib.md5(md5s).hexdigest()}-{len(parts)}"', head
    assert (head["ContentLength"], head["Metadata"]) == (len(body), {"kind": "large"})
    got = io.BytesIO()
    s3.download_fileobj("session", "large.bin", got, Config=config)
    assert got.getvalue() == body
    s3.copy({"Bucket": "session", "Key": "large.bin"}, "session", "large-copy.bin", Config=config)
    copied = s3.get_object(Bucket="session", Key="large-copy.bin")
    assert hashlib.sha256(copied["Body"].read()).digest() == hashlib.sha256(body).digest()


def multipart():
    upload = s3.create_multipart_upload(Bucket="session", Key="parts", ContentType="a/b")["UploadId"]
    target = {"Bucket": "session", "Key": "parts", "UploadId": upload}
    etags = [s3.upload_part(PartNumber=n, Body=b"%d" % n * 1000, **target)["ETag"] for n in (1, 2)]
    listed = s3.list_parts(**target)["Parts"]
    assert [(part["PartNumber"], part["ETag"], part["Size"]) for part in listed] == [(1, etags[0], 1000), (2, etags[1], 1000)]
    named = [{"PartNumber": n + 1, "ETag": etag} for n, etag in enumerate(etags)]
    fails("InvalidPartOrder", s3.complete_multipart_upload, MultipartUpload={"Parts": named[::-1]}, **target)
    wrong = [{"PartNumber": 1, "ETag": etags[1]}]
    fails("InvalidPart", s3.complete_multipart_upload, MultipartUpload={"Parts": wrong}, **target)
    done = s3.complete_multipart_upload(MultipartUpload={"Parts": named}, **target)
    again = s3.complete_multipart_upload(MultipartUpload={"Parts": named}, **target)
    assert done["ETag"] == again["ETag"] and done["ETag"].endswith('-2"')
    got = s3.get_object(Bucket="session", Key="parts")
    assert got["Body"].read() == b"1" * 1000 + b"2" * 1000 and got["ContentType"] == "a/b"
    upload = s3.create_multipart_upload(Bucket="session", Key="given-up")["UploadId"]
    target = {"Bucket": "session", "Key": "given-up", "UploadId": upload}
    s3.upload_part(PartNumber=1, Body=b"x", **target)
    s3.abort_multipart_upload(**target)
    fails("NoSuchUpload", s3.upload_part, PartNumber=1, Body=b"x", **target)


def copies():
    s3.put_object(Bucket="session", Key="from é", Body=b"copied", ContentType="a/b", Metadata={"k": "v"})
    source = {"Bucket": "session", "Key": "from é"}
    s3.copy_object(Bucket="session", Key="to", CopySource=source)
    got = s3.get_object(Bucket="session", Key="to")
    assert (got["Body"].read(), got["ContentType"], got["Metadata"]) == (b"copied", "a/b", {"k": "v"})
    s3.copy_object(Bucket="session", Key="to", CopySource=source, MetadataDirective="REPLACE", Metadata={"k": "w"})
    assert s3.head_object(Bucket="session", Key="to")["Metadata"] == {"k": "w"}
    fails("NoSuchKey", s3.copy_object, Bucket="session", Key="to", CopySource={"Bucket": "session", "Key": "no"})
    fails("PreconditionFailed", s3.copy_object, Bucket="session", Key="to", CopySource=source, CopySourceIfMatch='"0"')


def signatures():
    fails("SignatureDoesNotMatch", client(secret="wrong-secret").list_buckets)
    parameters = {"Bucket": "session", "Key": "presigned"}
    url = s3.generate_presigned_url("put_object", Params=parameters, ExpiresIn=60)
    urllib.request.urlopen(urllib.request.Request(url, data=b"by url", method="PUT")).close()
    url = s3.generate_presigned_url("get_object", Params=parameters, ExpiresIn=60)
    assert urllib.request.urlopen(url).read() == b"by url"
    for changed in [url.replace("presigned?", "large.bin?"), url.replace("X-Amz-Expires=60", "X-Amz-Expires=600")]:
        try:
            urllib.request.urlopen(changed)
            raise AssertionError("a changed URL was accepted")
        except HTTPError as error:
            assert error.code == 403, error


def encryption():
    fails("NotImplemented", s3.put_object, Bucket="session", Key="e", Body=b"", ServerSideEncryption="AES256")


def many_at_once():
    failures = []

    def work(worker):
        mine = client()
        try:
            for n in range(20):
                key = f"many/{worker}/{n}"
                mine.put_object(Bucket="session", Key=key, Body=key.encode())
                assert mine.get_object(Bucket="session", Key=key)["Body"].read() == key.encode()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert s3.list_objects_v2(Bucket="session", Prefix="many/")["KeyCount"] == 160


for step in [
    buckets, objects, ranges, conditions, lists, checksums, trailers, large, multipart, copies, signatures, encryption,
    many_at_once,
]:
    step()
    print("ok:", step.__name__)
