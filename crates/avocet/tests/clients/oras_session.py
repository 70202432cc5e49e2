"""Pushes and pulls artifacts of a hub's registry with oras, and models packed as other tools do it. Ends with an error
at the first surprise."""

import io
import json
import pathlib
import sys
import tarfile
import tempfile

import oras.client
import oras.oci

registry, token, model = sys.argv[1:4]
WEIGHT = "application/vnd.cncf.model.weight.v1"
folder = pathlib.Path(tempfile.mkdtemp())
client = oras.client.OrasClient(hostname=registry, insecure=True, auth_backend="basic")
client.auth.set_basic_auth("me", token)


def put(name, content):
    (folder / name).write_bytes(content)
    return folder / name


def push(place, files, **more):
    named = [f"{path}:{media_type}" for path, media_type in files]
    answer = client.push(f"{registry}/{place}", files=named, disable_path_validation=True, quiet=True, **more)
    assert answer.status_code == 201, answer.text
    return answer.headers["Docker-Content-Digest"]


# Any files, in pieces too, with annotations, and something that refers to them.
notes = put("notes.txt", b"found at line 7")
large = put("large.bin", bytes(range(256)) * 4096)
digest = push(
    "team/things:v1",
    [(notes, "text/plain"), (large, "application/octet-stream")],
    do_chunked=True,
    chunk_size=300_000,
    manifest_annotations={"org.example.line": "7"},
)
manifest = client.get_manifest(f"{registry}/team/things:v1")
assert manifest["annotations"]["org.example.line"] == "7", manifest
assert client.get_tags(f"{registry}/team/things") == ["v1"]
size = len(client.do_request(f"http://{registry}/v2/team/things/manifests/{digest}", headers={"Accept": "*/*"}).content)
subject = oras.oci.Subject("application/vnd.oci.image.manifest.v1+json", digest, size)
push("team/things:about", [(notes, "text/plain")], subject=subject)
referrers = client.do_request(f"http://{registry}/v2/team/things/referrers/{digest}").json()
assert len(referrers["manifests"]) == 1, referrers
for pulled in client.pull(f"{registry}/team/things:v1", outdir=str(folder / "pulled")):
    assert pathlib.Path(pulled).read_bytes() == (folder / pathlib.Path(pulled).name).read_bytes(), pulled
assert len(list((folder / "pulled").rglob("*.*"))) == 2
stranger = oras.client.OrasClient(hostname=registry, insecure=True, auth_backend="basic")
stranger.auth.set_basic_auth("me", "0123456789")
try:
    stranger.get_tags(f"{registry}/team/things")
    raise SystemExit("a wrong token opens the door")
except ValueError as error:
    assert "401" in str(error) or "Unauthorized" in str(error), error


# Models as others pack them.
def tar(name, files, mode):
    path = folder / name
    with tarfile.open(path, mode) as archive:
        for inside, content in files.items():
            entry = tarfile.TarInfo(inside)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


content = pathlib.Path(model).read_bytes()
push("models/packed:gzip", [(tar("model.tgz", {"affine.onnx": content}, "w:gz"), f"{WEIGHT}.tar+gzip")])
push("models/packed:tar", [(tar("model.tar", {"./affine.onnx": content}, "w"), f"{WEIGHT}.tar")])
extra = tar("extra.tar", {"labels.txt": b"one\ntwo\n"}, "w")
push(
    "models/packed:docs",
    [(tar("again.tgz", {"affine.onnx": content}, "w:gz"), f"{WEIGHT}.tar+gzip"),
     (extra, "application/vnd.cncf.model.doc.v1.tar")],
)

# An image of two layers of which the upper one replaces a file and takes another away, below an index.
lower = tar("lower.tgz", {"models/affine.onnx": b"old", "models/junk": b"", "etc/passwd": b""}, "w:gz")
upper = tar("upper.tgz", {"models/.wh.junk": b"", "models/affine.onnx": content}, "w:gz")
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
digest = push("models/packed:image", [(lower, LAYER), (upper, LAYER)])
answer = client.do_request(f"http://{registry}/v2/models/packed/manifests/{digest}", headers={"Accept": "*/*"})
index = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.index.v1+json",
    "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": digest,
        "size": len(answer.content),
        "platform": {"os": "linux", "architecture": "arm64"},
    }],
}
answer = client.do_request(
    f"http://{registry}/v2/models/packed/manifests/car",
    "PUT",
    data=json.dumps(index).encode(),
    headers={"Content-Type": index["mediaType"]},
)
assert answer.status_code == 201, answer.text
