"""ONNX Runtime in process, the floor: runs a model on a request's input. MODEL REQUEST SECONDS

Prints the microseconds of processor time a run, and the median of a run."""

import json
import statistics
import sys
import time

import numpy
import onnxruntime

DATATYPES = {"FP32": numpy.float32, "INT32": numpy.int32}

model, request, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
with open(request) as file:
    tensor = json.load(file)["inputs"][0]
inputs = {tensor["name"]: numpy.array(tensor["data"], DATATYPES[tensor["datatype"]]).reshape(tensor["shape"])}
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 3
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
output = [session.get_outputs()[-1].name]
for _ in range(20):
    session.run(output, inputs)
times = []
began, spent = time.perf_counter(), time.process_time()
while time.perf_counter() - began < seconds:
    start = time.perf_counter()
    session.run(output, inputs)
    times.append(time.perf_counter() - start)
spent = time.process_time() - spent
print(spent / len(times) * 1e6, statistics.median(times) * 1e6)
