"""LitServe around ONNX Runtime, as its documentation has it: one model, JSON in, JSON out. PORT MODEL"""

import sys

import litserve
import numpy
import onnxruntime


class Iris(litserve.LitAPI):
    def setup(self, device):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(sys.argv[2], options, providers=["CPUExecutionProvider"])

    def decode_request(self, request):
        return numpy.array(request["inputs"][0]["data"], dtype=numpy.float32).reshape(1, 4)

    def predict(self, rows):
        return self.session.run(["output_probability"], {"X": rows})[0]

    def encode_response(self, output):
        return {"outputs": [{"name": "output_probability", "data": list(output[0].values())}]}


if __name__ == "__main__":
    server = litserve.LitServer(Iris(), accelerator="cpu", workers_per_device=1)
    server.run(port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False, log_level="error")
