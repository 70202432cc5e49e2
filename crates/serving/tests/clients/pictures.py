"""Sends a picture as a tensor with Triton's clients: `python pictures.py HTTP GRPC PICTURE`."""

import sys

import numpy as np
import tritonclient.grpc as rpc
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

HTTP, GRPC, PICTURE = sys.argv[1:]
CONTENT = open(PICTURE, "rb").read()


def ask(module, client, model, name, content, outputs):
    given = module.InferInput(name, [1], "BYTES")
    given.set_data_from_numpy(np.array([content], dtype=np.object_))
    wanted = [module.InferRequestedOutput(output) for output in outputs] or None
    return client.infer(model, [given], outputs=wanted)


def fails(word, action):
    try:
        action()
    except InferenceServerException as error:
        assert word in error.message(), error
    else:
        raise AssertionError(f"no {word}")


for module, client in ((http, http.InferenceServerClient(HTTP)), (rpc, rpc.InferenceServerClient(GRPC))):
    outputs = ["classes.labels", "y", "classes.scores", "classes.counts"]
    result = ask(module, client, "colours", "picture", CONTENT, outputs)
    assert result.as_numpy("classes.labels").tolist() == [[b"green", b"blue"]], result.as_numpy("classes.labels")
    np.testing.assert_allclose(result.as_numpy("classes.scores"), [[0.8, 0.4]], rtol=1e-5)
    assert result.as_numpy("classes.counts").tolist() == [2]
    assert result.as_numpy("y").shape == (1, 3, 1, 1)
    # Without a word about outputs they are the model's own.
    assert ask(module, client, "colours", "picture", CONTENT, []).as_numpy("y").shape == (1, 3, 1, 1)
    # A reading of tensors.
    pixels = module.InferInput("x", [1, 3, 2, 2], "FP32")
    pixels.set_data_from_numpy(np.stack([np.full((2, 2), value, np.float32) for value in (0.1, 0.2, 0.9)])[None])
    result = client.infer("colours", [pixels], outputs=[module.InferRequestedOutput("classes.labels")])
    assert result.as_numpy("classes.labels").tolist() == [[b"blue", b"green"]]
    # A table.
    table = ask(module, client, "rows", "table", b"a,b\n1,2\n3,4\n", [])
    np.testing.assert_array_equal(table.as_numpy("y"), [[1, 2], [3, 4]])
    # An ensemble.
    assert ask(module, client, "pipe", "photo", CONTENT, []).as_numpy("best").tolist() == [[b"green", b"blue"]]
    fails("no JPEG, PNG or WebP", lambda: ask(module, client, "colours", "picture", b"text", outputs))
    fails("unexpected input `picture`", lambda: ask(module, client, "affine", "picture", CONTENT, []))
    fails("unexpected output `boxes.places`", lambda: ask(module, client, "colours", "picture", CONTENT, ["boxes.places"]))
print("ok: pictures")
