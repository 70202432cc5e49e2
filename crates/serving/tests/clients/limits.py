"""Deadlines, overload and clients that go away, with Triton's own clients: `python limits.py HTTP GRPC`.

Needs `tritonclient[http,grpc]` and `numpy`. The server has one thread and room for one request that waits. A run of its
model `log` takes until somebody asks whether the server is ready.
"""

import asyncio
import http.client
import json
import re
import sys
import threading
import time

import numpy as np
import tritonclient.grpc as rpc
import tritonclient.grpc.aio as rpc_aio
import tritonclient.http as rest
import tritonclient.http.aio as rest_aio
from tritonclient.utils import InferenceServerException

HTTP, GRPC = sys.argv[1:]
X = np.array([1], np.float32)
PLAIN = {rest: rest, rpc: rpc, rest_aio: rest, rpc_aio: rpc}
LONG = 60_000_000


def given(module):
    tensor = PLAIN[module].InferInput("x", [1], "FP32")
    tensor.set_data_from_numpy(X)
    return [tensor]


def address(module):
    return HTTP if PLAIN[module] is rest else GRPC


def ask(module, timeout=LONG):
    """What became of a request: `ok`, or the status."""
    async def answer():
        async with module.InferenceServerClient(address(module)) as client:
            return await client.infer("log", given(module), timeout=timeout)

    try:
        if module in (rest_aio, rpc_aio):
            result = asyncio.run(answer())
        else:
            with module.InferenceServerClient(address(module)) as client:
                result = client.infer("log", given(module), timeout=timeout)
        assert result.as_numpy("y").tolist() == [1.0]
        return "ok"
    except InferenceServerException as error:
        return error.status()


class Asked(threading.Thread):
    """A request in a thread of its own; a patient one is sent again while there is no room for it."""

    def __init__(self, module, patient=False):
        super().__init__(daemon=True)
        self.module, self.patient, self.outcome = module, patient, None
        self.start()

    def run(self):
        outcome = ask(self.module)
        while self.patient and outcome == statuses(self.module)[1]:
            time.sleep(0.01)
            outcome = ask(self.module)
        self.outcome = outcome

    def end(self):
        self.join(30)
        return self.outcome


def get(path):
    connection = http.client.HTTPConnection(HTTP, timeout=30)
    connection.request("GET", path)
    return connection.getresponse().read().decode()


def metric(name):
    labels = "" if "{" in name else r"(?:\{[^}]*\})?"
    return float(re.search(rf"^{re.escape(name)}{labels} (.*)$", get("/metrics"), re.MULTILINE).group(1))


def until(name, value):
    begun = time.monotonic()
    while metric(name) != value:
        assert time.monotonic() - begun < 30, f"{name} is {metric(name)}, not {value}"
        time.sleep(0.01)


WAITING, BEGUN = "nv_inference_pending_request_count", "runs_begun"
GONE = 'nv_inference_request_failure{model="log",reason="CANCELED",version="1"}'


def end_run():
    get("/v2/health/ready")


def occupy():
    """A request that runs until it is ended."""
    before = metric(BEGUN)
    running = Asked(rest)
    until(BEGUN, before + 1)
    return running


def statuses(module):
    if PLAIN[module] is rest:
        return "504", "503"
    return "StatusCode.DEADLINE_EXCEEDED", "StatusCode.UNAVAILABLE"


def until_one_waits():
    """Until a request finds no room, as one that waits has it. One whose time is over gives its own up."""
    while ask(rest, timeout=20_000) != "503":
        time.sleep(0.01)


def late_and_overloaded(module):
    late, overloaded = statuses(module)
    begun = metric(BEGUN)
    running, waiting = occupy(), Asked(module)
    until(WAITING, 1)
    outcome = ask(module)
    assert outcome == overloaded, (module, outcome)
    end_run()
    assert running.end() == "ok"
    until(BEGUN, begun + 2)
    outcome = ask(module, timeout=50_000)
    assert outcome == late, (module, outcome)
    after = Asked(module, patient=True)
    until_one_waits()
    for asked in (waiting, after):
        end_run()
        assert asked.end() == "ok", asked.outcome
    assert metric(BEGUN) == begun + 3, "what came too late doesn't run"
    print("ok: deadline and overload", module.__name__, flush=True)


BODY = json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]})


def post():
    connection = http.client.HTTPConnection(HTTP, timeout=30)
    connection.request("POST", "/v2/models/log/infer", BODY)
    return connection


def retry_after():
    running, waiting = occupy(), Asked(rest)
    until(WAITING, 1)
    answer = post().getresponse()
    assert (answer.status, answer.getheader("Retry-After")) == (503, "1"), answer.status
    assert "waiting already" in json.loads(answer.read())["error"]
    for asked in (running, waiting):
        end_run()
        assert asked.end() == "ok"
    print("ok: Retry-After", flush=True)


def hang_up(name, begin, go_away):
    running = occupy()
    before, gone = metric(BEGUN), metric(GONE)
    request = begin()
    until(WAITING, 1)
    go_away(request)
    waiting = Asked(rest, patient=True)
    until(GONE, gone + 1)
    end_run()
    assert running.end() == "ok"
    until(BEGUN, before + 1)
    end_run()
    assert waiting.end() == "ok", waiting.outcome
    assert metric(BEGUN) == before + 1, "what nobody waits for doesn't run"
    print("ok: hang-up", name, flush=True)


def cancel_aio(module):
    """Begins a request in a loop of its own; gives what cancels it."""
    loop = asyncio.new_event_loop()

    async def answer():
        async with module.InferenceServerClient(address(module)) as client:
            await client.infer("log", given(module), timeout=LONG)

    async def main():
        nonlocal task
        task = loop.create_task(answer())
        try:
            await task
        except BaseException:
            pass

    task = None
    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True)
    thread.start()

    def go_away():
        loop.call_soon_threadsafe(task.cancel)
        thread.join(30)

    return go_away


def main():
    for module in (rest, rpc, rest_aio, rpc_aio):
        late_and_overloaded(module)
    retry_after()
    hang_up("http", post, lambda connection: connection.close())
    client = rpc.InferenceServerClient(GRPC)
    begin = lambda: client.async_infer("log", given(rpc), lambda result, error: None, timeout=LONG)
    hang_up("grpc", begin, lambda call: call.cancel())
    for module in (rest_aio, rpc_aio):
        hang_up(module.__name__, lambda: cancel_aio(module), lambda go_away: go_away())


main()
