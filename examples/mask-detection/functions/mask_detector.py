"""Say for every blurred face in a photo whether it wears a mask.

Reads INPUT_FILE_PATH, a JPEG written by anonymise.py, whose comment says where the faces are.
Writes two files to TMP_OUTPUT_DIR: `<stem>.json`
`{"photo":..,"faces":[{"x":..,"y":..,"width":..,"height":..,"mask":true,"probability":0.98}]}`
(faces from left to right; `probability` is that of the stated class), and `<stem>.jpg`, the photo
with a labelled box around each face.

Settings (environment): MASK_MODEL, the name of the mask classification model.
"""

from __future__ import annotations

import os
import sys

sys.dont_write_bytecode = True
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter, UnidentifiedImageError

from inference_client import InferenceError, infer

SIDE = 224  # pixels of a face as the classifier sees it
# Added around a face's box, half of it on each side. The blur makes single answers shaky, so each
# face is shown with several margins and the answers are averaged.
MARGINS = (0.3, 0.4, 0.5)
# The classifier was trained on sharp faces. This steepens the edges that the blur left: the
# outline of a mask, not the features of a face, which are gone.
SHARPEN = ImageFilter.UnsharpMask(radius=12, percent=250, threshold=0)
JPEG_QUALITY = 90
GREEN, RED, WHITE = (22, 130, 60), (190, 30, 40), (255, 255, 255)


class PhotoError(Exception):
    """The photo can't be classified; the message is for people."""


def load_photo(path: Path) -> tuple[Image.Image, list[dict[str, Any]]]:
    """Decode an anonymised photo to RGB; return it with the faces its comment lists."""
    try:
        with Image.open(path) as image:
            comment = image.info.get("comment")
            photo = image.convert("RGB")
    except UnidentifiedImageError as error:
        raise PhotoError("not an image: send what anonymise.py wrote") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PhotoError(f"a damaged image ({error}): send what anonymise.py wrote") from error
    photo.info.clear()
    if comment is None:
        raise PhotoError("the JPEG has no comment that lists the faces: send what anonymise.py wrote")
    try:
        faces = json.loads(comment)["faces"]
        for face in faces:
            if face["width"] < 1 or face["height"] < 1 or min(face["x"], face["y"]) < 0:
                raise ValueError(f"bad box {face}")
    except (KeyError, TypeError, ValueError) as error:
        raise PhotoError(f"the JPEG's comment does not list faces ({error}): send what anonymise.py wrote") from error
    return photo, faces


def crop_face(photo: Image.Image, face: dict[str, Any], margin: float) -> np.ndarray:
    """Return the face as the classifier wants it: float32 [224, 224, 3], RGB, -1..1."""
    across, down = face["width"] * margin / 2, face["height"] * margin / 2
    box = (
        max(0, round(face["x"] - across)),
        max(0, round(face["y"] - down)),
        min(photo.width, round(face["x"] + face["width"] + across)),
        min(photo.height, round(face["y"] + face["height"] + down)),
    )
    crop = photo.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box).filter(SHARPEN)
    return np.asarray(crop, np.float32) / 127.5 - 1


def classify(photo: Image.Image, faces: list[dict[str, Any]], model: str) -> list[dict[str, Any]]:
    """Return each face's box with `mask` and `probability`.

    The model takes `image`: float32 [N, 224, 224, 3] (RGB, -1..1), and gives `probabilities`:
    float32 [N, 2], the first for a mask, the second for none. All crops of all faces are one batch.
    """
    if not faces:
        return []
    crops = np.stack([crop_face(photo, face, margin) for face in faces for margin in MARGINS])
    probabilities = infer(model, {"image": crops}).get("probabilities")
    if probabilities is None or probabilities.shape != (len(crops), 2):
        raise InferenceError(f"model {model!r} gives no 'probabilities' [N, 2]: is MASK_MODEL a mask classifier?")
    averages = probabilities.reshape(len(faces), len(MARGINS), 2).mean(axis=1)
    return [
        {
            **{key: face[key] for key in ("x", "y", "width", "height")},
            "mask": bool(mask >= bare),
            "probability": round(float(max(mask, bare)), 4),
        }
        for face, (mask, bare) in zip(faces, averages)
    ]


def annotate(photo: Image.Image, faces: list[dict[str, Any]]) -> None:
    """Draw a labelled box around every face: green with a mask, red without."""
    if not faces:
        return
    from PIL import ImageDraw, ImageFont

    draw = ImageDraw.Draw(photo)
    size = max(12, min(photo.size) // 28)
    line = max(2, size // 8)
    font = ImageFont.load_default(size)
    for face in faces:
        colour = GREEN if face["mask"] else RED
        label = f"{'mask' if face['mask'] else 'no mask'} {face['probability']:.0%}"
        left, top = face["x"], face["y"]
        draw.rectangle((left, top, left + face["width"], top + face["height"]), outline=colour, width=line)
        _, _, width, height = draw.textbbox((0, 0), label, font=font)
        left = max(0, min(left, photo.width - width - 2 * line))
        top = max(0, top - height - 2 * line)
        draw.rectangle((left, top, left + width + 2 * line, top + height + 2 * line), fill=colour)
        draw.text((left + line, top + line), label, font=font, fill=WHITE)


def main() -> None:
    """Classify the faces of the photo that the environment names."""
    source = Path(os.environ["INPUT_FILE_PATH"])
    key = os.environ.get("STORAGE_OBJECT_KEY") or source.name
    target = Path(os.environ["TMP_OUTPUT_DIR"], Path(key).stem)

    photo, found = load_photo(source)
    faces = classify(photo, found, os.environ.get("MASK_MODEL", "mask-classifier"))
    annotate(photo, faces)
    photo.save(target.with_name(target.name + ".jpg"), "JPEG", quality=JPEG_QUALITY)
    report = {"photo": Path(key).name, "faces": faces}
    target.with_name(target.name + ".json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    masks = sum(face["mask"] for face in faces)
    print(json.dumps({"photo": key, "faces": len(faces), "masks": masks}))


if __name__ == "__main__":
    try:
        main()
    except KeyError as error:
        sys.exit(f"error: the environment variable {error} is not set: the runtime sets it")
    except (PhotoError, InferenceError) as error:
        sys.exit(f"error: {os.environ.get('STORAGE_OBJECT_KEY', 'photo')}: {error}")
