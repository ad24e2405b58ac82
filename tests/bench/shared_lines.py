#!/usr/bin/env python3
"""Shows that two workers which serve hits write no cache line that the other reads or writes.

    tests/bench/shared_lines.py [--build DIR]

Under valgrind's lackey every load and store is printed with its address. A thread is told by its
stack: whatever stores there is it, until another does (valgrind runs one at a time). While two
clients get hits in turns, one from each worker, the lines of 64 bytes are kept that one worker stores
to and another thread touches. Those that no instruction of the other touches as often as every second
turn are named and are no failure: what is done now and then (a timer's work), and the few accesses
around a change of threads. About two minutes, and 500 MB in the directory of temporary files.
"""
import argparse
import bisect
import collections
import os
import re
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.dont_write_bytecode = True
from suite.servers import BenchError, command, counters, free_port  # noqa: E402

TURNS, PIPELINE = 100, 4  # of each worker
# Everything takes a thousand times as long.
PATIENCE = ("coherence.heartbeat=5m", "coherence.max_staleness=10m", "upstream.timeout=10m",
            "upstream.connect_timeout=1m")
STACK_BYTES = 8 << 20
LINE_BITS = 6


class Proxy:
    def __init__(self, port):
        self.port = port


def gets():
    keys = [b"key:%d" % i for i in range(PIPELINE)]
    return b"".join(b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key) for key in keys)


def ask(peer, requests):
    peer.sendall(requests)
    wanted = PIPELINE * len(b"$64\r\n%64d\r\n" % 0)
    while wanted > 0:
        wanted -= len(peer.recv(wanted))


def connect(port, seconds):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=seconds)
        except OSError:
            if time.monotonic() > deadline:
                raise BenchError(f"nothing listens on port {port}") from None
            time.sleep(0.1)


def traced_hits(binary, directory):
    """The text of the trace while the hits were served, and /proc/PID/maps."""
    upstream_port, port = free_port(), free_port()
    log = os.path.join(directory, "trace")
    redis = subprocess.Popen(["redis-server", "--port", str(upstream_port), "--bind", "127.0.0.1",
                              "--save", "", "--dir", directory], stdout=subprocess.DEVNULL)
    proxy = subprocess.Popen(
        ["valgrind", "--tool=lackey", "--trace-mem=yes", f"--log-file={log}", binary, "--listen",
         f"127.0.0.1:{port}", "--upstream", f"redis://127.0.0.1:{upstream_port}", "--threads", "2",
         "--l1-memory", "4MiB", *(f"--set={limit}" for limit in PATIENCE)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        connect(upstream_port, 10).close()
        for i in range(PIPELINE):
            command(upstream_port, "SET", f"key:{i}", "v" * 64)
        clients = [connect(port, 300), connect(port, 300)]  # one for each worker
        for client in clients:
            ask(client, gets())  # the first answer comes late: so does the start
        while "bus:up" not in command(port, "INFO", "nearcached"):  # drops what is held
            time.sleep(0.5)
        for client in clients * 20:
            ask(client, gets())
            time.sleep(0.05)
        hits = counters(Proxy(port))[0]
        begin = os.path.getsize(log)
        for client in clients * TURNS:
            ask(client, gets())
        end = os.path.getsize(log)
        served = counters(Proxy(port))[0] - hits
        if served != 2 * TURNS * PIPELINE:
            raise BenchError(f"{served} hits in {2 * TURNS * PIPELINE} reads")
        with open(f"/proc/{proxy.pid}/maps") as maps:
            mapped = maps.read().splitlines()
    finally:
        for process in (proxy, redis):
            process.terminate()
            process.wait()
    with open(log, "rb") as trace:
        trace.seek(begin)
        return trace.read(end - begin).decode(errors="replace").splitlines()[1:-1], mapped


class Memory:
    """What lies where, from /proc/PID/maps."""

    def __init__(self, mapped):
        self.areas = []
        for line in mapped:
            match = re.match(r"(\w+)-(\w+) (\S+) (\w+) \S+ \S+\s*(.*)", line)
            begin, end, offset = (int(match[i], 16) for i in (1, 2, 4))
            self.areas.append((begin, end, match[3], offset, match[5]))
        self.stacks = [(area[0], area[1]) for before, area in zip(self.areas, self.areas[1:])
                       if (area[1] - area[0] == STACK_BYTES and before[2].startswith("---"))
                       or "[stack]" in area[4]]
        self.stacks.append(self.main_stack())
        self.stacks.sort()

    def main_stack(self):
        return max((area[:2] for area in self.areas if area[2].startswith("rw")
                    and area[1] <= 0x1FFF001000), default=(0, 0))

    def stack_of(self, address):
        at = bisect.bisect_right(self.stacks, (address, 1 << 64)) - 1
        return at if at >= 0 and address < self.stacks[at][1] else None

    def name(self, address):
        for begin, end, _, offset, path in self.areas:
            if begin <= address < end and path.startswith("/"):
                told = subprocess.run(["addr2line", "-Cfe", path, hex(address - begin + offset)],
                                      capture_output=True, text=True).stdout.split("\n")
                return told[0].split("(")[0]
        return "?"


def lines_of(trace, memory):
    """{line: {(thread, "L" or "S"): Counter of instructions}} beside the stacks."""
    lines = collections.defaultdict(lambda: collections.defaultdict(collections.Counter))
    thread, instruction = None, 0
    for entry in trace:
        kind = entry[:2].strip()
        if kind not in ("I", "L", "S", "M"):
            continue
        address, _, size = entry[3:].partition(",")
        address = int(address, 16)
        if kind == "I":
            instruction = address
            continue
        stack = memory.stack_of(address)
        if stack is not None:
            thread = thread if kind == "L" else stack
            continue
        for line in range(address >> LINE_BITS, (address + int(size) - 1 >> LINE_BITS) + 1):
            for each in "LS" if kind == "M" else kind:
                lines[line][thread, each][instruction] += 1
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.path.join(ROOT, "build"), help="build directory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nearcached-lines-") as directory:
        trace, mapped = traced_hits(os.path.join(options.build, "src", "nearcached"), directory)
    memory = Memory(mapped)
    lines = lines_of(trace, memory)
    work = collections.Counter()
    for accesses in lines.values():
        for (thread, _), instructions in accesses.items():
            work[thread] += instructions.total()
    workers = {thread: f"worker {i + 1}" for i, (thread, _) in enumerate(work.most_common(2))}
    print(f"{2 * TURNS * PIPELINE} hits in {2 * TURNS} turns; lines written: "
          + ", ".join(f"{sum((thread, 'S') in each for each in lines.values())} by {name}"
                      for thread, name in workers.items()))
    failed = 0
    for line, accesses in sorted(lines.items()):
        most = collections.Counter()  # by one instruction
        for (thread, _), instructions in accesses.items():
            most[thread] = max(most[thread], *instructions.values())
        if len(most) < 2 or not any((thread, "S") in accesses for thread in workers):
            continue
        shared = most.most_common(2)[1][1] >= TURNS // 2
        failed += shared
        print(f"{'SHARED' if shared else 'seldom'} {line << LINE_BITS:#x}: " + "; ".join(
            f"{workers.get(thread, 'another')} {'stores' if kind == 'S' else 'loads'} "
            f"{instructions.total()}, {memory.name(instructions.most_common(1)[0][0])}"
            for (thread, kind), instructions in accesses.items()))
    print(f"{failed} lines on the way of a hit are written by one thread and touched by another")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(str(error))
