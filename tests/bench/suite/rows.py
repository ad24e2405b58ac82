"""The rows that are not GET at a pipeline. Each runs its servers in turns and prints its lines."""
import contextlib
import json
import resource
import statistics
import subprocess
import time

from . import memory
from .report import Target, median_of, print_line, progress, ratios, turned
from .servers import HIT, REDIS, BenchError, command, counters, hit_share, info

SMALL = ["--value-bytes", 64]
KEYS_PER_MGET = 100
COLD_PERCENT = 10
COLD_KEYS_PER_SECOND = 600_000  # more than any server asks for: 10 % of 6M requests per second
MANY, FEW = 1000, 50
SCAN_VALUE_BYTES = 16
SCAN_PIPELINE = 16
CHURNED_SHARE = 0.1
WRITES_PER_SECOND = 500  # through the proxy, and as many around it
MISSES_PER_ROUND = 2000
THREAD_CONNECTIONS = 4
IDLE_TARGET_MB = 15.0


def rounds_of(machine, row):
    for number in range(machine.options.rounds):
        progress(f"{row}, round {number + 1} of {machine.options.rounds}")
        yield number


def hit_run(machine, row, server, *args, least=0.99, most=1.0, **more):
    """A measured run of hits, which must be hits; `server` may be several."""
    servers = server if isinstance(server, tuple) else (server,)
    before = counters(*servers)
    figures = machine.run_load(server, *args, "--seconds", machine.options.seconds, **more)
    figures["hits"] = hit_share(machine, row, before, counters(*servers), figures["requests"], least, most)
    return figures


def percent(rounds, field="hits"):
    return f"{100 * median_of(rounds, field):.1f} % hits"


def mget(machine, row):
    redis, upstream = machine.start_direct_and_upstream()
    proxy = machine.start_hit(upstream)
    shape = ["--keys", machine.options.keys, *SMALL]
    machine.fill((redis, upstream), *shape)
    machine.warm(proxy, *shape)
    shape += ["--command", "mget", "--keys-per-request", KEYS_PER_MGET]
    direct, hits = [], []
    for number in rounds_of(machine, row):
        for subject in turned([redis, proxy], number):
            if subject is redis:
                direct.append(machine.run_load(redis, *shape, "--seconds", machine.options.seconds))
            else:
                hits.append(hit_run(machine, row, proxy, *shape))
    machine.stop_all()
    print_line(row, f"MGET of {KEYS_PER_MGET} keys, keys/s", ratios(hits, direct, "rate"),
               Target(2.0, "× redis", True),
               f"{median_of(hits, 'rate'):,.0f} keys/s, {100 * median_of(hits, 'busy'):.0f} % busy, "
               f"CPU {statistics.median(ratios(hits, direct, 'cpu_us')):.2f} × redis, {percent(hits)}")


def mixed(machine, row, pipeline):
    """A proxy of its own for each round, so that the keys asked for once were never asked before."""
    hot = machine.options.keys
    keys = hot + max(100_000, int(machine.options.seconds * COLD_KEYS_PER_SECOND))
    upstream = machine.start_redis("upstream redis", machine.upstream_core)
    machine.fill([upstream], "--keys", keys, *SMALL)
    all_hits, some = [], []
    for _ in rounds_of(machine, row):
        proxy = machine.start_hit(upstream)
        machine.warm(proxy, "--keys", hot, *SMALL)
        all_hits.append(hit_run(machine, row, proxy, "--keys", hot, *SMALL, "--pipeline", pipeline))
        some.append(hit_run(machine, row, proxy, "--keys", keys, *SMALL, "--pipeline", pipeline,
                            "--hot-keys", hot, "--cold-percent", COLD_PERCENT,
                            least=0.88, most=0.92))
        machine.stop(proxy)
    machine.stop_all()
    print_line(row, f"{100 - COLD_PERCENT} % hot, {COLD_PERCENT} % never asked before, rate",
               ratios(some, all_hits, "rate"), Target(0.60, "× all hits", True),
               f"{median_of(some, 'rate'):,.0f}/s, {percent(some)}, "
               f"CPU {statistics.median(ratios(some, all_hits, 'cpu_us')):.2f} × all hits")


def per_byte(machine, row, value_bytes):
    """GET over RESP3, and HGETALL over both, against GET over RESP2: CPU per byte of reply."""
    upstream = machine.start_redis("upstream redis", machine.upstream_core)
    proxy = machine.start_hit(upstream)
    shape = ["--keys", machine.options.keys, "--value-bytes", value_bytes]
    ways = {"GET": [], "GET, RESP3": ["--resp3"], "HGETALL": ["--command", "hgetall"],
            "HGETALL, RESP3": ["--command", "hgetall", "--resp3"]}
    for name in ("GET", "HGETALL"):
        machine.fill([upstream], *shape, *ways[name])
    for way in ways.values():
        machine.warm(proxy, *shape, *way)
    figures = {name: [] for name in ways}
    for number in rounds_of(machine, row):
        for name in turned(list(ways), number):
            figures[name].append(hit_run(machine, row, proxy, *shape, *ways[name],
                                         "--pipeline", 16))
    machine.stop_all()
    for name in list(ways)[1:]:
        print_line(row, f"{name}, p16, CPU per byte",
                   ratios(figures[name], figures["GET"], "cpu_ns_per_byte"),
                   Target(1.10, "× GET"),
                   f"{median_of(figures[name], 'cpu_us'):.2f} µs, {percent(figures[name])}")


def active(machine, row):
    """More connections than the caches hold sockets of: every server pays, the bare one too."""
    redis, upstream = machine.start_direct_and_upstream()
    proxy = machine.start_hit(upstream)
    subjects = [redis, machine.start_floor(SMALL[1]), proxy]
    shape = ["--keys", machine.options.keys, *SMALL]
    machine.fill((redis, upstream), *shape)
    machine.warm(proxy, *shape)
    args = [*shape, "--seconds", machine.options.seconds]
    figures = {(subject, count): [] for subject in subjects for count in (MANY, FEW)}
    for number in rounds_of(machine, row):
        for subject, count in turned(list(figures), number):
            figures[subject, count].append(
                hit_run(machine, row, proxy, *shape, "--connections", count) if subject is proxy
                else machine.run_load(subject, *args, "--connections", count))
    machine.stop_all()
    for subject in subjects:
        many, few = figures[subject, MANY], figures[subject, FEW]
        hits = f", {percent(many)}" if subject is proxy else ""
        print_line(row, f"{MANY} connections at pipeline 1, rate, {subject.name}", ratios(many, few, "rate"),
                   Target(0.90, f"× {FEW} connections", True) if subject is proxy else None,
                   f"{median_of(many, 'rate'):,.0f}/s, CPU "
                   f"{statistics.median(ratios(many, few, 'cpu_us')):.2f} ×{hits}")


def scan(machine, row):
    """Each key read once by a new proxy: what it costs Redis, with L1 on and off."""
    keys = machine.options.scan_keys
    upstream = machine.start_redis("upstream redis", machine.upstream_core)
    shape = ["--keys", keys, "--value-bytes", SCAN_VALUE_BYTES]
    figures, tracked = {"on": [], "off": []}, []
    for number in rounds_of(machine, row):
        # Redis keeps what it has tracked for clients that have gone, until all its data goes.
        command(upstream.port, "FLUSHALL")
        machine.fill([upstream], *shape)
        for l1 in turned(["on", "off"], number):
            start = machine.start_hit if l1 == "on" else machine.start_pass
            proxy = start(upstream)
            figures[l1].append(machine.run_load(proxy, *shape, "--passes", 1, "--pipeline",
                                                SCAN_PIPELINE, upstream=upstream))
            if l1 == "on":
                hits, _ = counters(proxy)
                if hits > 0.01 * keys:
                    machine.failures[row] = f"{hits} hits in {keys} reads of distinct keys"
                tracked.append(100 * int(info(upstream.port, "stats")["tracking_total_keys"]) / keys)
            machine.stop(proxy)
    machine.stop_all()
    print_line(row, f"{keys:,} keys read once, Redis's CPU",
               ratios(figures["on"], figures["off"], "upstream_cpu_us"), Target(1.15, "× L1 off"),
               f"{median_of(figures['on'], 'upstream_cpu_us'):.2f} µs per request, proxy's CPU "
               f"{statistics.median(ratios(figures['on'], figures['off'], 'cpu_us')):.2f} × L1 off")
    print_line(row, "keys in Redis's tracking table", tracked, Target(5.0, "% of the keys"))


@contextlib.contextmanager
def writers(machine, servers, seconds, churned):
    """Clients that write the first `churned` keys meanwhile; the list gets how often each did."""
    args = ["run", "--command", "set", "--keys", churned, *SMALL, "--connections", 1,
            "--rate", WRITES_PER_SECOND, "--seconds", seconds]
    running = [machine.start_loadgen(*args, "--port", server.port, core=machine.upstream_core)
               for server in servers]
    written = []
    yield written
    for process in running:
        written.append(json.loads(machine.finish_loadgen(process, *args))["requests"])


def latency(machine, row):
    redis, upstream = machine.start_direct_and_upstream()
    proxy = machine.start_hit(upstream)
    churned = int(machine.options.keys * CHURNED_SHARE)
    seconds = max(1.0, machine.options.seconds)
    shape = ["--keys", machine.options.keys, *SMALL]
    machine.fill((redis, upstream), *shape)
    hits, direct = [], []
    for _ in rounds_of(machine, row):
        machine.warm(proxy, *shape)
        peak = hit_run(machine, row, proxy, *shape)["rate"]
        paced = [*shape, "--rate", int(peak / 2), "--churned-keys", churned, "--seconds", seconds]
        before = counters(proxy)
        with writers(machine, (proxy, upstream), seconds, churned) as written:
            figures = machine.run_load(proxy, *paced)
        misses = counters(proxy)[1] - before[1]
        # The latencies shown are of keys that nobody writes. Each write makes one miss at most.
        steady = figures["requests"] - figures["churned"]
        if misses - sum(written) > 0.01 * steady:
            machine.failures[row] = (f"{misses} misses after {sum(written)} writes in {steady} reads "
                                     f"of other keys; at least 99 % must be hits")
        hits.append({**figures, "writes": sum(written), "misses": misses})
        with writers(machine, (redis, redis), seconds, churned):
            direct.append(machine.run_load(redis, *paced))
    machine.stop_all()
    note = (f"{median_of(hits, 'rate'):,.0f}/s, {median_of(hits, 'writes'):,.0f} writes, "
            f"{median_of(hits, 'misses'):,.0f} misses, the load waited for its core "
            f"{100 * median_of(hits, 'load_waited'):.0f} % of the time")
    for name, field, limit_ms in (("p99", "p99_us", 1), ("p99.9", "p999_us", 3)):
        print_line(row, f"hits at half the peak rate, {name}", [f[field] / 1e3 for f in hits],
                   Target(limit_ms, "ms"),
                   f"redis at the same rate {median_of(direct, field) / 1e3:.2f}; {note}")


def miss(machine, row):
    """One client, keys never asked before: what a miss takes more than asking Redis directly."""
    redis, upstream = machine.start_direct_and_upstream()
    proxy = machine.start_hit(upstream)
    subjects = [redis, proxy]
    if machine.options.twemproxy_binary:
        subjects.append(machine.start_twemproxy(upstream))
    machine.fill((redis, upstream), "--keys", MISSES_PER_ROUND * machine.options.rounds, *SMALL)
    figures = []
    for number in rounds_of(machine, row):
        args = ["--first-key", number * MISSES_PER_ROUND, "--keys", MISSES_PER_ROUND, *SMALL,
                "--connections", 1, "--passes", 1]
        figures.append({subject.name: machine.run_load(subject, *args)["p50_us"]
                        for subject in turned(subjects, number)})
    hits, _ = counters(proxy)
    machine.stop_all()
    if hits > 0.01 * MISSES_PER_ROUND * machine.options.rounds:
        machine.failures[row] = f"{hits} hits in reads of distinct keys"
    for name in [subject.name for subject in subjects[1:]]:
        print_line(row, f"a miss, p50, {name}, added to redis direct",
                   [p50[name] - p50[REDIS] for p50 in figures],
                   Target(50, "µs") if name == HIT else None,
                   f"redis direct {median_of(figures, REDIS):.0f} µs")


def threads(machine, row, pipeline):
    """Two workers against two processes of one worker each, which share nothing by construction."""
    cores = machine.worker_cores
    upstream = machine.start_redis("upstream redis", machine.upstream_core)
    two_workers = machine.start_hit(upstream, "--threads", "2", cores=cores)
    pair = (machine.start_hit(upstream, cores=cores), machine.start_hit(upstream, cores=cores))
    one = machine.start_hit(upstream)
    shape = ["--keys", machine.options.keys, *SMALL, "--connections", THREAD_CONNECTIONS]
    machine.fill([upstream], "--keys", machine.options.keys, *SMALL)
    for server in (two_workers, *pair, one):
        machine.warm(server, "--keys", machine.options.keys, *SMALL, passes=20)  # every worker, every key
    figures = {two_workers: [], pair: [], one: []}
    for number in rounds_of(machine, row):
        for server in turned(list(figures), number):
            figures[server].append(hit_run(machine, row, server, *shape, "--pipeline", pipeline))
    machine.stop_all()
    two, apart, single = figures.values()
    print_line(row, "two workers, CPU per request", ratios(two, apart, "cpu_us"),
               Target(1.05, "× two processes"),
               f"{median_of(two, 'cpu_us'):.3f} µs, one worker {median_of(single, 'cpu_us'):.3f}")
    alone = len({machine.load_core, machine.upstream_core} | cores) >= 4
    print_line(row, "two workers, rate against one", ratios(two, single, "rate"),
               Target(1.8, "× one", True) if alone else None,
               "" if alone else "no target: a worker shares its core with the load")


def idle(machine, row):
    """Resident memory with connections each of which has served one GET."""
    connections = min(10_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 200)
    redis, upstream = machine.start_direct_and_upstream()
    subjects = [redis, machine.start_nearcached("nearcached", upstream)]
    if machine.options.twemproxy_binary:
        subjects.insert(1, machine.start_twemproxy(upstream))
    machine.fill((redis, upstream), "--keys", 100)
    for subject in subjects:
        progress(f"{connections} idle connections: {subject.name}")
        before = subject.rss_bytes()
        argv = [machine.program("nearcached-loadgen"), "idle", "--port", str(subject.port),
                "--keys", "100", "--connections", str(connections)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True) as holder:
            ready = holder.stdout.readline().strip() == "ready"
            time.sleep(0.5)  # what a server frees when it finds time for it
            after = subject.rss_bytes()
            holder.stdin.close()
        if not ready or holder.returncode != 0:
            raise BenchError(f"{subject.name} does not hold {connections} connections")
        print_line(row, f"{connections} connections, MB, {subject.name}", [after / 1e6],
                   Target(IDLE_TARGET_MB, "MB") if subject.name == "nearcached" else None,
                   f"{before / 1e6:.1f} MB without, {(after - before) / connections:.0f} bytes each")
    machine.stop_all()


# Name as --rows sees it, and how it is run.
ROWS = {
    "mget": mget,
    "mixed p16": lambda machine, row: mixed(machine, row, 16),
    "mixed p64": lambda machine, row: mixed(machine, row, 64),
    "per-byte 64 B": lambda machine, row: per_byte(machine, row, 64),
    "per-byte 4 KiB": lambda machine, row: per_byte(machine, row, 4096),
    "active 1000": active,
    "scan": scan,
    "latency": latency,
    "miss": miss,
    "threads p16": lambda machine, row: threads(machine, row, 16),
    "idle": idle,
    "memory items": memory.items,
    "memory churn": memory.churn,
}
