"""Talks to a running server with Triton's own clients: `python tritonclient_all.py HTTP GRPC INT64_MODEL_FILE ENGINE`.

Needs `tritonclient[http,grpc]`, `numpy` and `ml_dtypes`. The server serves the models that `clients.rs` writes.
"""

import asyncio
import json
import queue
import sys

import ml_dtypes
import numpy as np
import tritonclient.grpc as rpc
import tritonclient.grpc.aio as rpc_aio
import tritonclient.http as http
import tritonclient.http.aio as http_aio
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

HTTP, GRPC, INT64_FILE, ENGINE = sys.argv[1:]
X = np.arange(8, dtype=np.float32).reshape(2, 4)
Y = X @ (np.arange(12, dtype=np.float32).reshape(4, 3) / 10) + np.array([1, 2, 3], dtype=np.float32)


def values(name):
    if name == "BYTES":
        return np.array([b"", b"ab", "\u00e9\u4e16".encode(), b"x" * 10_000], dtype=np.object_)
    if name == "BOOL":
        return np.array([True, False, True])
    if name in ("FP16", "FP32", "FP64", "BF16"):
        wide = {"FP16": np.float16, "FP64": np.float64, "BF16": ml_dtypes.bfloat16}.get(name, np.float32)
        return np.array([0, -1.5, 3.25, 65504 if name == "FP16" else 2.0**90], dtype=wide)
    dtype = np.dtype(name.lower())
    # rten computes INT64 as INT32.
    bounds = np.iinfo(np.int32 if ENGINE == "rten" and name == "INT64" else dtype)
    return np.array([bounds.min, 1, bounds.max], dtype=dtype)


def tensor(module, name, array, datatype=None, **options):
    given = module.InferInput(name, list(array.shape), datatype or np_to_triton_dtype(array.dtype))
    given.set_data_from_numpy(array, **options)
    return given


def ready_types(client):
    names = {line["name"] for line in client.get_model_repository_index() if line.get("state") == "READY"}
    return sorted(name[3:].upper() for name in names if name.startswith("id_"))


def fails(status, action, *words):
    try:
        action()
    except InferenceServerException as error:
        text = f"{error.status()} {error.message()}"
        assert status in text and all(word in text for word in words), text
    else:
        raise AssertionError(f"no {status}")


def http_datatypes(client):
    """every datatype, binary and JSON, both ways"""
    for name in ready_types(client):
        array = values(name)
        if name == "BYTES":
            texts = array[:3]
            given = tensor(http, "x", texts, name, binary_data=False)
            outputs = [http.InferRequestedOutput("y", binary_data=False)]
            result = client.infer("id_bytes", [given], outputs=outputs)
            assert [text.encode() if isinstance(text, str) else text for text in result.as_numpy("y")] == list(texts)
        elif name not in ("FP16", "BF16"):
            if name.startswith("FP"):
                array = array[:3]
            for binary in (True, False):
                given = tensor(http, "x", array, name, binary_data=not binary)
                result = client.infer("id_" + name.lower(), [given],
                                      outputs=[http.InferRequestedOutput("y", binary_data=binary)])
                np.testing.assert_array_equal(result.as_numpy("y"), array, err_msg=name)
        array = values(name)
        result = client.infer("id_" + name.lower(), [tensor(http, "x", array, name)])
        np.testing.assert_array_equal(result.as_numpy("y"), array, err_msg=name)


def grpc_datatypes(client):
    """every datatype, raw"""
    index = client.get_model_repository_index(as_json=True)["models"]
    names = [line["name"] for line in index if line.get("state") == "READY" and line["name"].startswith("id_")]
    for name in names:
        datatype = name[3:].upper()
        array = values(datatype)
        result = client.infer(name, [tensor(rpc, "x", array, datatype)])
        np.testing.assert_array_equal(result.as_numpy("y"), array, err_msg=name)
        assert result.get_response().outputs[0].datatype == datatype


def grpc_typed(client):
    """typed contents"""
    fields = {
        "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
        "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
        "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
    }
    for line in client.get_model_repository_index().models:
        datatype = line.name[3:].upper()
        if not line.name.startswith("id_") or line.state != "READY" or datatype not in fields:
            continue
        array = values(datatype)[:3]
        request = service_pb2.ModelInferRequest(model_name=line.name)
        given = request.inputs.add(name="x", datatype=datatype, shape=[3])
        getattr(given.contents, fields[datatype]).extend(array.tolist())
        result = rpc.InferResult(client._client_stub.ModelInfer(request))
        np.testing.assert_array_equal(result.as_numpy("y"), array, err_msg=datatype)


def tensors(module, client):
    """several inputs and outputs, zero size, 24 MB"""
    a, b = np.ones((1, 4), np.float32) * 5, X[:1]
    given = [tensor(module, "b", b), tensor(module, "a", a)]
    result = client.infer("add_sub", given)
    np.testing.assert_array_equal(result.as_numpy("sum"), a + b)
    np.testing.assert_array_equal(result.as_numpy("difference"), a - b)
    result = client.infer("add_sub", given, outputs=[module.InferRequestedOutput("difference")])
    assert result.as_numpy("sum") is None
    result = client.infer("id_fp32", [tensor(module, "x", np.zeros((0,), np.float32))])
    assert result.as_numpy("y").shape == (0,)
    big = np.arange(6_000_000, dtype=np.float32)
    np.testing.assert_array_equal(client.infer("id_fp32", [tensor(module, "x", big)]).as_numpy("y"), big)


def compression(module, client):
    """gzip and deflate"""
    big = np.zeros(100_000, np.float32)
    for packing in ("gzip", "deflate"):
        options = ({"request_compression_algorithm": packing, "response_compression_algorithm": packing}
                   if module is http else {"compression_algorithm": packing})
        result = client.infer("id_fp32", [tensor(module, "x", big)], **options)
        np.testing.assert_array_equal(result.as_numpy("y"), big)


def parameters(module, client):
    """priority, timeout, sequence, ids"""
    result = client.infer("affine", [tensor(module, "x", X)], model_version="1", request_id="r1", priority=2,
                          timeout=5_000_000, sequence_id=7, sequence_start=True, parameters={"mine": "x"})
    np.testing.assert_allclose(result.as_numpy("y"), Y, rtol=1e-5)
    response = result.get_response()
    get = response.get if module is http else lambda name: getattr(response, name)
    assert (get("id"), get("model_version")) == ("r1", "1")
    result = client.infer("affine", [tensor(module, "x", X)], sequence_id="seven")
    np.testing.assert_allclose(result.as_numpy("y"), Y, rtol=1e-5)


def errors(module, client):
    """what is wrong is told with the right status"""
    is_http = module is http
    status = lambda code, name: str(code) if is_http else f"StatusCode.{name}"
    bad, missing = status(400, "INVALID_ARGUMENT"), status(404, "NOT_FOUND")
    fails(missing, lambda: client.infer("nope", [tensor(module, "x", X)]), "nope")
    fails(missing, lambda: client.infer("affine", [tensor(module, "x", X)], model_version="9"), "9")
    fails(bad, lambda: client.infer("affine", [tensor(module, "zz", X)]), "zz")
    fails(bad, lambda: client.infer("affine", [tensor(module, "x", X[:, :3])]), "[2, 3]")
    fails(bad, lambda: client.infer("affine", [tensor(module, "x", X.astype(np.int32))]), "INT32")
    fails(bad, lambda: client.infer("affine", [tensor(module, "x", X)],
                                    outputs=[module.InferRequestedOutput("zz")]), "zz")
    region = module.InferInput("x", [2, 4], "FP32")
    region.set_shared_memory("region", 32)
    fails(status(400, "UNIMPLEMENTED"), lambda: client.infer("affine", [region]), "shared memory")
    fails(status(400, "UNIMPLEMENTED"), lambda: client.register_system_shared_memory("r", "/r", 64))
    too_big = np.zeros(20 << 20, np.float32)
    fails(status(413, "RESOURCE_EXHAUSTED"), lambda: client.infer("id_fp32", [tensor(module, "x", too_big)]))
    assert client.infer("affine", [tensor(module, "x", X)]).as_numpy("y") is not None


def classification(module, client):
    """classes with labels, per row"""
    scores = np.array([[0.1, 0.9, 0.3, -1], [4, 3, 2, 1]], np.float32)
    result = client.infer("classes", [tensor(module, "x", scores)],
                          outputs=[module.InferRequestedOutput("y", class_count=2)])
    expected = [[b"0.900000:1:bee", b"0.300000:2:cat"], [b"4.000000:0:ant", b"3.000000:1:bee"]]
    assert result.as_numpy("y").tolist() == expected, result.as_numpy("y")


def metadata(module, client):
    """health, metadata, configuration, statistics, settings"""
    as_json = {} if module is http else {"as_json": True}
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("affine", "1")
    assert not client.is_model_ready("nope") and not client.is_model_ready("affine", "9")
    assert "classification" in client.get_server_metadata(**as_json)["extensions"]
    described = client.get_model_metadata("affine", **as_json)
    assert described["versions"] == ["1", "2"] and described["inputs"][0]["datatype"] == "FP32"
    assert [int(size) for size in described["inputs"][0]["shape"]] == [-1, 4]
    config = client.get_model_config("classes", **as_json)
    config = config.get("config", config)
    assert config["max_batch_size"] == 8 and config["input"][0]["data_type"] == "TYPE_FP32", config
    assert [int(size) for size in config["input"][0]["dims"]] == [4]
    assert int(config["dynamic_batching"]["max_queue_delay_microseconds"]) == 100
    count = lambda: int(client.get_inference_statistics("id_fp32", **as_json)
                        ["model_stats"][0]["inference_stats"]["success"].get("count", 0))
    before = count()
    client.infer("id_fp32", [tensor(module, "x", X[0])])
    assert count() == before + 1
    assert client.get_system_shared_memory_status(**as_json) in ([], {})
    assert client.get_cuda_shared_memory_status(**as_json) in ([], {})
    client.unregister_system_shared_memory()
    level = client.get_trace_settings(**as_json)
    assert "OFF" in json.dumps(level)
    client.update_trace_settings(settings={"trace_rate": "5"})
    assert '"5"' in json.dumps(client.get_trace_settings(**as_json))
    fails("OFF", lambda: client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}))
    refused = "400" if module is http else "INVALID_ARGUMENT"
    fails(refused, lambda: client.update_trace_settings("affine", {"trace_rate": "7"}), "the server's")
    assert '"5"' in json.dumps(client.get_trace_settings("affine", **as_json))
    missing = "404" if module is http else "NOT_FOUND"
    fails(missing, lambda: client.get_trace_settings("nope", **as_json), "nope")
    client.update_log_settings({"log_verbose_level": 3, "log_info": False})
    assert "3" in json.dumps(client.get_log_settings(**as_json))
    fails(refused, lambda: client.update_log_settings({"log_verbose_level": 1, "log_file": "/tmp/x"}), "log file")
    assert "3" in json.dumps(client.get_log_settings(**as_json))


def repository(module, client):
    """load, unload, override, load with files"""
    unknown = "404" if module is http else "NOT_FOUND"
    ints = tensor(module, "x", np.array([1, 2], np.int64))
    with open(INT64_FILE, "rb") as file:
        content = file.read()
    client.load_model("sent", config="{}", files={"file:1/model.onnx": content, "file:3/model.onnx": content})
    result = client.infer("sent", [ints])
    assert result.as_numpy("y").tolist() == [2, 4]
    assert client.is_model_ready("sent", "3") and not client.is_model_ready("sent", "1")
    override = json.dumps({"version_policy": {"all": {}}, "max_batch_size": 4})
    client.load_model("sent", config=override, files={"file:1/model.onnx": content, "file:3/model.onnx": content})
    assert client.is_model_ready("sent", "1")
    refused = "400" if module is http else "INVALID_ARGUMENT"
    fails(refused, lambda: client.load_model("sent", config="{}", files={"file:1/model.onnx": b"no model"}))
    fails(refused, lambda: client.load_model("sent", config="{}", files={"file:../x/model.onnx": content}))
    assert client.infer("sent", [ints]).as_numpy("y").tolist() == [2, 4]
    client.unload_model("sent")
    fails(unknown, lambda: client.infer("sent", [ints]))
    fails(unknown, lambda: client.unload_model("sent"))
    fails(unknown, lambda: client.load_model("nope"))
    client.unload_model("add_sub")
    assert not client.is_model_ready("add_sub")
    client.load_model("add_sub")
    assert client.is_model_ready("add_sub")
    client.load_model("affine", config='{"max_batch_size": 16}')
    assert not client.is_model_ready("affine", "1") and client.is_model_ready("affine", "2")
    client.load_model("affine")
    assert client.is_model_ready("affine", "1")


def stream(client):
    """a stream survives the errors of its requests"""
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for index in range(50):
        name = "nope" if index % 10 == 3 else "id_fp32"
        given = tensor(rpc, "x", np.array([index], np.float32))
        client.async_stream_infer(name, [given], request_id=str(index), enable_empty_final_response=True)
    for index in range(50):
        result, error = answers.get(timeout=20)
        if index % 10 == 3:
            assert "nope" in error.message()
        else:
            assert error is None and result.as_numpy("y").tolist() == [index]
            assert result.get_response().id == str(index)
            assert result.get_response().parameters["triton_final_response"].bool_param
    client.stop_stream()


def deadline(client):
    """a deadline that is long enough is kept"""
    result = client.infer("affine", [tensor(rpc, "x", X)], client_timeout=30.0)
    np.testing.assert_allclose(result.as_numpy("y"), Y, rtol=1e-5)


async def aio(module, plain, address):
    """asyncio: many at once, halves and texts as binary, several inputs and outputs"""
    async with module.InferenceServerClient(address) as client:
        assert await client.is_server_ready()
        inputs = [tensor(plain, "x", np.array([index], np.float32)) for index in range(64)]
        results = await asyncio.gather(*(client.infer("id_fp32", [given]) for given in inputs))
        assert [result.as_numpy("y").tolist() for result in results] == [[index] for index in range(64)]
        index = await client.get_model_repository_index()
        index = index if plain is http else [{"name": line.name, "state": line.state} for line in index.models]
        ready = {line["name"] for line in index if line.get("state") == "READY"}
        for name in ("FP16", "BF16", "FP32", "BYTES"):
            if "id_" + name.lower() not in ready:
                continue
            array = values(name)
            asked = plain.InferRequestedOutput("y", binary_data=True) if plain is http else plain.InferRequestedOutput("y")
            result = await client.infer("id_" + name.lower(), [tensor(plain, "x", array, name)], outputs=[asked])
            np.testing.assert_array_equal(result.as_numpy("y"), array, err_msg=name)
        a, b = np.ones((1, 4), np.float32) * 5, X[:1]
        wanted = [plain.InferRequestedOutput(name) for name in ("difference", "sum")]
        result = await client.infer("add_sub", [tensor(plain, "b", b), tensor(plain, "a", a)], outputs=wanted)
        np.testing.assert_array_equal(result.as_numpy("sum"), a + b)
        np.testing.assert_array_equal(result.as_numpy("difference"), a - b)
        try:
            await client.infer("nope", inputs[:1])
        except InferenceServerException as error:
            assert "nope" in error.message()
        else:
            raise AssertionError("no error")


async def aio_stream(address):
    """an asyncio stream"""
    async def requests():
        for index in range(20):
            yield {"model_name": "id_fp32", "inputs": [tensor(rpc, "x", np.array([index], np.float32))]}

    async with rpc_aio.InferenceServerClient(address) as client:
        got = [result.as_numpy("y").tolist() async for result, error in client.stream_infer(requests())]
        assert got == [[index] for index in range(20)], got


def main():
    over_http = http.InferenceServerClient(HTTP, concurrency=4)
    over_grpc = rpc.InferenceServerClient(GRPC)

    def check(action, *arguments):
        result = action(*arguments)
        if asyncio.iscoroutine(result):
            asyncio.run(result)
        print("ok:", action.__doc__, flush=True)

    check(http_datatypes, over_http)
    check(grpc_datatypes, over_grpc)
    check(grpc_typed, over_grpc)
    for action in (tensors, compression, parameters, errors, classification, metadata, repository):
        check(action, http, over_http)
        check(action, rpc, over_grpc)
    check(stream, over_grpc)
    check(deadline, over_grpc)
    check(aio, http_aio, http, HTTP)
    check(aio, rpc_aio, rpc, GRPC)
    check(aio_stream, GRPC)
    futures = [over_http.async_infer("id_fp32", [tensor(http, "x", np.array([index], np.float32))])
               for index in range(16)]
    assert [future.get_result().as_numpy("y").tolist() for future in futures] == [[i] for i in range(16)]
    print("ok: asynchronous requests over HTTP")
    pending = queue.Queue()
    over_grpc.async_infer("id_fp32", [tensor(rpc, "x", X[0])], lambda result, error: pending.put((result, error)))
    result, error = pending.get(timeout=20)
    assert error is None and result.as_numpy("y").tolist() == X[0].tolist()
    print("ok: asynchronous requests over gRPC")


main()
