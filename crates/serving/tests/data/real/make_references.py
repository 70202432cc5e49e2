"""Write references.json and sign.png: what ONNX Runtime and the packages' own code find with real models.

    pip install rapidocr-onnxruntime==1.4.4 silero-vad==6.2.3 useful-moonshine-onnx==20251121 magika==1.0.3 --no-deps
    pip install onnxruntime pillow opencv-python-headless pyclipper shapely pyyaml tqdm six
    python make_references.py PHOTOS MODELS

PHOTOS and MODELS are folders below `examples/mask-detection/build`. Speech is the sample of `useful-moonshine-onnx`,
behind as much silence as the test puts there.
"""

from __future__ import annotations

import json
import sys
import wave
from pathlib import Path
from sysconfig import get_paths

import cv2
import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageFont
from rapidocr_onnxruntime import RapidOCR

HERE = Path(__file__).parent
PACKAGES = Path(get_paths()["purelib"])
MASKS = ("cameraman.jpg", "astronaut-mask.jpg", "hopper-mask.jpg", "hopper.jpg", "pair-one-mask.jpg")
VOICE = ("silero_vad", "silero_vad_16k_op15", "silero_vad_op18_ifless", "silero_vad_half", "silero_vad_openvino_16k")
FILES = ("real/sign.png", "make_models.py", "label.onnx", "triton_rest.json")
SILENCE, CHUNK, CONTEXT = 8192, 512, 64


def rounded(values: object) -> list[float]:
    return [round(float(value), 4) for value in np.asarray(values).ravel()]


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options)


def mask(model: onnxruntime.InferenceSession, photo: Path) -> dict[str, object]:
    image = cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB)
    tensor = cv2.resize(image, (224, 224)).astype(np.float32) / 127.5 - 1
    return {"photo": photo.name, "scores": rounded(model.run(None, {"image": tensor[None]})[0])}


def draw_sign() -> np.ndarray:
    image = Image.new("L", (320, 160), 235)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=30)
    for y, text in ((24, "Exit to Gate 42"), (100, "Mind the step")):
        pen.text((20, y), text, font=font, fill=20)
    image.save(HERE / "sign.png", optimize=True)
    return cv2.cvtColor(np.array(image), cv2.COLOR_GRAY2BGR)


def read_sign() -> dict[str, object]:
    sign, ocr = draw_sign(), RapidOCR()
    tensor = ((sign.astype(np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None]
    probable = ocr.text_det.infer(tensor)[0][0, 0]
    _, _, parts, _ = cv2.connectedComponentsWithStats((probable > 0.3).astype(np.uint8))
    lines = []
    for x, y, width, height, _ in sorted(parts[1:].tolist(), key=lambda part: part[1]):
        # As far as the detector shrinks what it is taught.
        grown = int(width * height * 1.6 / (2 * (width + height)))
        crop = sign[y - grown : y + height + grown, x - grown : x + width + grown]
        (text, score), *_ = ocr.text_rec(crop)[0]
        ways = [ocr.text_cls.resize_norm_img(image)[None] for image in (crop, crop[::-1, ::-1])]
        ways = [rounded(ocr.text_cls.infer(way.astype(np.float32))[0]) for way in ways]
        line = {"box": [x, y, width, height], "grown": grown, "text": text, "score": round(float(score), 4)}
        lines.append({**line, "upright": ways[0], "turned": ways[1]})
    letters = {index: letter for index, letter in enumerate(ocr.text_rec.postprocess_op.character) if letter.isascii()}
    letters = {index: letter for index, letter in letters.items() if len(letter) == 1}
    return {"lines": lines, "letters": [list(letters), "".join(letters.values())]}


def kind(model: onnxruntime.InferenceSession, labels: list[str], name: str) -> dict[str, object]:
    content = (HERE.parent / name).read_bytes()
    first, last = content[:4096].lstrip()[:1024], content[-4096:].rstrip()[-1024:]
    tokens = [*first, *[256] * (1024 - len(first)), *[256] * (1024 - len(last)), *last]
    scores = model.run(None, {"bytes": np.array([tokens], np.int32)})[0][0]
    return {"file": name, "kind": labels[scores.argmax()], "score": round(float(scores.max()), 4)}


def speech() -> np.ndarray:
    with wave.open(str(PACKAGES / "moonshine_onnx/assets/beckett.wav")) as sample:
        heard = np.frombuffer(sample.readframes(sample.getnframes()), "<i2").astype(np.float32) / 32768
    return np.concatenate([np.zeros(CONTEXT + SILENCE, np.float32), heard])


def listen(name: str, sound: np.ndarray, chunks: int) -> list[float]:
    model = session(PACKAGES / f"silero_vad/data/{name}.onnx")
    takes_rate = any(given.name == "sr" for given in model.get_inputs())
    state, heard = np.zeros((2, 1, 128), np.float32), []
    for start in range(0, chunks * CHUNK, CHUNK):
        feed = {"input": sound[None, start : start + CONTEXT + CHUNK], "state": state}
        probability, state = model.run(None, feed | ({"sr": np.array(16000)} if takes_rate else {}))
        heard += rounded(probability)
    return heard


def main() -> None:
    photos, models = Path(sys.argv[1]), Path(sys.argv[2])
    classifier, sound = session(models / "mask-classifier.onnx"), speech()
    magika = PACKAGES / "magika/models/standard_v3_3"
    judge, labels = session(magika / "model.onnx"), json.loads((magika / "config.min.json").read_text())
    references = {
        "masks": [mask(classifier, photos / name) for name in MASKS],
        "sign": read_sign(),
        "files": [kind(judge, labels["target_labels_space"], name) for name in FILES],
        "speech": {name: listen(name, sound, 60 if name == VOICE[0] else 40) for name in VOICE},
    }
    text = json.dumps(references, separators=(",", ":"), ensure_ascii=True)
    for start in ('{"photo"', '"sign"', '{"box"', '"files"', '{"file"', '"letters"', '"speech"', *(f'"{name}":' for name in VOICE)):
        text = text.replace(start, "\n" + start)
    (HERE / "references.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
