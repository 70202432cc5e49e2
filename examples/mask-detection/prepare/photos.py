"""Make the example's photos: portraits in the public domain, and variants with drawn-on masks."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from packages import MATPLOTLIB, SCIKIT_IMAGE

JPEG_QUALITY = 92
BLUE, WHITE, DARK_BLUE = (178, 212, 232), (240, 243, 245), (120, 175, 205)
STRAP_COLOUR = (225, 228, 230)
OVERSAMPLING = 4
EXIF_MAKE, EXIF_MODEL, EXIF_ORIENTATION = 0x010F, 0x0110, 0x0112

# Right half of a mask's outline, from the bridge of the nose to the chin, in the face's own
# coordinates: across in half face widths, down in distances from the eyes to the mouth.
OUTLINE = [(0, 0.34), (0.3, 0.4), (0.62, 0.6), (0.9, 0.66), (0.93, 0.95), (0.84, 1.35), (0.62, 1.75), (0.32, 1.98), (0, 2.05)]
STRAPS = [((0.88, 0.68), (1.06, 0.25)), ((0.82, 1.3), (1.08, 0.75))]
PLEATS = (0.85, 1.15, 1.45)


@dataclass(frozen=True)
class Pose:
    """Where a face is in its photo, in pixels: midway between the eyes, the mouth, the width."""

    eyes: tuple[float, float]
    mouth: tuple[float, float]
    width: float


ASTRONAUT = Pose(eyes=(225.1, 103.1), mouth=(222.4, 143.4), width=86)
HOPPER = Pose(eyes=(262.2, 196.1), mouth=(271.0, 275.6), width=181)


def write_all(cache: Path, folder: Path) -> int:
    """Write all photos to `folder`; return how many."""
    astronaut = read_scikit_image(cache, "astronaut.png")
    cameraman = read_scikit_image(cache, "camera.png")
    hopper = _decode(MATPLOTLIB.read(cache, "matplotlib/mpl-data/sample_data/grace_hopper.jpg"))
    astronaut_blue, astronaut_white = (draw_mask(astronaut, ASTRONAUT, colour) for colour in (BLUE, WHITE))
    hopper_white, hopper_dark = (draw_mask(hopper, HOPPER, colour) for colour in (WHITE, DARK_BLUE))

    photos = {
        "astronaut": astronaut,
        "astronaut-mask": astronaut_blue,
        "astronaut-mirrored": ImageOps.mirror(astronaut),
        "astronaut-mask-small": ImageOps.scale(astronaut_white, 0.5),
        "hopper": hopper,
        "hopper-mask": hopper_white,
        "hopper-mask-mirrored": ImageOps.mirror(hopper_dark),
        "cameraman": cameraman,
        "pair-one-mask": side_by_side([astronaut_blue, hopper]),
        "pair-two-masks": side_by_side([hopper_dark, ImageOps.mirror(astronaut_white)]),
        "group": side_by_side([astronaut, hopper_white, cameraman, ImageOps.mirror(astronaut_blue)]),
        "coffee": read_scikit_image(cache, "coffee.png"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, photo in photos.items():
        photo.save(folder / f"{name}.jpg", "JPEG", quality=JPEG_QUALITY)
    write_phone_photo(hopper_white, folder / "phone.jpg")
    (folder / "not-an-image.jpg").write_text("This is text, not a photo.\n", encoding="utf-8")
    return len(photos) + 2


def read_scikit_image(cache: Path, name: str) -> Image.Image:
    """Return one of scikit-image's sample pictures as RGB."""
    return _decode(SCIKIT_IMAGE.read(cache, f"skimage/data/{name}"))


def _decode(content: bytes) -> Image.Image:
    photo = Image.open(io.BytesIO(content)).convert("RGB")
    photo.info.clear()
    return photo


def side_by_side(photos: list[Image.Image]) -> Image.Image:
    """Return square photos next to each other, as in a video call."""
    side, gap = 400, 12
    canvas = Image.new("RGB", (len(photos) * (side + gap) + gap, side + 2 * gap), (32, 34, 38))
    for index, photo in enumerate(photos):
        square = photo.crop((0, 0, photo.width, photo.width))
        canvas.paste(square.resize((side, side), Image.Resampling.LANCZOS), (gap + index * (side + gap), gap))
    return canvas


def write_phone_photo(photo: Image.Image, target: Path) -> None:
    """Write a photo as a phone held sideways does: rotated, with metadata that tells so."""
    exif = Image.Exif()
    exif[EXIF_MAKE] = "Avocet"
    exif[EXIF_MODEL] = "Example phone"
    exif[EXIF_ORIENTATION] = 6  # to be turned clockwise by 90 degrees for viewing
    photo.transpose(Image.Transpose.ROTATE_90).save(target, "JPEG", quality=JPEG_QUALITY, exif=exif)


def draw_mask(photo: Image.Image, pose: Pose, colour: tuple[int, int, int]) -> Image.Image:
    """Return the photo with a surgical mask over the lower face: straps, shadow, pleats."""
    eyes, mouth = np.array(pose.eyes), np.array(pose.mouth)
    length = float(np.hypot(*(mouth - eyes)))
    down = (mouth - eyes) / length
    right = np.array([down[1], -down[0]])
    half_width = pose.width / 2

    # Everything happens in a square around the face.
    reach = 2.2 * half_width
    left, top = (max(0, int(v - reach)) for v in pose.eyes)
    area = photo.crop((left, top, min(photo.width, int(eyes[0] + reach)), min(photo.height, int(eyes[1] + reach + length))))
    size = (area.width * OVERSAMPLING, area.height * OVERSAMPLING)

    def pixel(point: tuple[float, float]) -> tuple[float, float]:
        x, y = (eyes + point[0] * half_width * right + point[1] * length * down - (left, top)) * OVERSAMPLING
        return float(x), float(y)

    outline = OUTLINE + [(-across, along) for across, along in OUTLINE[-2:0:-1]]
    shape = Image.new("L", size)
    ImageDraw.Draw(shape).polygon([pixel(point) for point in outline], fill=255)
    # Blurring and thresholding again rounds the corners.
    shape = shape.filter(ImageFilter.GaussianBlur(half_width * 0.12)).point(lambda v: min(255, max(0, (v - 96) * 4)))
    shadow = _coverage(shape.filter(ImageFilter.GaussianBlur(half_width * 0.24)), area.size)
    cover = _coverage(shape, area.size, soften=0.5)

    straps = Image.new("L", size)
    for start, end in STRAPS:
        for side in (-1, 1):
            ends = [pixel((side * across, along)) for across, along in (start, end)]
            ImageDraw.Draw(straps).line(ends, fill=255, width=max(1, round(half_width * 0.2)))
    strap_cover = 0.8 * _coverage(straps, area.size)

    rows, columns = np.mgrid[0 : area.height, 0 : area.width]
    from_eyes = np.stack([columns + left - eyes[0], rows + top - eyes[1]], axis=-1)
    light = _fabric_light(from_eyes @ right / half_width, from_eyes @ down / length)
    fabric = np.clip(np.array(colour) * light[..., None], 0, 255)

    pixels = np.asarray(area, np.float64) * (1 - 0.35 * shadow)
    pixels = pixels * (1 - strap_cover) + np.array(STRAP_COLOUR) * strap_cover
    pixels = pixels * (1 - cover) + fabric * cover
    masked = photo.copy()
    masked.paste(Image.fromarray(pixels.round().astype(np.uint8)), (left, top))
    return masked


def _coverage(layer: Image.Image, size: tuple[int, int], soften: float = 0.0) -> np.ndarray:
    """Return an oversampled layer at the photo's size: float64 [H, W, 1], 0..1."""
    small = layer.resize(size, Image.Resampling.LANCZOS).filter(ImageFilter.GaussianBlur(soften))
    return np.asarray(small, np.float64)[..., None] / 255


def _fabric_light(across: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Return the fabric's brightness (about 1) at points given in the face's coordinates."""
    light = 1 - 0.28 * across**2 - 0.1 * np.clip(along - 1.2, 0, 1)
    for pleat in PLEATS:
        sag = 0.1 * (1 - across**2) * (pleat - 0.8)
        light -= 0.16 * np.exp(-(((along - pleat - sag) / 0.035) ** 2))
        light += 0.05 * np.exp(-(((along - pleat + 0.07 - sag) / 0.04) ** 2))
    nose_wire = 0.4 + 0.22 * np.abs(across)
    return light - 0.1 * np.exp(-(((along - nose_wire) / 0.05) ** 2))
