#!/usr/bin/python3
"""A TCP proxy for each link between two nodes: delay, jitter, small chunks, little bandwidth,
flipped bits.

Usage: proxy.py RULES-FILE FLIPS-FILE '[[address, host, port, "a-b"], ...]': what comes to the
address goes to the host, from the same address and to the same port. Prints "ready" when it
listens. The rules file is looked at several times a second (network.py writes it); in the flips
file stands how many bits have been changed so far.
"""
import asyncio
import json
import os
import random
import sys

PLAIN = {"delay_ms": 0, "jitter_ms": 0, "chunk": 65536, "rate": 0, "flip": 0}


class Links:
    def __init__(self, rules_file, flips_file):
        self.rules_file, self.flips_file = rules_file, flips_file
        self.rules, self.seen, self.flips = {}, None, 0

    async def follow(self):
        while True:
            s = os.stat(self.rules_file)
            if self.seen != (s.st_ino, s.st_mtime_ns):
                self.seen = (s.st_ino, s.st_mtime_ns)
                with open(self.rules_file, encoding="ascii") as f:
                    self.rules = json.load(f)
            with open(self.flips_file + ".new", "w", encoding="ascii") as f:
                f.write(str(self.flips))
            os.rename(self.flips_file + ".new", self.flips_file)
            await asyncio.sleep(0.05)

    def rule(self, link):
        return {**PLAIN, **self.rules.get("*", {}), **self.rules.get(link, {})}

    def spoil(self, data, share):
        """One bit of each of some bytes."""
        out = bytearray(data)
        for _ in range(max(1, int(len(out) * share))):
            out[random.randrange(len(out))] ^= 1 << random.randrange(8)
            self.flips += 1
        return bytes(out)


async def pump(links, link, reader, writer):
    """One direction. A queue between reading and writing, so that a delay is no bandwidth."""
    queue = asyncio.Queue(256)
    loop = asyncio.get_running_loop()

    async def read():
        due = 0.0
        try:
            while data := await reader.read(65536):
                r = links.rule(link)
                wait = (r["delay_ms"] + random.random() * r["jitter_ms"]) / 1000
                due = max(due, loop.time() + wait)  # a stream does not overtake itself
                await queue.put((due, data))
        except OSError:
            pass
        await queue.put((due, b""))

    task = asyncio.create_task(read())
    try:
        while True:
            due, data = await queue.get()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            if not data:
                break
            r = links.rule(link)
            if r["flip"] and random.random() < r["flip_chunks"]:
                data = links.spoil(data, r["flip"])
            step = max(1, r["chunk"])
            for at in range(0, len(data), step):
                writer.write(data[at:at + step])
                await writer.drain()
                if r["rate"]:
                    await asyncio.sleep(len(data[at:at + step]) / r["rate"])
                elif step < 64:
                    await asyncio.sleep(0)
    except OSError:
        pass
    finally:
        task.cancel()
        writer.close()


async def main():
    rules_file, flips_file, table = sys.argv[1:4]
    links = Links(rules_file, flips_file)

    def serve(address, host, port, name):
        async def connected(reader, writer):
            try:
                up_reader, up_writer = await asyncio.open_connection(
                    host, port, local_addr=(address, 0))
            except OSError:
                writer.transport.abort()
                return
            for w in (writer, up_writer):
                w.get_extra_info("socket").setsockopt(6, 1, 1)  # TCP_NODELAY
            back = "-".join(reversed(name.split("-")))
            await asyncio.gather(pump(links, name, reader, up_writer),
                                 pump(links, back, up_reader, writer))
        return connected

    for address, host, port, name in json.loads(table):
        await asyncio.start_server(serve(address, host, port, name), address, port)
    print("ready", flush=True)
    await links.follow()


asyncio.run(main())
