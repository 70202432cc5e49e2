"""ONNX Runtime in Triton's Python backend: the file that its configuration names, and its last output."""

import json
import os
import sys

sys.path.insert(0, os.environ["PACKAGES"])

import numpy
import onnxruntime
import triton_python_backend_utils as triton

TYPES = {"tensor(float)": "TYPE_FP32", "tensor(int32)": "TYPE_INT32"}


def session_of(config):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    path = config["parameters"]["file"]["string_value"]
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        session = session_of(config.as_dict())
        [first] = session.get_inputs()
        config.add_input({"name": first.name, "data_type": TYPES[first.type], "dims": [-1] * len(first.shape)})
        config.add_output({"name": session.get_outputs()[-1].name, "data_type": "TYPE_FP32", "dims": [-1, -1]})
        config.set_max_batch_size(0)
        return config

    def initialize(self, args):
        self.session = session_of(json.loads(args["model_config"]))
        self.input = self.session.get_inputs()[0].name
        self.output = self.session.get_outputs()[-1].name

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        values = triton.get_input_tensor_by_name(request, self.input).as_numpy()
        output = self.session.run([self.output], {self.input: values})[0]
        if isinstance(output, list):  # a classifier of scikit-learn answers a list of maps
            output = numpy.array([list(row.values()) for row in output], dtype=numpy.float32)
        return triton.InferenceResponse(output_tensors=[triton.Tensor(self.output, output)])
