"""Never logs in, but calls for answers of all sizes: address, port, cipher, MAC, what to do.

`answers` calls for whatever a server answers, `disconnect` and `names` for a last message as long as its
host keys: OpenSSH repeats the name of the first user and that of another one. The latter asks with a short request.
"""

import sys
import time

import paramiko
from paramiko.common import byte_chr
from paramiko.message import Message

ADDRESS, PORT, CIPHER, MAC, MODE = sys.argv[1:]
SERVICE = "ssh-connection"
# Payload of OpenSSH's `hostkeys-00` with keys of the kinds that the lab's servers have: Ed25519, ECDSA of 256
# bits, RSA of 2048.
HOST_KEYS = 475

transport = paramiko.Transport((ADDRESS, int(PORT)))
options = transport.get_security_options()
options.ciphers = [CIPHER]
options.digests = [MAC]
transport.start_client(timeout=10)


def send(number, *strings):
    message = Message()
    message.add_byte(byte_chr(number))
    for text in strings:
        message.add_string(text)
    transport._send_message(message)
    time.sleep(0.05)


def attempt(user="nobody-here"):
    send(50, user, SERVICE, "none")


def other_name(first):
    """A user's name with which the DISCONNECT is as long as host keys."""
    told = f"Change of username or service not allowed: ({first},{SERVICE}) -> (,{SERVICE})"
    # Its number, the reason, the lengths of text and language.
    return "b" * (HOST_KEYS - 13 - len(told))


send(5, "ssh-userauth")
if MODE == "answers":
    # A failure, messages that no server knows, and all of that again.
    attempt()
    for _ in range(3):
        send(58)
    send(5, "ssh-userauth")
    attempt()
    send(58)
    send(59, "x" * 600)
    time.sleep(1.5)
else:
    user = "a" * (300 if MODE == "names" else 1)
    attempt(user)
    attempt(user)
    send(58)
    attempt(other_name(user))
    time.sleep(0.5)
    assert not transport.is_active(), "the server goes on"
    print("disconnected", flush=True)
transport.close()
