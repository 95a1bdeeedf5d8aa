"""Logs in with Paramiko: address, port, user, key file or -, password or -."""

import sys

import paramiko

ADDRESS, PORT, USER, KEY, PASSWORD = sys.argv[1:]

client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect(
    ADDRESS,
    int(PORT),
    USER,
    None if PASSWORD == "-" else PASSWORD,
    key_filename=None if KEY == "-" else KEY,
    look_for_keys=False,
    allow_agent=False,
    timeout=10,
)
_, output, _ = client.exec_command("echo hello; sleep 0.2")
output.read()
client.close()
