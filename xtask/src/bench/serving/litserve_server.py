"""LitServe around ONNX Runtime, as its documentation has it: one model, JSON in, JSON out. PORT MODEL"""

import sys

import litserve
import numpy
import onnxruntime

DATATYPES = {"FP32": numpy.float32, "INT32": numpy.int32}


class Model(litserve.LitAPI):
    def setup(self, device):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(sys.argv[2], options, providers=["CPUExecutionProvider"])
        self.output = self.session.get_outputs()[-1].name

    def decode_request(self, request):
        tensor = request["inputs"][0]
        values = numpy.array(tensor["data"], dtype=DATATYPES[tensor["datatype"]])
        return {tensor["name"]: values.reshape(tensor["shape"])}

    def predict(self, inputs):
        return self.session.run([self.output], inputs)[0]

    def encode_response(self, output):
        # A classifier of scikit-learn answers a list of maps.
        rows = [list(row.values()) for row in output] if isinstance(output, list) else output.tolist()
        return {"outputs": [{"name": self.output, "data": rows}]}


if __name__ == "__main__":
    server = litserve.LitServer(Model(), accelerator="cpu", workers_per_device=1)
    server.run(port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False, log_level="error")
