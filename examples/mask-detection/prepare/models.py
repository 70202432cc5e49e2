"""Write the two ONNX models of the example and check that they compute what they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import version_converter
from onnx.reference import ReferenceEvaluator
from PIL import Image

import keras_to_onnx

TOLERANCE = 1e-4
DETECTOR_NAMES = {"input.1": "image", "537": "heatmap", "538": "scale", "539": "offset", "540": "landmarks"}


class ModelError(Exception):
    """A model does not compute what it should."""


def write_face_detector(source: bytes, target: Path, portrait: Image.Image) -> str:
    """Write CenterFace for photos of any size (multiples of 32); return what the check saw.

    `image` float32 [N, 3, H, W] (RGB, 0..255) -> `heatmap` [N, 1, H/4, W/4] (0..1), `scale`
    [N, 2, ..], `offset` [N, 2, ..], `landmarks` [N, 10, ..], all float32. The original declares a
    batch of ten 32x32 images, numbers its tensors, and lists its weights as inputs.
    """
    model = onnx.load_from_string(source)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)

    for node in model.graph.node:
        node.input[:] = [DETECTOR_NAMES.get(name, name) for name in node.input]
        node.output[:] = [DETECTOR_NAMES.get(name, name) for name in node.output]
    for value in model.graph.input:
        _declare(value, {0: "N", 2: "height", 3: "width"})
    for value in model.graph.output:
        _declare(value, {0: "N", 2: "height_4", 3: "width_4"})

    model.ir_version = keras_to_onnx.IR_VERSION
    model = version_converter.convert_version(model, keras_to_onnx.OPSET)
    onnx.checker.check_model(model)
    summary = _check_face_detector(model, portrait)
    target.write_bytes(model.SerializeToString(deterministic=True))
    return summary


def _declare(value: onnx.ValueInfoProto, names: dict[int, str]) -> None:
    value.name = DETECTOR_NAMES[value.name]
    for axis, name in names.items():
        value.type.tensor_type.shape.dim[axis].dim_param = name


def _check_face_detector(model: onnx.ModelProto, portrait: Image.Image) -> str:
    """Run the model on two sizes; it must see the one face of the 512x512 portrait."""
    evaluator = ReferenceEvaluator(model)
    shapes = [output.shape for output in evaluator.run(None, {"image": np.zeros((2, 3, 64, 96), np.float32)})]
    if shapes != [(2, channels, 16, 24) for channels in (1, 2, 2, 10)]:
        raise ModelError(f"face detector: unexpected output shapes {shapes} for a 96x64 image")

    pixels = np.asarray(portrait, np.float32).transpose(2, 0, 1)[None]
    heatmap, scale, *_ = evaluator.run(None, {"image": pixels})
    row, column = np.unravel_index(heatmap[0, 0].argmax(), heatmap.shape[2:])
    peak = float(heatmap[0, 0, row, column])
    height, width = np.exp(scale[0, :, row, column]) * 4
    summary = f"peak {peak:.2f} at x={column * 4}, y={row * 4}, {width:.0f}x{height:.0f} pixels"
    if not (abs(peak - 0.93) < 0.02 and (column * 4, row * 4) == (224, 116)):
        raise ModelError(f"face detector: expected a peak of 0.93 at x=224, y=116 in the portrait, got {summary}")
    return summary


def write_mask_classifier(source: Path, target: Path, face: Image.Image) -> str:
    """Convert the Keras classifier; return how closely ONNX agrees with a plain numpy pass.

    `image` float32 [N, 224, 224, 3] (RGB, -1..1) -> `probabilities` float32 [N, 2], the first for
    a mask, the second for none.
    """
    layers = keras_to_onnx.read_keras(source)
    model = keras_to_onnx.to_onnx(layers, "mask-classifier")

    pixels = np.asarray(face.resize((224, 224)), np.float32) / 127.5 - 1
    noise = np.random.default_rng(0).uniform(-1, 1, pixels.shape).astype(np.float32)
    batch = np.stack([pixels, noise])
    expected = keras_to_onnx.forward(layers, batch)
    (found,) = ReferenceEvaluator(model).run(None, {keras_to_onnx.INPUT_NAME: batch})
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:  # also true for NaN
        raise ModelError(f"mask classifier: ONNX and numpy differ by {difference:.1e}, more than {TOLERANCE:.0e}")
    target.write_bytes(model.SerializeToString(deterministic=True))
    return f"ONNX and numpy differ by at most {difference:.1e}"
