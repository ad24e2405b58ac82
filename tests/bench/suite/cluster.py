"""In front of a cluster of three primaries."""
import binascii
import contextlib
import itertools
import os
import socket
import statistics
import subprocess
import time

from .report import median_of, progress, ratios, turned
from .servers import HIT, PASS, REDIS, BenchError, command, free_port
from .throughput import cell_name, measure, shape_of


SHARDS = "redis shard direct"
LINK_DELAY_MS = 1  # each way, where what is measured is counted in round trips
MGET_ROUND_TRIPS_MAX = 1.5


@contextlib.contextmanager
def distant(machine, port):
    """The port of a link to `port` on which everything takes LINK_DELAY_MS each way."""
    argv = [os.path.join(machine.options.build, "tests", "e2e", "fault-forwarder"), str(port)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as link:
        link_port = int(link.stdout.readline())
        print(f"weather delay={LINK_DELAY_MS}", file=link.stdin, flush=True)
        link.stdout.readline()
        try:
            yield link_port
        finally:
            link.stdin.close()


def slots_of(shard):
    return range(shard * 16384 // 3, (shard + 1) * 16384 // 3)


def start_cluster(machine, links=None):
    """Three primaries without replicas; returns when each says that the cluster is ok. With `links`
    (an ExitStack) clients are told to come over distant links."""
    nodes = []
    for _ in range(3):
        port = free_port()
        while port > 55_000:  # the cluster's own port is 10,000 above
            port = free_port()
        directory = os.path.join(machine.directory, f"node-{port}")
        os.mkdir(directory)
        announced = []
        if links is not None:
            announced = ["--cluster-announce-port", str(links.enter_context(distant(machine, port))),
                         "--cluster-announce-bus-port", str(port + 10_000)]
        nodes.append(machine.start("node", [
            machine.options.upstream_binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "",
            "--appendonly", "no", "--cluster-enabled", "yes", "--dir", directory, *announced], port,
            machine.upstream_core))
    for i, node in enumerate(nodes):
        command(node.port, "CLUSTER", "SET-CONFIG-EPOCH", str(i + 1))
        command(node.port, "CLUSTER", "ADDSLOTSRANGE", str(slots_of(i)[0]), str(slots_of(i)[-1]))
        command(node.port, "CLUSTER", "MEET", "127.0.0.1", str(nodes[0].port),
                str(nodes[0].port + 10_000))
    deadline = time.monotonic() + 20
    while any("cluster_state:ok" not in command(node.port, "CLUSTER", "INFO") or
              "cluster_known_nodes:3" not in command(node.port, "CLUSTER", "INFO")
              for node in nodes):
        if time.monotonic() > deadline:
            raise BenchError("the cluster does not come up")
        time.sleep(0.05)
    return nodes


def tag_of(shard):
    """A hash tag whose slot is one of this shard's."""
    return next(tag for tag in map(str, itertools.count())
                if binascii.crc_hqx(tag.encode(), 0) % 16384 in slots_of(shard))


def measure_shards(machine, nodes, pipeline, value_bytes):
    """Each shard asked directly for keys of its own, on the core of the servers under test
    meanwhile; the mean of their figures."""
    shards = []
    for shard, node in enumerate(nodes):
        os.sched_setaffinity(node.pid, {machine.server_core})
        shards.append(measure(machine, node, None, pipeline, value_bytes, "--key-tag", tag_of(shard)))
        os.sched_setaffinity(node.pid, {machine.upstream_core})
    return {field: statistics.mean(figures[field] for figures in shards) for field in shards[0]}


def run(machine, cells):
    """As in throughput; and [(server name, µs of a GET asked directly, µs of MGET of 100 keys)]"""
    nodes = start_cluster(machine)
    url = f"redis+cluster://127.0.0.1:{nodes[0].port}"
    proxies = [machine.start_pass(nodes[0], "--upstream", url),
               machine.start_hit(nodes[0], "--upstream", url)]
    for proxy in proxies:
        while "slots_covered=16384" not in command(proxy.port, "NEARCACHE", "TOPOLOGY"):
            time.sleep(0.05)
    for value_bytes in {value_bytes for _, value_bytes in cells}:
        shape = shape_of(machine.options, value_bytes)
        machine.fill(proxies[:1], *shape)
        for shard, node in enumerate(nodes):
            machine.fill([node], *shape, "--key-tag", tag_of(shard))
    ways = {SHARDS: lambda *cell: measure_shards(machine, nodes, *cell)}
    for proxy in proxies:
        ways[proxy.name] = lambda *cell, proxy=proxy: measure(machine, proxy, nodes[0], *cell)
    results = {cell: {name: [] for name in ways} for cell in cells}
    rounds = machine.options.rounds
    for round_number in range(rounds):
        for cell in cells:
            progress(f"cluster, round {round_number + 1} of {rounds}: {cell_name(*cell)}")
            for name in turned(list(ways), round_number):
                results[cell][name].append(ways[name](*cell))
    machine.stop_all()
    with contextlib.ExitStack() as links:
        mget = mget_over_links(machine, links)
    return results, mget


def mget_over_links(machine, links):
    """[(server name, µs of one round trip, µs of MGET of 100 keys)]"""
    nodes = start_cluster(machine, links)
    redis = machine.start_redis(REDIS, machine.server_core)
    link_port = links.enter_context(distant(machine, redis.port))
    url = f"redis+cluster://127.0.0.1:{nodes[0].port}"
    subjects = [machine.start_pass(nodes[0], "--upstream", url),
                machine.start_hit(nodes[0], "--upstream", url)]
    for subject in subjects:
        while "slots_covered=16384" not in command(subject.port, "NEARCACHE", "TOPOLOGY"):
            time.sleep(0.05)
    mget = [(subject.name, *mget_us(link_port, subject.port)) for subject in subjects]
    machine.stop_all()
    return mget


def mget_us(direct_port, port):
    """Medians, interleaved: one GET of Redis over a link; MGET of 100 keys of all shards."""
    keys = [b"mget:%d" % i for i in range(100)]

    def encoded(*args):
        return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%s\r\n" % (len(a), a) for a in args)

    with socket.create_connection(("127.0.0.1", direct_port)) as direct, \
            socket.create_connection(("127.0.0.1", port)) as proxy:
        def ask(peer, request, size):
            began = time.perf_counter()
            peer.sendall(request)
            reply = b""
            while len(reply) < size:
                reply += peer.recv(1 << 16)
            if reply[:1] == b"-":
                raise BenchError(f"MGET row: {reply[:80]!r}")
            return (time.perf_counter() - began) * 1e6

        value = b"v" * 64
        ask(direct, encoded(b"SET", keys[0], value), 5)
        for key in keys:
            ask(proxy, encoded(b"SET", key, value), 5)
        one, all_of_them = encoded(b"GET", keys[0]), encoded(b"MGET", *keys)
        rounds = [(ask(direct, one, 71), ask(proxy, all_of_them, 6 + 71 * len(keys)))
                  for _ in range(300)]
    return (statistics.median(direct_us for direct_us, _ in rounds),
            statistics.median(mget_us for _, mget_us in rounds))


def print_results(results, mget):
    print("In front of a cluster of three primaries: CPU µs per request, against each shard asked "
          "directly")
    for (pipeline, size), by_name in results.items():
        print(f"{cell_name(pipeline, size):<12} {SHARDS:<22} "
              f"{median_of(by_name[SHARDS], 'cpu_us'):>8.3f}")
        for name in (PASS, HIT):
            share = f"  {median_of(by_name[name], 'hits') * 100:.1f} % hits" if name == HIT else ""
            print(f"{'':<12} {name:<22} {median_of(by_name[name], 'cpu_us'):>8.3f}  "
                  f"{statistics.median(ratios(by_name[name], by_name[SHARDS], 'cpu_us')):.2f} × shard"
                  f"{share}")
    for name, direct_us, mget_us in mget:
        trips = mget_us / direct_us
        said = "ok" if trips <= MGET_ROUND_TRIPS_MAX else "MISSED"
        print(f"{'MGET 100':<12} {name:<22} {said}: {trips:.2f} round trips ({mget_us / 1e3:.2f} ms; links "
              f"take {LINK_DELAY_MS} ms each way, a GET {direct_us / 1e3:.2f} ms), "
              f"target ≤ {MGET_ROUND_TRIPS_MAX}")
    print()
