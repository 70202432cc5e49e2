"""Write small pictures in every format that is read: red, green, blue and grey quarters of 32 x 24 pixels.

    pip install pillow==12.3.0
    python make_pictures.py
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
ORIENTATION = 0x0112


def quarters() -> Image.Image:
    picture = Image.new("RGB", (32, 24))
    for colour, place in [((220, 30, 20), (0, 0)), ((20, 200, 40), (16, 0)), ((30, 40, 210), (0, 12)), ((128,) * 3, (16, 12))]:
        picture.paste(colour, (*place, place[0] + 16, place[1] + 12))
    return picture


def main() -> None:
    picture = quarters()
    jpeg = {"format": "JPEG", "quality": 95, "subsampling": 0}
    picture.save(HERE / "baseline.jpg", **jpeg)
    picture.save(HERE / "progressive.jpg", progressive=True, **jpeg)
    picture.convert("L").save(HERE / "gray.jpg", **jpeg)
    picture.convert("CMYK").save(HERE / "cmyk.jpg", **jpeg)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    turned.save(HERE / "turned.jpg", exif=exif, **jpeg)
    turned.save(HERE / "turned.png", exif=exif)
    turned.save(HERE / "turned.webp", exif=exif, lossless=True)
    picture.save(HERE / "rgb.png")
    transparent = picture.copy()
    transparent.putalpha(90)
    transparent.save(HERE / "rgba.png")
    transparent.save(HERE / "rgba.webp", lossless=True, exact=True)
    transparent.convert("LA").save(HERE / "gray_alpha.png")
    picture.convert("P", palette=Image.Palette.ADAPTIVE).save(HERE / "palette.png")
    picture.convert("L").convert("I;16").point(lambda value: value * 257).save(HERE / "gray16.png")
    picture.save(HERE / "lossy.webp", quality=95)


if __name__ == "__main__":
    main()
