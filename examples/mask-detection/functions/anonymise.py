"""Blur every face in a photo: its features go, a mask stays visible.

Reads INPUT_FILE_PATH, writes one JPEG to TMP_OUTPUT_DIR. Detectors are less sure of blurred faces,
so the JPEG's comment says where they are, for the functions that follow:
`{"faces":[{"x":..,"y":..,"width":..,"height":..,"score":..}],"width":..,"height":..}`
(pixels of the written picture, faces from left to right). No other metadata is kept.

Settings (environment): FACE_MODEL, the name of the face detection model.
"""

from __future__ import annotations

import os
import sys

sys.dont_write_bytecode = True
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps, UnidentifiedImageError

from inference_client import InferenceError, infer

MAX_PIXELS = 40_000_000
MAX_FACES = 500  # as many as surely fit a JPEG comment (64 KiB)
DETECTION_SIDE = 800  # the photo's long side, as the detector sees it
STRIDE = 4  # input pixels per heatmap cell
SCORE_THRESHOLD = 0.35
OVERLAP_THRESHOLD = 0.3
# What's left of a face: this many pixels across. The eyes tell most about who it is and nothing
# about a mask; with fewer pixels further down, the classifier no longer sees masks.
EYES_PIXELS, LOWER_PIXELS = 5, 12
EYES_END = 0.4  # the eyes' part ends here, in box heights from the top
ELLIPSE = 1.3  # size of the fully blurred ellipse, in face boxes
FEATHER = 0.12  # width of the soft edge outside the ellipse, in face widths
JPEG_QUALITY = 90


class PhotoError(Exception):
    """The photo can't be anonymised; the message is for people."""


class Face(NamedTuple):
    """A face's box in pixels of the photo, and how sure the detector is (0 to 1)."""

    x: float
    y: float
    width: float
    height: float
    score: float


def load_photo(path: Path) -> Image.Image:
    """Decode a photo to RGB, turned upright, without metadata."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise PhotoError(
                    f"the photo has {image.width}x{image.height} pixels, more than {MAX_PIXELS}: send a smaller one"
                )
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError as error:
        raise PhotoError("not an image: send a JPEG, PNG or WebP file") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PhotoError(f"a damaged image ({error}): send a JPEG, PNG or WebP file") from error
    upright.info.clear()
    return upright


def detect_faces(photo: Image.Image, model: str) -> list[Face]:
    """Ask the detector for the faces of `photo`.

    The model takes `image`: float32 [1, 3, H, W], RGB, 0..255, H and W multiples of 32, and gives,
    each for the H/4 x W/4 cells: `heatmap` [1, 1, ..] (a face's centre is here, 0..1), `scale`
    [1, 2, ..] (log of the box's height and width in cells), `offset` [1, 2, ..] (the centre's y
    and x within the cell).
    """
    shrink = min(1.0, DETECTION_SIDE / max(photo.size))
    width, height = (max(32, round(side * shrink / 32) * 32) for side in photo.size)
    pixels = np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    outputs = infer(model, {"image": pixels.transpose(2, 0, 1)[None]})
    try:
        heatmap, scale, offset = outputs["heatmap"][0, 0], outputs["scale"][0], outputs["offset"][0]
    except KeyError as error:
        raise InferenceError(f"model {model!r} has no output {error}: is FACE_MODEL a face detector?") from error

    rows, columns = np.nonzero(heatmap > SCORE_THRESHOLD)
    scores = heatmap[rows, columns]
    box_heights, box_widths = np.exp(scale[:, rows, columns]) * STRIDE
    centres_y = (rows + offset[0, rows, columns] + 0.5) * STRIDE
    centres_x = (columns + offset[1, rows, columns] + 0.5) * STRIDE
    boxes = np.stack([centres_x - box_widths / 2, centres_y - box_heights / 2, box_widths, box_heights], axis=1)
    boxes *= np.array([photo.width / width, photo.height / height] * 2)

    faces: list[Face] = []
    for index in np.argsort(-scores, kind="stable"):
        face = Face(*boxes[index].tolist(), float(scores[index]))
        if all(overlap(face, kept) < OVERLAP_THRESHOLD for kept in faces):
            faces.append(face)
    return sorted(faces)


def overlap(a: Face, b: Face) -> float:
    """Return the intersection over union of two boxes (0 to 1)."""
    across = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    down = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    common = max(0.0, across) * max(0.0, down)
    return common / (a.width * a.height + b.width * b.height - common)


def blur_face(photo: Image.Image, face: Face) -> None:
    """Blur one face in place.

    The area is averaged down to a few pixels and smoothly scaled up again: unlike after a
    Gaussian blur, nothing finer than these pixels is left to be restored.
    """
    feather = FEATHER * face.width
    centre_x, centre_y = face.x + face.width / 2, face.y + face.height / 2
    half_width, half_height = face.width * ELLIPSE / 2, face.height * ELLIPSE / 2
    left = max(0, round(centre_x - half_width - 2 * feather))
    top = max(0, round(centre_y - half_height - 2 * feather))
    right = min(photo.width, round(centre_x + half_width + 2 * feather))
    bottom = min(photo.height, round(centre_y + half_height + 2 * feather))
    if left >= right or top >= bottom:
        return

    area = photo.crop((left, top, right, bottom))

    def coarsen(pixels_across: int) -> Image.Image:
        cell = max(1.0, face.width / pixels_across)
        coarse = (max(1, round(area.width / cell)), max(1, round(area.height / cell)))
        return area.resize(coarse, Image.Resampling.BOX).resize(area.size, Image.Resampling.BICUBIC)

    eyes = Image.new("L", area.size)
    eyes.paste(255, (0, 0, area.width, max(0, round(face.y + EYES_END * face.height) - top)))
    eyes = eyes.filter(ImageFilter.BoxBlur(0.04 * face.height))
    blurred = Image.composite(coarsen(EYES_PIXELS), coarsen(LOWER_PIXELS), eyes)

    def ellipse(grow: float) -> Image.Image:
        mask = Image.new("L", area.size)
        x, y = centre_x - left, centre_y - top
        across, down = half_width + grow, half_height + grow
        ImageDraw.Draw(mask).ellipse((x - across, y - down, x + across, y + down), fill=255)
        return mask

    # The soft edge lies outside the ellipse; inside, nothing of the original shines through.
    soft = ellipse(feather).filter(ImageFilter.GaussianBlur(feather / 2))
    soft.paste(255, mask=ellipse(0))
    photo.paste(blurred, (left, top), soft)


def describe(face: Face, photo: Image.Image) -> dict[str, float]:
    """Return the face's box in whole pixels, cut at the photo's borders, and its score."""
    left, top = max(0, round(face.x)), max(0, round(face.y))
    right = min(photo.width, round(face.x + face.width))
    bottom = min(photo.height, round(face.y + face.height))
    return {"x": left, "y": top, "width": right - left, "height": bottom - top, "score": round(face.score, 3)}


def main() -> None:
    """Anonymise the photo that the environment names."""
    source = Path(os.environ["INPUT_FILE_PATH"])
    key = os.environ.get("STORAGE_OBJECT_KEY") or source.name
    target = Path(os.environ["TMP_OUTPUT_DIR"], Path(key).stem + ".jpg")

    photo = load_photo(source)
    faces = detect_faces(photo, os.environ.get("FACE_MODEL", "face-detector"))
    if len(faces) > MAX_FACES:
        raise PhotoError(f"{len(faces)} faces found, more than {MAX_FACES}: send a part of the photo")
    for face in faces:
        blur_face(photo, face)

    report = {"faces": [describe(face, photo) for face in faces], "width": photo.width, "height": photo.height}
    comment = json.dumps(report, separators=(",", ":"))
    photo.save(target, "JPEG", quality=JPEG_QUALITY, comment=comment.encode())
    print(json.dumps({"photo": key, "output": target.name, "faces": len(faces)}))


if __name__ == "__main__":
    try:
        main()
    except KeyError as error:
        sys.exit(f"error: the environment variable {error} is not set: the runtime sets it")
    except (PhotoError, InferenceError) as error:
        sys.exit(f"error: {os.environ.get('STORAGE_OBJECT_KEY', 'photo')}: {error}")
