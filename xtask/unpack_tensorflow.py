"""Unpacks TensorFlow's shared libraries out of the wheel in a folder, and removes the wheel. Argument: the folder."""

import pathlib
import sys
import zipfile

LIBRARIES = ("tensorflow/libtensorflow_cc.so", "tensorflow/libtensorflow_framework.so")


def main():
    folder = pathlib.Path(sys.argv[1])
    (wheel,) = folder.glob("tensorflow_cpu-*.whl")
    with zipfile.ZipFile(wheel) as files:
        for name in files.namelist():
            if name.startswith(LIBRARIES):
                files.extract(name, folder)
    wheel.unlink()


if __name__ == "__main__":
    main()
