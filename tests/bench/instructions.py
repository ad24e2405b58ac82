#!/usr/bin/env python3
"""That a hit and a request that is passed on cost as many instructions as the committed figures say.

    tests/bench/instructions.py --build DIR            compare; exit status 1 beyond 5 % either way
    tests/bench/instructions.py --build DIR --update   measure and write instructions.json

Times on a shared machine vary by more than a change of the hot path does; instructions do not. So
nearcached runs under callgrind with a fixed input: one connection, a closed loop of pipelines of 16
GETs (16 B keys, 64 B values). Two phases of different length are counted, and the figure is their
difference by the difference of their requests: what a phase costs whatever its length cancels.
The clock is slowed down as valgrind slows down everything else (slow_clock.cc), so that what time
drives is in the figure with the weight that it has in life.

The figure depends on compiler, flags and libraries; the committed ones name theirs, and elsewhere the
comparison is skipped, loudly, with exit status 0. It does not depend on the processor: glibc is told
to use its plain SSE2 functions. Better by more than 5 % is an error too: commit the new figure, or the
next change may take back all that was won and not be noticed.
"""
import argparse
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
COMMITTED = os.path.join(HERE, "instructions.json")
SLACK = 0.05
KEYS, VALUE_BYTES, PIPELINE = 1000, 64, 16
SHORT, LONG = 8_000, 40_000  # requests of the two phases
REPLY_BYTES = len("$64\r\n\r\n") + VALUE_BYTES
START_TIMEOUT_S = 60
USUAL_CLOCK_S = 3.5  # after its start, nearcached's clock is slow; see slow_clock.cc
WAYS = {"hit": [], "pass": ["--set", "l1.enabled=false"]}
PLAIN_FUNCTIONS = "glibc.cpu.hwcaps=-AVX2,-AVX,-BMI2,-ERMS,-FSRM,-AVX_Fast_Unaligned_Load,-AVX512F,-AVX512VL,-AVX512BW"


class GuardError(Exception):
    pass


def output_of(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def environment(build):
    """All that the figures depend on, but for our own source."""
    with open(os.path.join(build, "meson-info", "intro-buildoptions.json")) as f:
        options = {option["name"]: option["value"] for option in json.load(f)}
    with open(os.path.join(build, "meson-logs", "meson-log.txt")) as f:
        compiler = re.search(r"^C\+\+ compiler for the host machine: .*?\((.*)\)$", f.read(),
                             re.MULTILINE)
    return {
        "machine": os.uname().machine,
        "compiler": compiler.group(1) if compiler else "unknown",
        "build": f"{options['buildtype']} -O{options['optimization']}, "
                 f"b_sanitize={options['b_sanitize']}, b_lto={options['b_lto']}, "
                 f"allocator={options['allocator']}, mutations={options['mutations']}, "
                 f"cpp_args={' '.join(options['cpp_args']) or 'none'}",
        "libraries": ", ".join(f"{name} {output_of('pkg-config', '--modversion', name)}"
                               for name in ("libuv", "jemalloc")) + ", "
                     + output_of("getconf", "GNU_LIBC_VERSION"),
        "valgrind": output_of("valgrind", "--version"),
    }


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def connected(port, process):
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=START_TIMEOUT_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise GuardError(f"{process.args[0]} does not accept connections")


def request(*args):
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%s\r\n" % (len(a), a) for a in args)


def ask(connection, requests, reply_bytes):
    connection.sendall(requests)
    reply = b""
    while len(reply) < reply_bytes:
        piece = connection.recv(1 << 16)
        if not piece:
            raise GuardError("nearcached has closed the connection")
        reply += piece
    return reply


def hits_of(connection):
    connection.sendall(request(b"INFO", b"nearcached"))
    reply = b""
    while b"\r\nl1_hits:" not in reply or not reply.endswith(b"\r\n"):
        reply += connection.recv(1 << 16)
    return int(re.search(rb"\r\nl1_hits:(\d+)", reply).group(1))


class Proxy:
    """nearcached under callgrind, and the Redis behind it; ends both."""

    def __init__(self, build, way, directory):
        self.directory = directory
        port, upstream = free_port(), free_port()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": directory}
        self.out = os.path.join(directory, f"callgrind.{way}")
        self.redis = subprocess.Popen(["redis-server", "--port", str(upstream), "--bind",
                                       "127.0.0.1", "--save", ""], **quiet)
        self.process = None
        try:
            connected(upstream, self.redis).close()
            self.process = subprocess.Popen(
                ["valgrind", "--tool=callgrind", "--instr-atstart=no",
                 f"--callgrind-out-file={self.out}", os.path.join(build, "src", "nearcached"),
                 "--listen", f"127.0.0.1:{port}", "--upstream", f"redis://127.0.0.1:{upstream}",
                 "--threads", "1", *WAYS[way]],
                env={**os.environ, "GLIBC_TUNABLES": PLAIN_FUNCTIONS,
                     "LD_PRELOAD": os.path.join(build, "tests", "bench", "libslow-clock.so")},
                **quiet)
            self.connection = connected(port, self.process)
            self.slow_from = time.monotonic() + USUAL_CLOCK_S
        except BaseException:
            self.stop()
            raise

    def control(self, *args):
        done = subprocess.run(["callgrind_control", *args, str(self.process.pid)],
                              capture_output=True, text=True, timeout=START_TIMEOUT_S)
        if done.returncode != 0:
            raise GuardError(f"callgrind_control {' '.join(args)}: {done.stdout}{done.stderr}")

    def counted_since_last(self, dump_number):
        self.control("-d")
        path = f"{self.out}.{dump_number}"
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if os.path.exists(path):
                with open(path) as dump:
                    found = re.search(r"^totals: (\d+)", dump.read(), re.MULTILINE)
                if found:
                    return int(found.group(1))
            time.sleep(0.05)
        raise GuardError("callgrind writes no counts")

    def stop(self):
        for process in (self.process, self.redis):
            if process:
                process.kill()  # with its clock so slow, nearcached would take long to say goodbye
                process.wait()


def instructions_per_request(build, way, directory):
    proxy = Proxy(build, way, directory)
    try:
        keys = [b"key:%012d" % i for i in range(KEYS)]
        value = b"v" * VALUE_BYTES
        reply = b"$%d\r\n%s\r\n" % (VALUE_BYTES, value)

        def batch(chosen):
            got = ask(proxy.connection, b"".join(request(b"GET", key) for key in chosen),
                      len(reply) * len(chosen))
            if got != reply * len(chosen):
                raise GuardError(f"wrong reply: {got[:80]!r}")

        for key in keys:
            ask(proxy.connection, request(b"SET", key, value), len("+OK\r\n"))
        for key in keys * 3:  # however often a key must be asked for before it is kept
            batch([key])
        generator = random.Random(1)
        phases = [[[generator.choice(keys) for _ in range(PIPELINE)]
                   for _ in range(length // PIPELINE)] for length in (SHORT, LONG)]
        hits_before = hits_of(proxy.connection)
        time.sleep(max(0.0, proxy.slow_from - time.monotonic()))
        proxy.control("-i", "on")
        for chosen in phases[0][:100]:
            batch(chosen)  # what is done only the first time after translation
        proxy.control("-z")
        counts = []
        for number, phase in enumerate(phases, 1):
            for chosen in phase:
                batch(chosen)
            counts.append(proxy.counted_since_last(number))
        proxy.control("-i", "off")
        share = (hits_of(proxy.connection) - hits_before) / (SHORT + LONG + 100 * PIPELINE)
        if (way == "hit" and share < 0.99) or (way == "pass" and share > 0.01):
            raise GuardError(f"{way}: {100 * share:.1f} % of the requests were hits")
        return (counts[1] - counts[0]) / (LONG - SHORT)
    finally:
        proxy.stop()


def compare(way, measured, committed):
    """What to say, and whether it is within the slack."""
    change = measured / committed - 1
    line = f"{way}: {measured:.0f} instructions per request, committed {committed}, {change:+.1%}"
    if change > SLACK:
        return f"{line}: WORSE by more than {SLACK:.0%}", False
    if change < -SLACK:
        return f"{line}: better by more than {SLACK:.0%}, commit the new figure (--update)", False
    return line, True


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True, help="build directory")
    parser.add_argument("--update", action="store_true", help="write instructions.json")
    parser.add_argument("--committed", default=COMMITTED, help="the file to compare with or write")
    options = parser.parse_args()
    for program in ("valgrind", "callgrind_control", "redis-server"):
        if not shutil.which(program):
            raise GuardError(f"{program} is missing: tools/install-deps --ci")
    here = environment(options.build)
    committed = None
    if not options.update:
        with open(options.committed) as f:
            committed = json.load(f)
        differences = [f"  {name}: {here[name]}, committed {value}"
                       for name, value in committed["environment"].items() if here[name] != value]
        if differences:
            print("SKIPPED: the committed figures are of another environment:",
                  *differences, sep="\n")
            return 0
    build = os.path.abspath(options.build)
    with tempfile.TemporaryDirectory(prefix="nearcached-instructions-") as directory:
        measured = {way: instructions_per_request(build, way, directory) for way in WAYS}
    if options.update:
        figures = {way: round(figure) for way, figure in measured.items()}
        with open(options.committed, "w") as out:
            json.dump({"environment": here, "instructions_per_request": figures}, out, indent=2)
            out.write("\n")
        print(*(f"{way}: {figure} instructions per request" for way, figure in figures.items()),
              sep="\n")
        return 0
    outcomes = [compare(way, measured[way], committed["instructions_per_request"][way])
                for way in WAYS]
    print(*(line for line, _ in outcomes), sep="\n")
    return 0 if all(good for _, good in outcomes) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except GuardError as error:
        print(f"instructions.py: {error}", file=sys.stderr)
        sys.exit(1)
