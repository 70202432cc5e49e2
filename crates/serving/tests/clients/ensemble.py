"""Uses an ensemble with Triton's clients: `python ensemble.py HTTP GRPC`. The server serves what `ensembles.rs` writes."""

import sys

import numpy as np
import tritonclient.grpc as rpc
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

HTTP, GRPC = sys.argv[1:]
X = np.arange(8, dtype=np.float32).reshape(2, 4)
Y = X @ (np.arange(12, dtype=np.float32).reshape(4, 3) / 10) + np.array([1, 2, 3], dtype=np.float32)


def ask(module, client, outputs=(), **options):
    given = module.InferInput("IN", [2, 4], "FP32")
    given.set_data_from_numpy(X)
    wanted = [module.InferRequestedOutput(name) for name in outputs] or None
    return client.infer("a_pipe", [given], outputs=wanted, **options)


rest = http.InferenceServerClient(HTTP)
remote = rpc.InferenceServerClient(GRPC)
rest.load_model("a_pipe")
assert remote.is_model_ready("a_pipe") and remote.is_model_ready("scores")
for module, client in ((http, rest), (rpc, remote)):
    result = ask(module, client, priority=1, timeout=5_000_000)
    np.testing.assert_allclose(result.as_numpy("SCORES"), Y, rtol=1e-5)
    np.testing.assert_array_equal(result.as_numpy("SAME"), X)
    alone = ask(module, client, ["SAME"])
    np.testing.assert_array_equal(alone.as_numpy("SAME"), X)
    assert alone.as_numpy("SCORES") is None
    try:
        ask(module, client, ["raw"])
        raise AssertionError("what is inside is not given")
    except InferenceServerException as error:
        assert "unexpected output `raw`" in error.message(), error

steps = rest.get_model_config("a_pipe")["ensemble_scheduling"]["step"]
assert [step["model_name"] for step in steps] == ["scores", "pass", "keep"], steps
config = remote.get_model_config("a_pipe").config
assert config.platform == "ensemble"
assert config.ensemble_scheduling.step[0].input_map["x"] == "IN", config
assert config.ensemble_scheduling.step[2].model_version == 1
metadata = rest.get_model_metadata("a_pipe")
assert metadata["platform"].startswith("ensemble"), metadata
(stats,) = remote.get_inference_statistics("a_pipe").model_stats
assert (stats.inference_stats.success.count, stats.inference_count) == (4, 8), stats
(stats,) = remote.get_inference_statistics("pass").model_stats
assert stats.inference_stats.success.count == 2, "it runs only where its output is asked for"
remote.unload_model("a_pipe", unload_dependents=True)
assert not rest.is_model_ready("a_pipe") and not rest.is_model_ready("scores")
print("ok: ensemble")
