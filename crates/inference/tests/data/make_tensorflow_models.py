"""Makes the small TensorFlow and TFLite models that the tests serve; needs TensorFlow 2.21.

Weights come from fixed seeds; `expected.json` holds what TensorFlow itself answers.
"""

import json
import os
import pathlib
import shutil
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
import numpy as np
import tensorflow as tf

OUT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
EXPECTED = {}


def expect(name, inputs, outputs):
    """Keeps a case; tensors as [datatype, shape, flat values]."""

    def shown(tensors):
        return {
            key: [str(np.asarray(value).dtype), list(np.asarray(value).shape), np.asarray(value).ravel().tolist()]
            for key, value in tensors.items()
        }

    EXPECTED[name] = {"inputs": shown(inputs), "outputs": shown(outputs)}


def keras_model():
    tf.keras.utils.set_random_seed(7)
    image = tf.keras.Input((8, 8, 3), name="image")
    x = tf.keras.layers.Conv2D(4, 3, activation="relu")(image)
    x = tf.keras.layers.BatchNormalization()(x)
    x = tf.keras.layers.MaxPooling2D()(x)
    x = tf.keras.layers.Flatten()(x)
    return tf.keras.Model(image, tf.keras.layers.Dense(5, activation="softmax", name="scores")(x))


def image(rows):
    return (np.arange(rows * 8 * 8 * 3) * 37 % 101 / 101).astype(np.float32).reshape(rows, 8, 8, 3)


def keras3(model):
    model.export(OUT / "keras3", verbose=False)
    served = tf.saved_model.load(OUT / "keras3").signatures["serving_default"]
    given = {key: value.numpy() for key, value in served(tf.constant(image(2))).items()}
    name = list(served.structured_input_signature[1])[0]
    expect("keras3", {name: image(2)}, given)


class Several(tf.Module):
    """Two inputs, two outputs, several signatures, a lookup table and a text."""

    def __init__(self):
        super().__init__()
        self.scale = tf.Variable(3.0)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="a"), tf.TensorSpec([None], tf.int64, name="b")])
    def both(self, a, b):
        return {"sum": a + b, "scaled": tf.cast(a, tf.float32) * self.scale}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def shout(self, text):
        return {"loud": tf.strings.upper(text), "length": tf.strings.length(text)}


def several():
    module = Several()
    tf.saved_model.save(module, OUT / "several", signatures={"serving_default": module.both, "shout": module.shout})
    a, b = np.array([1, 2**40], np.int64), np.array([5, -7], np.int64)
    expect("several", {"a": a, "b": b}, {"sum": a + b, "scaled": a.astype(np.float32) * 3})
    tf.saved_model.save(module, OUT / "shout", signatures={"shout": module.shout})
    text = np.array([b"gr\xc3\xbcn", b""], object)
    EXPECTED["shout"] = {
        "inputs": {"text": ["bytes", [2], ["gr\u00fcn", ""]]},
        "outputs": {"loud": ["bytes", [2], ["GR\u00fcN", ""]], "length": ["int32", [2], [5, 0]]},
    }
    given = module.shout(tf.constant(text))
    assert [word.decode() for word in given["loud"].numpy()] == ["GR\u00fcN", ""]


def tf1():
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 4], name="x")
        w = v1.get_variable("w", initializer=tf.constant(np.arange(12, dtype=np.float32).reshape(4, 3)))
        y = tf.identity(tf.matmul(x, w) + 0.5, name="y")
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(OUT / "tf1"), {"x": x}, {"y": y})
        value = np.array([[1, 0, 0, 0], [1, 2, 3, 4]], np.float32)
        answer = session.run(y, {x: value})
        expect("tf1", {"x": value}, {"y": answer})
        frozen = v1.graph_util.convert_variables_to_constants(session, session.graph_def, ["y"])
        (OUT / "frozen.pb").write_bytes(frozen.SerializeToString())
        expect("frozen.pb", {"x": value}, {"y": answer})


def tflite(model):
    def write(name, content, value):
        (OUT / name).write_bytes(content)
        lite = tf.lite.Interpreter(model_content=content)
        runner = lite.get_signature_runner()
        (key,) = runner.get_input_details()
        expect(name, {key: value}, runner(**{key: value}))

    write("float.tflite", tf.lite.TFLiteConverter.from_keras_model(model).convert(), image(2))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image(1)] for _ in range(4))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    write("int8.tflite", converter.convert(), (image(1) * 255 - 128).astype(np.int8))
    several = Several()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([several.both.get_concrete_function()], several)
    write_two(converter.convert())


def write_two(content):
    (OUT / "two.tflite").write_bytes(content)
    runner = tf.lite.Interpreter(model_content=content).get_signature_runner()
    a, b = np.array([1, 2**40], np.int64), np.array([5, -7], np.int64)
    given = runner(a=a, b=b)
    expect("two.tflite", {"a": a, "b": b}, given)


def main():
    for old in ["keras3", "several", "shout", "tf1"]:
        shutil.rmtree(OUT / old, ignore_errors=True)
    model = keras_model()
    keras3(model)
    several()
    tf1()
    tflite(model)
    for folder in OUT.rglob("fingerprint.pb"):
        folder.unlink()
    (OUT / "expected.json").write_text(json.dumps(EXPECTED, indent=1, sort_keys=True) + "\n")


main()
