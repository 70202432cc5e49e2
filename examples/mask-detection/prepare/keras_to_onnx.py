"""Convert a Keras HDF5 image classifier (functional API, 2-D CNN) to ONNX without TensorFlow.

The HDF5 file holds the graph as JSON (attribute `model_config`) and the weights as datasets.
`read_keras` reads both, `to_onnx` writes the same graph as ONNX, and `forward` computes it with
plain numpy, so that the conversion can be checked against something that shares no code with it.

Only the layers a MobileNetV2 with a dense head uses are known; any other one is an error.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 15
IR_VERSION = 8
INPUT_NAME = "image"
OUTPUT_NAME = "probabilities"


class ConversionError(Exception):
    """The Keras file uses something this converter does not know."""


@dataclass(frozen=True)
class Layer:
    """One Keras layer: its class, settings, the layers that feed it, and its weights by name."""

    name: str
    kind: str
    config: dict[str, Any]
    inputs: list[str]
    weights: dict[str, np.ndarray]


def read_keras(path: Path) -> list[Layer]:
    """Return the layers of the model in `path`, each after the layers that feed it."""
    with h5py.File(path, "r") as file:
        model = json.loads(file.attrs["model_config"])["config"]
        layers = [_read_layer(entry, file["model_weights"]) for entry in model["layers"]]
    known: set[str] = set()
    for layer in layers:
        if not known.issuperset(layer.inputs):
            raise ConversionError(f"layer {layer.name} comes before one of its inputs {layer.inputs}")
        known.add(layer.name)
    return layers


def _read_layer(entry: dict[str, Any], stored: h5py.Group) -> Layer:
    config = entry["config"]
    if config.get("data_format", "channels_last") != "channels_last":
        raise ConversionError(f"layer {entry['name']}: only channels_last is known")
    # A stored name reads `Conv1/kernel:0`; only its last part, `kernel`, tells weights apart.
    group = stored[entry["name"]]
    names = [n.decode() if isinstance(n, bytes) else n for n in group.attrs["weight_names"]]
    weights = {n.split("/")[-1].split(":")[0]: np.asarray(group[n], np.float32) for n in names}
    inbound = entry["inbound_nodes"][0] if entry["inbound_nodes"] else []
    return Layer(entry["name"], entry["class_name"], config, [node[0] for node in inbound], weights)


def _same_padding(layer: Layer) -> int:
    """Return the zero rows/columns added on every side: symmetric padding is all we need."""
    if layer.config["padding"] == "valid":
        return 0
    kernel, strides = layer.config["kernel_size"], layer.config["strides"]
    if kernel[0] != kernel[1] or kernel[0] % 2 == 0 or (kernel[0] > 1 and strides != [1, 1]):
        raise ConversionError(f"layer {layer.name}: 'same' padding with kernel {kernel}, strides {strides}")
    return kernel[0] // 2


def _check_plain_convolution(layer: Layer) -> None:
    config = layer.config
    plain = (
        config["dilation_rate"] == [1, 1]
        and config["activation"] == "linear"
        and not config["use_bias"]
        and config.get("depth_multiplier", 1) == 1
    )
    if not plain:
        raise ConversionError(f"layer {layer.name}: only plain convolutions without bias are known")


class _GraphWriter:
    """Collects ONNX nodes and initializers; every layer's output tensor carries the layer's name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, name: str, value: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def layer(self, layer: Layer) -> None:
        """Write one layer. Between the first and the last Transpose, tensors are [N, C, H, W]."""
        name, config, weights, inputs = layer.name, layer.config, layer.weights, layer.inputs
        match layer.kind:
            case "InputLayer":
                self.node("Transpose", [INPUT_NAME], name, perm=[0, 3, 1, 2])
            case "ZeroPadding2D":
                (top, bottom), (left, right) = config["padding"]
                pads = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
                self.node("Pad", [*inputs, self.constant(f"{name}/pads", pads)], name)
            case "Conv2D" | "DepthwiseConv2D":
                _check_plain_convolution(layer)
                if layer.kind == "Conv2D":  # Keras [H, W, in, out] -> ONNX [out, in, H, W]
                    kernel, group = weights["kernel"].transpose(3, 2, 0, 1), 1
                else:  # Keras [H, W, channels, 1] -> ONNX [channels, 1, H, W]
                    kernel = weights["depthwise_kernel"].transpose(2, 3, 0, 1)
                    group = kernel.shape[0]
                self.node(
                    "Conv",
                    [*inputs, self.constant(f"{name}/kernel", kernel)],
                    name,
                    group=group,
                    kernel_shape=config["kernel_size"],
                    strides=config["strides"],
                    pads=[_same_padding(layer)] * 4,
                )
            case "BatchNormalization":
                order = ("gamma", "beta", "moving_mean", "moving_variance")
                constants = [self.constant(f"{name}/{key}", weights[key]) for key in order]
                self.node("BatchNormalization", [*inputs, *constants], name, epsilon=config["epsilon"])
            case "ReLU":
                low = self.constant(f"{name}/min", np.float32(0))
                high = self.constant(f"{name}/max", np.float32(config["max_value"]))
                self.node("Clip", [*inputs, low, high], name)
            case "Add":
                self.node("Add", inputs, name)
            case "AveragePooling2D":
                self.node("AveragePool", inputs, name, kernel_shape=config["pool_size"], strides=config["strides"])
            case "Flatten":
                # Keras flattens [H, W, C], hence the way back before flattening.
                self.node("Transpose", inputs, f"{name}/nhwc", perm=[0, 2, 3, 1])
                self.node("Flatten", [f"{name}/nhwc"], name, axis=1)
            case "Dropout":
                self.node("Identity", inputs, name)
            case "Dense":
                constants = [self.constant(f"{name}/{key}", weights[key]) for key in ("kernel", "bias")]
                self.node("Gemm", [*inputs, *constants], f"{name}/linear")
                activation = {"relu": "Relu", "softmax": "Softmax"}[config["activation"]]
                self.node(activation, [f"{name}/linear"], name)
            case _:
                raise ConversionError(f"layer {name}: class {layer.kind} is not known")


def to_onnx(layers: list[Layer], name: str) -> onnx.ModelProto:
    """Return the ONNX model: `image` float32 [N, H, W, C] -> `probabilities` float32 [N, classes]."""
    writer = _GraphWriter()
    for layer in layers:
        writer.layer(layer)
    writer.node("Identity", [layers[-1].name], OUTPUT_NAME)

    image_shape = ["N", *layers[0].config["batch_input_shape"][1:]]
    graph = helper.make_graph(
        writer.nodes,
        name,
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, image_shape)],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["N", layers[-1].config["units"]])],
        writer.initializers,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="avocet-example",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def forward(layers: list[Layer], image: np.ndarray) -> np.ndarray:
    """Compute the Keras graph with numpy: float32 [N, H, W, C] -> float32 [N, classes]."""
    values: dict[str, np.ndarray] = {}
    for layer in layers:
        inputs = [values[name] for name in layer.inputs] or [image]
        values[layer.name] = _forward_layer(layer, inputs)
    return values[layers[-1].name]


def _forward_layer(layer: Layer, inputs: list[np.ndarray]) -> np.ndarray:
    config, weights, x = layer.config, layer.weights, inputs[0]
    match layer.kind:
        case "InputLayer" | "Dropout":
            return x
        case "ZeroPadding2D":
            return np.pad(x, [(0, 0), *config["padding"], (0, 0)])
        case "Conv2D":
            return _slide(layer, x, weights["kernel"], lambda window, kernel: window @ kernel)
        case "DepthwiseConv2D":
            return _slide(layer, x, weights["depthwise_kernel"][..., 0], lambda window, kernel: window * kernel)
        case "BatchNormalization":
            scale = weights["gamma"] / np.sqrt(weights["moving_variance"] + np.float32(config["epsilon"]))
            return (x - weights["moving_mean"]) * scale + weights["beta"]
        case "ReLU":
            return np.clip(x, 0, np.float32(config["max_value"]))
        case "Add":
            return sum(inputs[1:], x)
        case "AveragePooling2D":
            pool = config["pool_size"][0]
            n, height, width, channels = x.shape
            blocks = x.reshape(n, height // pool, pool, width // pool, pool, channels)
            return blocks.mean(axis=(2, 4))
        case "Flatten":
            return x.reshape(len(x), -1)
        case "Dense":
            linear = x @ weights["kernel"] + weights["bias"]
            if config["activation"] == "relu":
                return np.maximum(linear, 0)
            exponentials = np.exp(linear - linear.max(axis=1, keepdims=True))
            return exponentials / exponentials.sum(axis=1, keepdims=True)
        case _:
            raise ConversionError(f"layer {layer.name}: class {layer.kind} is not known")


def _slide(layer: Layer, x: np.ndarray, kernel: np.ndarray, product: Any) -> np.ndarray:
    """Add up `product(window, kernel[row, column])` over the kernel's rows and columns."""
    pad = _same_padding(layer)
    x = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    rows, columns = kernel.shape[:2]
    step_y, step_x = layer.config["strides"]
    height = (x.shape[1] - rows) // step_y + 1
    width = (x.shape[2] - columns) // step_x + 1
    total: Any = 0
    for row in range(rows):
        for column in range(columns):
            window = x[
                :,
                row : row + step_y * (height - 1) + 1 : step_y,
                column : column + step_x * (width - 1) + 1 : step_x,
            ]
            total = total + product(window, kernel[row, column])
    return total
