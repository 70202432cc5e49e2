"""ONNX Runtime in MLServer, as its documentation has custom runtimes."""

import numpy
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Model(MLModel):
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        path = self.settings.parameters.uri
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.output = self.session.get_outputs()[-1].name
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        inputs = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        output = self.session.run([self.output], inputs)[0]
        if isinstance(output, list):  # a classifier of scikit-learn answers a list of maps
            output = numpy.array([list(row.values()) for row in output])
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output(name=self.output, payload=output)]
        )
