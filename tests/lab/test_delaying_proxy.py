"""The proxy that stands for a network between machines."""

import asyncio
import subprocess
import sys


def test_what_passes_arrives_whole_and_no_earlier_than_its_delay() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            writer.write(data)
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        proxy = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "todoku.lab.delaying_proxy", "20", f"127.0.0.1:{port}"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert proxy.stdin is not None
        assert proxy.stdout is not None
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(30):
            through = int(await proxy.stdout.readline())
            reader, writer = await asyncio.open_connection("127.0.0.1", through)
            sent = bytes(range(256)) * 4_000
            begun = loop.time()
            writer.write(sent)
            assert await reader.readexactly(len(sent)) == sent
            assert loop.time() - begun >= 0.02
            writer.close()
            await writer.wait_closed()
            proxy.stdin.close()
            assert await proxy.wait() == 0
        server.close()
        await server.wait_closed()

    asyncio.run(scenario())
