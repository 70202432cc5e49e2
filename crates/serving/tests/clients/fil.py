"""Asks boosted trees under the names of Triton's backend FIL: REST address, gRPC address, a case with expected values."""

import json
import sys

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient

rest, rpc, case = sys.argv[1:]
with open(case) as file:
    case = json.load(file)
given = case["inputs"][0]
x = np.array(given["data"], dtype=np.float32).reshape(given["shape"])
wanted = {output["name"]: np.array(output["data"]).reshape(output["shape"]) for output in case["outputs"]}
labels, shares = wanted["label"].astype(np.float32), wanted["probabilities"].astype(np.float32)
expected = {
    "classes": labels.reshape(-1, 1),
    "strict": (shares[:, 1:] > 0.9).astype(np.float32),
    "shares": shares,
    "scores": shares[:, 1:],
}
for module, address in ((httpclient, rest), (grpcclient, rpc)):
    client = module.InferenceServerClient(address)
    for model, right in expected.items():
        tensor = module.InferInput("input__0", list(x.shape), "FP32")
        tensor.set_data_from_numpy(x)
        output = module.InferRequestedOutput("output__0")
        answer = client.infer(model, [tensor], outputs=[output]).as_numpy("output__0")
        assert answer.dtype == np.float32 and answer.shape == right.shape, (model, answer.dtype, answer.shape)
        assert np.allclose(answer, right, atol=1e-6), (model, answer, right)
        if module is httpclient:
            metadata = client.get_model_metadata(model)
            assert [entry["name"] for entry in metadata["inputs"]] == ["input__0"], metadata
            assert metadata["outputs"] == [
                {"name": "output__0", "datatype": "FP32", "shape": [-1, right.shape[1]]}
            ], metadata
print("ok: fil")
