"""Never logs in, but calls for answers of all sizes: address, port, cipher, MAC."""

import sys
import time

import paramiko
from paramiko.common import byte_chr
from paramiko.message import Message

ADDRESS, PORT, CIPHER, MAC = sys.argv[1:]

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


def attempt():
    send(50, "nobody-here", "ssh-connection", "none")


# SERVICE_REQUEST, a failure, messages that no server knows, and all of that again.
send(5, "ssh-userauth")
attempt()
for _ in range(3):
    send(58)
send(5, "ssh-userauth")
attempt()
send(58)
send(59, "x" * 600)
time.sleep(1.5)
transport.close()
