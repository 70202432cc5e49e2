"""Sends a picture as it is and in a form: ADDRESS PICTURE. Prints the classes of both answers."""

import json
import sys

import requests

address, picture = sys.argv[1:]
url = f"http://{address}/v2/models/colours/infer"
plain = requests.post(url, data=open(picture, "rb"), headers={"Content-Type": "image/png"})
form = requests.post(url, files={"file": open(picture, "rb")})
print(json.dumps([plain.json()["classes"], form.json()["classes"]]))
