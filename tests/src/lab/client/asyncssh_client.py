"""Logs in with AsyncSSH: address, port, user, key file or -, password or -."""

import asyncio
import sys

import asyncssh

ADDRESS, PORT, USER, KEY, PASSWORD = sys.argv[1:]


async def main():
    async with asyncssh.connect(
        ADDRESS,
        int(PORT),
        username=USER,
        client_keys=None if KEY == "-" else [KEY],
        password=None if PASSWORD == "-" else PASSWORD,
        known_hosts=None,
        config=None,
        agent_path=None,
    ) as connection:
        await connection.run("echo hello; sleep 0.2")


asyncio.run(main())
