"""Calls a model over the Open Inference Protocol v2 (REST, with the binary tensor data extension)."""

from __future__ import annotations

import http.client
import json
import os
from urllib.parse import urlsplit

import numpy as np

TIMEOUT_SECONDS = 60
DTYPES = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
DATATYPES = {dtype: name for name, dtype in DTYPES.items()}
HEADER_LENGTH = "Inference-Header-Content-Length"


class InferenceError(Exception):
    """The model could not be asked, or did not answer; the message is for people."""


def infer(model: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run `model` on `inputs` and return its outputs, both by tensor name.

    The server's address comes from AVOCET_INFERENCE_URL, e.g. `http://127.0.0.1:8000`.
    """
    url = os.environ.get("AVOCET_INFERENCE_URL", "")
    try:
        address = urlsplit(url)
        host, port = address.hostname, address.port
    except ValueError:
        host = port = None
    if not host or address.scheme != "http":
        raise InferenceError(f"AVOCET_INFERENCE_URL is {url!r}: it must be like http://127.0.0.1:8000")

    path = f"{address.path.rstrip('/')}/v2/models/{model}/infer"
    header, body = _encode(inputs)
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(header))}
    connection = http.client.HTTPConnection(host, port or 80, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("POST", path, header + body, headers)
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise InferenceError(f"model {model!r}: no answer from {url}: {error}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise InferenceError(f"model {model!r}: {url} answered {response.status}: {_reason(answer)}")
    try:
        return _decode(answer, response.getheader(HEADER_LENGTH))
    except (KeyError, TypeError, ValueError) as error:
        raise InferenceError(f"model {model!r}: cannot read the answer of {url}: {error!r}") from error


def _encode(inputs: dict[str, np.ndarray]) -> tuple[bytes, bytes]:
    """Return the JSON header and the raw little-endian tensors that follow it."""
    tensors, raw = [], []
    for name, array in inputs.items():
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        raw.append(array.tobytes())
        tensors.append(
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": DATATYPES[array.dtype],
                "parameters": {"binary_data_size": len(raw[-1])},
            }
        )
    header = {"inputs": tensors, "parameters": {"binary_data_output": True}}
    return json.dumps(header, separators=(",", ":")).encode(), b"".join(raw)


def _decode(answer: bytes, header_length: str | None) -> dict[str, np.ndarray]:
    """Return the tensors of an answer; a tensor may also come as JSON, as the extension is optional."""
    end = len(answer) if header_length is None else int(header_length)
    arrays = {}
    for tensor in json.loads(answer[:end])["outputs"]:
        dtype, shape = DTYPES[tensor["datatype"]], tensor["shape"]
        if "data" in tensor:
            flat = np.array(tensor["data"], dtype)
        else:
            size = tensor["parameters"]["binary_data_size"]
            flat = np.frombuffer(answer[end : end + size], dtype)
            end += size
        arrays[tensor["name"]] = flat.reshape(shape)
    return arrays


def _reason(answer: bytes) -> str:
    """Return the server's own explanation: `{"error": "..."}` in the protocol."""
    try:
        return str(json.loads(answer)["error"])
    except (KeyError, TypeError, ValueError):
        return answer[:200].decode(errors="replace").strip() or "(no explanation)"
