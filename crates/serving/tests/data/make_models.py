"""Writes the model that the tests upload. Needs the package `onnx`:

    python make_models.py
"""

import pathlib

from onnx import TensorProto as T
from onnx import checker, helper, save

HERE = pathlib.Path(__file__).parent


def label():
    """label = the place of the greatest of four numbers, as a classifier gives it."""
    nodes = [helper.make_node("TopK", ["x", "one"], ["score", "place"], axis=1),
             helper.make_node("Squeeze", ["place", "one"], ["label"])]
    one = helper.make_tensor("one", T.INT64, [1], [1])
    ends = [helper.make_tensor_value_info("x", T.FLOAT, ["batch", 4])], [
        helper.make_tensor_value_info("label", T.INT64, ["batch"])]
    graph = helper.make_graph(nodes, "label", *ends, [one])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
                              producer_name="avocet-tests")
    checker.check_model(model)
    save(model, HERE / "label.onnx")


label()
