"""Talks to a running server with Triton's own client: `python tritonclient_http.py HOST:PORT`.

Needs `tritonclient[http]` and `numpy`; the server serves the models of crates/inference/tests/data.
"""

import sys

import numpy as np
import tritonclient.http as http
from tritonclient.utils import InferenceServerException


def tensor(name, array, datatype, binary=True):
    given = http.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=binary)
    return given


def check_server(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("affine") and client.is_model_ready("affine", "1")
    assert not client.is_model_ready("nope")
    assert client.get_server_metadata()["name"] == "avocet"
    metadata = client.get_model_metadata("affine")
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}], metadata
    names = {line["name"] for line in client.get_model_repository_index()}
    assert {"affine", "int64", "add_sub"} <= names, names


def check_affine(client):
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    w = np.arange(12, dtype=np.float32).reshape(4, 3) / 10
    expected = x @ w + np.array([1, 2, 3], dtype=np.float32)
    for binary_in in (True, False):
        for outputs in (None, [http.InferRequestedOutput("y", binary_data=True)],
                        [http.InferRequestedOutput("y", binary_data=False)]):
            for packing in (None, "gzip", "deflate"):
                result = client.infer("affine", [tensor("x", x, "FP32", binary_in)], outputs=outputs,
                                      request_id="r1", request_compression_algorithm=packing,
                                      response_compression_algorithm=packing)
                assert result.get_response()["id"] == "r1"
                np.testing.assert_allclose(result.as_numpy("y"), expected, rtol=1e-5)


def check_types(client):
    values = np.array([-3, 0, 2_000_000], dtype=np.int64)
    result = client.infer("int64", [tensor("x", values, "INT64")], model_version="1")
    np.testing.assert_array_equal(result.as_numpy("y"), values * 2)
    inputs = [
        tensor("flag", np.array([True, False]), "BOOL"),
        tensor("byte", np.array([0, 255], dtype=np.uint8), "UINT8"),
        tensor("half", np.array([0.5, -2], dtype=np.float16), "FP16"),
        tensor("double", np.array([0.25, -8], dtype=np.float64), "FP64"),
    ]
    result = client.infer("small_types", inputs)
    np.testing.assert_array_equal(result.as_numpy("not_flag"), [False, True])
    np.testing.assert_array_equal(result.as_numpy("same_byte"), [0, 255])
    np.testing.assert_array_equal(result.as_numpy("minus_half"), np.array([-0.5, 2], dtype=np.float16))
    np.testing.assert_array_equal(result.as_numpy("minus_double"), [-0.25, 8])


def check_two_outputs(client):
    a, b = np.ones((1, 4), dtype=np.float32) * 5, np.arange(4, dtype=np.float32).reshape(1, 4)
    outputs = [http.InferRequestedOutput("difference", binary_data=False), http.InferRequestedOutput("sum")]
    result = client.infer("add_sub", [tensor("a", a, "FP32"), tensor("b", b, "FP32", False)], outputs=outputs)
    np.testing.assert_array_equal(result.as_numpy("sum"), a + b)
    np.testing.assert_array_equal(result.as_numpy("difference"), a - b)
    handle = client.async_infer("add_sub", [tensor("a", a, "FP32"), tensor("b", b, "FP32")])
    np.testing.assert_array_equal(handle.get_result().as_numpy("sum"), a + b)


def check_errors(client):
    x = np.zeros((1, 3), dtype=np.float32)
    for model, array, status, words in (("affine", x, "400", "[-1, 4]"), ("nope", x, "404", "unknown model")):
        try:
            client.infer(model, [tensor("x", array, "FP32")])
        except InferenceServerException as error:
            assert status in str(error.status()) and words in error.message(), error
        else:
            raise AssertionError(f"{model} answered")


def check_statistics(client):
    stats = client.get_inference_statistics("affine")["model_stats"]
    default = next(line for line in stats if line["version"] == "2")
    assert default["inference_stats"]["success"]["count"] == 18, default
    assert default["inference_count"] == 36, default


def main():
    client = http.InferenceServerClient(sys.argv[1])
    for check in (check_server, check_affine, check_types, check_two_outputs, check_errors, check_statistics):
        check(client)
        print(f"ok: {check.__name__}")


main()
