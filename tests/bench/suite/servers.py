"""The servers that tools/bench measures, each on its core, and the load generator."""
import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import time

CONTENTION_SHARE_MAX = 0.05  # of its time that a server may wait for its core before we warn
HIT_SHARE_MIN = 0.99
PR_SET_PDEATHSIG = 1

# Server names as printed.
REDIS, TWEMPROXY, PASS, HIT = "redis direct", "twemproxy", "nearcached pass", "nearcached hit"
FLOOR = "libuv floor"


class BenchError(Exception):
    pass


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def command(port, *args):
    """One Redis command; returns the body of a bulk or simple string."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
        request = b"*%d\r\n" % len(args)
        for arg in args:
            request += b"$%d\r\n%s\r\n" % (len(arg), arg.encode())
        s.sendall(request)
        stream = s.makefile("rb")
        head = stream.readline()
        if head[:1] == b"$" and int(head[1:]) >= 0:
            return stream.read(int(head[1:])).decode()
        if head[:1] == b"+":
            return head[1:].decode().strip()
        raise BenchError(f"{' '.join(args)} on port {port} answers {head!r}")


def info(port, section):
    lines = command(port, "INFO", section).splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


class Server:
    """A process that listens on 127.0.0.1:port, pinned to its cores, and ends with this program."""

    def __init__(self, name, argv, port, cores, directory):
        self.name, self.port = name, port
        self.log_path = os.path.join(directory, f"{re.sub('[^a-z]', '-', name)}-{port}.log")
        libc = ctypes.CDLL(None)

        def in_child():
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # even if this program is killed
            os.sched_setaffinity(0, cores)

        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            cwd=directory, start_new_session=True,
                                            preexec_fn=in_child)
        self.pid = self.process.pid

    def wait_ready(self):
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        with open(self.log_path, errors="replace") as log:
            tail = "".join(log.readlines()[-8:])
        raise BenchError(f"{self.name} does not accept connections:\n{tail}")

    def rss_bytes(self):
        with open(f"/proc/{self.pid}/status") as status:
            for line in status:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        raise BenchError(f"{self.name} has no VmRSS")

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Machine:
    """The cores and what runs on them. Every row starts its servers and ends with stop_all()."""

    def __init__(self, options, directory):
        self.options, self.directory = options, directory
        self.servers = []
        self.warnings = set()
        self.failures = {}  # what is wrong, by row: it is all measured, and then the program fails
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise BenchError("needs two cores: one for the server under test, one for the load")
        self.server_core, self.load_core = cores[0], cores[1]
        self.upstream_core = cores[2] if len(cores) > 2 else cores[1]
        # Two workers: on cores of their own if there are four, else one of them beside the load.
        self.worker_cores = {cores[0], cores[3] if len(cores) > 3 else cores[1]}

    # Starting and stopping

    def start(self, name, argv, port, *cores):
        server = Server(name, argv, port, set(cores), self.directory)
        self.servers.append(server)
        server.wait_ready()
        return server

    def stop(self, server):
        server.stop()
        self.servers.remove(server)

    def stop_all(self):
        for server in reversed(self.servers):
            server.stop()
        self.servers.clear()

    def start_redis(self, name, core):
        port = free_port()
        return self.start(name, [
            self.options.upstream_binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "",
            "--appendonly", "no", "--maxclients", "11000", "--daemonize", "no"], port, core)

    def start_direct_and_upstream(self):
        """Redis to be asked directly, on the core of the servers under test, and Redis behind them."""
        return (self.start_redis(REDIS, self.server_core),
                self.start_redis("upstream redis", self.upstream_core))

    def start_twemproxy(self, upstream):
        port, stats_port = free_port(), free_port()
        config = os.path.join(self.directory, f"nutcracker-{port}.yml")
        with open(config, "w") as out:
            out.write(f"bench:\n  listen: 127.0.0.1:{port}\n  redis: true\n  hash: fnv1a_64\n"
                      f"  distribution: ketama\n  preconnect: true\n  backlog: 1024\n"
                      f"  auto_eject_hosts: false\n  servers:\n   - 127.0.0.1:{upstream.port}:1\n")
        return self.start(TWEMPROXY, [
            self.options.twemproxy_binary, "-c", config, "-a", "127.0.0.1", "-s", str(stats_port),
            "-o", os.path.join(self.directory, f"nutcracker-{port}.out"),
            "-p", os.path.join(self.directory, f"nutcracker-{port}.pid")], port, self.server_core)

    def start_floor(self, value_bytes):
        port = free_port()
        return self.start(FLOOR, [self.program("nearcached-floor"), "--port", str(port),
                                  "--value-bytes", str(value_bytes)], port, self.server_core)

    def start_nearcached(self, name, upstream, *extra, cores=None):
        port = free_port()
        server = self.start(name, [
            os.path.join(self.options.build, "src", "nearcached"), "--listen", f"127.0.0.1:{port}",
            *([] if "--upstream" in extra else ["--upstream", f"redis://127.0.0.1:{upstream.port}"]),
            *([] if "--threads" in extra else ["--threads", "1"]),
            "--set", "limits.clients=11000", *extra], port, *(cores or {self.server_core}))
        if command(port, "PING") != "PONG":
            raise BenchError(f"{name} does not answer PING")
        return server

    def start_pass(self, upstream, *extra):
        return self.start_nearcached(PASS, upstream, "--set", "l1.enabled=false", *extra)

    def start_hit(self, upstream, *extra, **more):
        return self.start_nearcached(HIT, upstream, "--l1-memory", "256MiB", *extra, **more)

    # The load

    def program(self, name):
        return os.path.join(self.options.build, "tests", "bench", name)

    def start_loadgen(self, *args, core=None):
        argv = [self.program("nearcached-loadgen"), *args,
                "--cpu", self.load_core if core is None else core]
        return subprocess.Popen([str(arg) for arg in argv], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish_loadgen(self, process, *args):
        """What it printed. A wrong reply, or anything else that it stumbles over, raises."""
        with process:
            try:
                out, errors = process.communicate(timeout=600 + self.options.seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                raise BenchError(
                    f"the load generator does not end: {' '.join(map(str, args))}") from None
        if process.returncode != 0:
            raise BenchError(f"{errors.strip()} ({' '.join(map(str, args))})")
        return out

    def loadgen(self, *args):
        return self.finish_loadgen(self.start_loadgen(*args), *args)

    def fill(self, servers, *shape):
        for server in servers:
            self.loadgen("fill", "--port", server.port, *shape)

    def warm(self, server, *shape, passes=3):
        """The pass before the measured one: fills L1 where there is one, and caches of the CPU."""
        self.loadgen("run", "--port", server.port, "--pipeline", 16, "--passes", passes, *shape)

    def run_load(self, server, *args, upstream=None):
        """One measured run; CPU is per request. Several servers, in a tuple, share the load."""
        under_test = server if isinstance(server, tuple) else (server,)
        ports = [arg for each in under_test for arg in ("--port", each.port)]
        watched = [*under_test, *([upstream] if upstream else [])]
        result = json.loads(self.loadgen("run", *ports, *args,
                                         *(arg for each in watched for arg in ("--pid", each.pid))))
        requests, wall_ns = result["requests"], result["seconds"] * 1e9
        own = result["processes"][:len(under_test)]
        if sum(times["waiting_ns"] for times in own) > CONTENTION_SHARE_MAX * wall_ns * len(own):
            self.warnings.add("something else ran on the server's core: measure on a quiet machine")
        running_ns = sum(times["running_ns"] for times in own)
        figures = {
            "rate": requests / result["seconds"],
            "cpu_us": running_ns / requests / 1e3,
            "cpu_ns_per_byte": running_ns / result["bytes"],
            "busy": running_ns / wall_ns,
            "load_waited": result["load_waiting_ns"] / wall_ns,
            **{name: result[name] for name in ("requests", "p50_us", "p99_us", "p999_us", "churned",
                                               "churned_p99_us")},
        }
        if upstream:
            figures["upstream_cpu_us"] = result["processes"][-1]["running_ns"] / requests / 1e3
        return figures


def counters(*servers):
    """(hits, misses) of all of them so far."""
    sections = [info(server.port, "nearcached") for server in servers]
    return tuple(sum(int(section[name]) for section in sections)
                 for name in ("l1_hits", "l1_misses"))


def hit_share(machine, row, before, after, requests, least=HIT_SHARE_MIN, most=1.0):
    """The share of hits between two counters(). A row that is not what it claims to be is a failure."""
    hits, misses = after[0] - before[0], after[1] - before[1]
    share = hits / max(hits + misses, 1)
    # Against the replies counted by the load too, so that a counter that lies is no hit either.
    if not (least <= share <= most and least <= hits / requests):
        machine.failures[row] = (
            f"{hits} hits and {misses} misses in {requests} requests; "
            + (f"at least {100 * least:.0f} % must be hits" if most == 1.0 else
               f"{100 * least:.0f} to {100 * most:.0f} % must be hits"))
    return share
