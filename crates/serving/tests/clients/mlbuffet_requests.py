"""Does with `requests` what MLBuffet's manual shows: `python mlbuffet_requests.py HOST:PORT MODEL.onnx`.

MODEL.onnx gives the place of the greatest of four numbers.
"""

import sys

import requests

BASE = f"http://{sys.argv[1]}"
MODELS = f"{BASE}/api/v1/models"


def upload(tag, path, **form):
    with open(path, "rb") as file:
        return requests.post(f"{MODELS}/{tag}", files={"path": file}, data=form)


def told(response):
    status = response.json()["http_status"]
    assert status["code"] == response.status_code, (response.status_code, status)
    return status["code"], status["description"]


def check_server():
    assert told(requests.get(f"{BASE}/api/test")) == (200, "OK")
    assert requests.get(f"{BASE}/help").ok and requests.get(BASE).ok


def check_upload():
    for version in ("onnx==1.16", "onnx==1.17"):
        answer = upload("best-one", sys.argv[2], library_version=version, model_description="which is greatest?")
        assert told(answer) == (201, "File label.onnx saved with the tag best-one"), answer.text
    assert "best-one" in requests.get(MODELS).json()["tag_list"]
    information = requests.get(f"{MODELS}/best-one/information").json()
    assert information["default_version"] == "2", information
    assert information["tag_list_versions"]["1"]["ml_library"] == "onnx==1.16", information


def check_prediction():
    for tag in ("best-one", "best-one:default", "best-one:1"):
        for values, expected in (([0, 0, 7.5, 0], [2]), ([[9, 0, 0, 0], [0, 9, 0, 0]], [0, 1])):
            answer = requests.post(f"{MODELS}/{tag}/prediction", json={"values": values})
            assert answer.json()["values"] == expected, answer.text
            answer = requests.get(f"{MODELS}/{tag}/prediction", json={"values": values})
            assert answer.json()["values"] == expected, answer.text


def check_errors():
    assert told(requests.post(f"{MODELS}/nope/prediction", json={"values": [1]}))[0] == 404
    code, text = told(requests.post(f"{MODELS}/best-one/prediction", json={"values": [1, 2, 3]}))
    assert code == 422 and "[3]" in text and "[4]" in text, text
    assert told(requests.post(f"{MODELS}/best-one/default", json={"default": 99}))[0] == 404
    assert told(requests.post(f"{BASE}/api/v1/train/t/m.onnx"))[0] == 501


def check_download_and_default():
    answer = requests.get(f"{MODELS}/best-one:1")
    assert answer.headers["Content-Disposition"] == "attachment; filename=label.onnx"
    with open(sys.argv[2], "rb") as file:
        assert answer.content == file.read()
    assert told(requests.post(f"{MODELS}/best-one/default", json={"default": 1}))[0] == 200
    answer = requests.put(f"{MODELS}/best-one/information", json={"model_description": "new"})
    assert told(answer)[0] == 200, answer.text
    information = requests.get(f"{MODELS}/best-one/information").json()
    assert information["tag_list_versions"]["1"]["description"] == "new", information


def check_deletion():
    assert told(requests.delete(f"{MODELS}/best-one:2")) == (200, "Version 2 from tag best-one removed successfully")
    assert told(requests.delete(f"{MODELS}/best-one")) == (200, "Tag best-one removed successfully")
    assert told(requests.delete(f"{MODELS}/best-one"))[0] == 404


for check in (check_server, check_upload, check_prediction, check_errors, check_download_and_default,
              check_deletion):
    check()
    print(f"ok: {check.__name__}")
