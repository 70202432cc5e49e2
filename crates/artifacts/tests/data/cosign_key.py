"""Writes cosign.key: the key in ecdsa.pem as cosign keeps it, encrypted with the passphrase `cosign`. Needs PyNaCl."""

import base64
import hashlib
import json
import os
import pathlib
import textwrap

import nacl.bindings

here = pathlib.Path(__file__).parent
pem = (here / "ecdsa.pem").read_text()
der = base64.b64decode("".join(line for line in pem.splitlines() if "-----" not in line))
salt, nonce = os.urandom(32), os.urandom(24)
key = hashlib.scrypt(b"cosign", salt=salt, n=32768, r=8, p=1, maxmem=1 << 26, dklen=32)
sealed = nacl.bindings.crypto_secretbox(der, nonce, key)
text = {
    "kdf": {"name": "scrypt", "params": {"N": 32768, "r": 8, "p": 1}, "salt": base64.b64encode(salt).decode()},
    "cipher": {"name": "nacl/secretbox", "nonce": base64.b64encode(nonce).decode()},
    "ciphertext": base64.b64encode(sealed).decode(),
}
body = textwrap.fill(base64.b64encode(json.dumps(text).encode()).decode(), 64)
label = "ENCRYPTED COSIGN PRIVATE KEY"
(here / "cosign.key").write_text(f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
