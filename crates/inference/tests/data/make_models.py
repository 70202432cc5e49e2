"""Writes the models that the tests load. Needs the packages `onnx` and `numpy`:

    python make_models.py
"""

import pathlib

import numpy as np
from onnx import TensorProto as T
from onnx import checker, helper, load, numpy_helper, save

HERE = pathlib.Path(__file__).parent


def value(name, element, shape):
    return helper.make_tensor_value_info(name, element, shape)


def write(name, nodes, inputs, outputs, weights=(), opset=17, domains=()):
    graph = helper.make_graph(nodes, name, inputs, outputs, list(weights))
    opsets = [helper.make_opsetid("", opset), *[helper.make_opsetid(d, v) for d, v in domains]]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="avocet-tests")
    checker.check_model(model)
    save(model, HERE / f"{name}.onnx")


def affine():
    """y = x * w + b, batch open; the weights are listed as inputs too, as old exporters do."""
    w = np.arange(12, dtype=np.float32).reshape(4, 3) / 10
    b = np.array([1, 2, 3], dtype=np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["xw"]), helper.make_node("Add", ["xw", "b"], ["y"])]
    inputs = [value("x", T.FLOAT, ["batch", 4]), value("w", T.FLOAT, [4, 3]), value("b", T.FLOAT, [3])]
    weights = [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")]
    write("affine", nodes, inputs, [value("y", T.FLOAT, ["batch", 3])], weights)


def external():
    """y = x * w + b and y = celu(x * w + b), with weights in a file beside them, called as exporters call it."""
    for name, more in (("affine", []), ("celu", ["Celu"])):
        model = load(HERE / "affine.onnx")
        for operator in more:
            model.graph.node[-1].output[0] = "sum"
            model.graph.node.append(helper.make_node(operator, ["sum"], ["y"]))
        folder = HERE / "external" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx.data").unlink(missing_ok=True)
        save(model, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=0)


def double_int():
    """y = x + x in INT64 of any shape of rank 1."""
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    write("int64", nodes, [value("x", T.INT64, ["n"])], [value("y", T.INT64, ["n"])])


def add_sub():
    """sum = a + b and difference = a - b, fixed shape."""
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    ends = [value(n, T.FLOAT, [1, 4]) for n in ("a", "b")]
    write("add_sub", nodes, ends, [value(n, T.FLOAT, [1, 4]) for n in ("sum", "difference")])


def small_types():
    """One output per narrow type: BOOL, UINT8 and FP16 in, the same out."""
    nodes = [
        helper.make_node("Not", ["flag"], ["not_flag"]),
        helper.make_node("Identity", ["byte"], ["same_byte"]),
        helper.make_node("Neg", ["half"], ["minus_half"]),
        helper.make_node("Neg", ["double"], ["minus_double"]),
    ]
    inputs = [value(n, e, ["n"]) for n, e in
              (("flag", T.BOOL), ("byte", T.UINT8), ("half", T.FLOAT16), ("double", T.DOUBLE))]
    outputs = [value(n, e, ["n"]) for n, e in
               (("not_flag", T.BOOL), ("same_byte", T.UINT8), ("minus_half", T.FLOAT16), ("minus_double", T.DOUBLE))]
    write("small_types", nodes, inputs, outputs)


def celu():
    """An operator that rten 0.27 lacks."""
    nodes = [helper.make_node("Celu", ["x"], ["y"])]
    write("celu", nodes, [value("x", T.FLOAT, ["n"])], [value("y", T.FLOAT, ["n"])])


def strings():
    """Strings in and out."""
    nodes = [helper.make_node("Identity", ["text"], ["same"])]
    write("strings", nodes, [value("text", T.STRING, ["n"])], [value("same", T.STRING, ["n"])])


def logarithm():
    """y = log(x): gives NaN and -Infinity where the input is not positive."""
    nodes = [helper.make_node("Log", ["x"], ["y"])]
    write("log", nodes, [value("x", T.FLOAT, ["n"])], [value("y", T.FLOAT, ["n"])])


def sequence():
    """An output that is a sequence beside one that is a tensor, as scikit-learn's converter writes."""
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("SequenceConstruct", ["x"], ["list"])]
    listed = helper.make_tensor_sequence_value_info("list", T.FLOAT, ["n"])
    write("sequence", nodes, [value("x", T.FLOAT, ["n"])], [value("y", T.FLOAT, ["n"]), listed])


def convolution():
    """A small image model: convolution, relu, pooling, dense, softmax."""
    random = np.random.default_rng(7)

    def weight(name, *shape):
        return numpy_helper.from_array(random.normal(0, 0.3, shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["image", "k", "kb"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "d", "db"], ["g"], transB=1),
        helper.make_node("Softmax", ["g"], ["scores"], axis=1),
    ]
    weights = [weight("k", 4, 3, 3, 3), weight("kb", 4), weight("d", 5, 64), weight("db", 5)]
    write("convolution", nodes, [value("image", T.FLOAT, ["batch", 3, 8, 8])],
          [value("scores", T.FLOAT, ["batch", 5])], weights)


for make in (affine, external, double_int, add_sub, small_types, celu, strings, logarithm, sequence, convolution):
    make()
