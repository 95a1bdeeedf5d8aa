"""A server made with AsyncSSH that says who logged in: port, host key, authorized keys, password."""

import asyncio
import sys

import asyncssh

PORT, HOST_KEY, AUTHORIZED, PASSWORD = sys.argv[1:]


class Server(asyncssh.SSHServer):
    def connection_made(self, connection):
        self.peer = connection.get_extra_info("peername")[1]

    def begin_auth(self, username):
        return True

    def auth_completed(self):
        print("auth succeeded from port", self.peer, flush=True)

    def public_key_auth_supported(self):
        return True

    def validate_public_key(self, username, key):
        with open(AUTHORIZED) as file:
            is_known = key.export_public_key().split()[1].decode() in file.read()
        if not is_known:
            print("refused from port", self.peer, flush=True)
        return is_known

    def password_auth_supported(self):
        return True

    def validate_password(self, username, password):
        if password != PASSWORD:
            print("refused from port", self.peer, flush=True)
        return password == PASSWORD


def handle(process):
    process.stdout.write("hello\n")
    process.exit(0)


async def main():
    await asyncssh.create_server(
        Server,
        "",
        int(PORT),
        server_host_keys=[HOST_KEY],
        process_factory=handle,
    )
    await asyncio.Event().wait()


asyncio.run(main())
