"""What a proxy's cache takes of memory: resident bytes against its budget and its own counter."""
import random
import socket
import statistics
import time

from .report import Target, print_line, progress
from .servers import BenchError, command, info

MIB = 1 << 20
ITEMS = 1_000_000
FIRST_ITEMS = 10_000  # in the cache before growth is measured: buffers and pools are there then
KEY_BYTES, VALUE_BYTES = 16, 64
SETTLE_SECONDS = 2  # what the allocator gives back, it gives back within one

CHURN_BUDGET_MIB = 64
CHURN_KEYS = 40_000
CHURN_BYTES = (16, 65536)  # of a value: as many of 16 to 32 bytes as of 32 to 64 KiB
CHURN_READS, CHURN_WRITES = 80, 20  # of a turn, each in a pipeline of its own
MARK = "the end of a turn"  # no other value holds it
MARK_REQUEST = b"*2\r\n$3\r\nGET\r\n$10\r\nchurn:mark\r\n"
MARK_REPLY = b"$%d\r\n%s\r\n" % (len(MARK), MARK.encode())
# An hour of the workloads below in three minutes: they are run as fast as it goes.
CHURN_FASTER = 20
# TTL in seconds, and how many of a hundred clusters have it: the common TTLs of 53 of Twitter's
# cache clusters in March 2020 (Yang, Yue and Rashmi, OSDI 2020), each cluster counted as one.
TTLS = ((9, 0.5), (25, 3.7), (60, 11.8), (120, 1.9), (284, 6.7), (670, 5.5), (1352, 2.5),
        (3611, 5.1), (8834, 10.8), (28393, 8.2), (41393, 8.2), (87802, 10.1), (359855, 13.2),
        (2367333, 11.9))


def items(machine, row):
    """Growth by a million items that have a TTL; each is read once."""
    upstream = machine.start_redis("upstream redis", machine.upstream_core)
    shape = ["--keys", ITEMS, "--value-bytes", VALUE_BYTES]
    machine.fill([upstream], *shape)
    expire = "for i = 0, ARGV[1] - 1 do redis.call('EXPIRE', string.format('key:%012d', i), 86400) end"
    command(upstream.port, "EVAL", expire + " return 'OK'", "0", str(ITEMS))
    proxy = machine.start_hit(upstream, "--set", "l1.ttl=24h", "--set", "l1.scan_resistance=false")

    def state():
        time.sleep(SETTLE_SECONDS)
        section = info(proxy.port, "nearcached")
        return proxy.rss_bytes(), int(section["l1_used_bytes"]), int(section["l1_items"])

    machine.warm(proxy, "--keys", FIRST_ITEMS, *shape[2:], passes=1)
    before = state()
    machine.warm(proxy, *shape, passes=1)
    resident, used, count = (after - early for after, early in zip(state(), before))
    machine.stop_all()
    if count < 0.99 * (ITEMS - FIRST_ITEMS):
        machine.failures[row] = f"only {count} more items of {ITEMS - FIRST_ITEMS}"
    payload = KEY_BYTES + VALUE_BYTES
    print_line(row, f"{ITEMS:,} items of 16 + 64 B, resident beyond them",
               [resident / count - payload], Target(30, "B an item"))
    print_line(row, "resident against l1_used_bytes", [abs(resident / used - 1) * 100],
               Target(3, "% apart"), f"{resident / used:.3f} ×, counted {used / count - payload:.1f} B")


def churned_key(random_source):
    key = b"churn:%d" % int(CHURN_KEYS * random_source.random() ** 2)
    return b"$%d\r\n%s\r\n" % (len(key), key)


def reads(random_source):
    return b"".join(b"*2\r\n$3\r\nGET\r\n" + churned_key(random_source) for _ in range(CHURN_READS))


def writes(random_source):
    out = []
    low, high = CHURN_BYTES
    for _ in range(CHURN_WRITES):
        value = bytes(int(low * (high / low) ** random_source.random()))
        seconds = random_source.choices(*zip(*TTLS))[0]
        ttl_ms = b"%d" % (seconds * 1000 * random_source.uniform(0.9, 1.1) / CHURN_FASTER)
        out.append(b"*5\r\n$3\r\nSET\r\n%s$%d\r\n%s\r\n$2\r\nPX\r\n$%d\r\n%s\r\n"
                   % (churned_key(random_source), len(value), value, len(ttl_ms), ttl_ms))
    return b"".join(out)


def send_and_drain(peer, requests):
    """Replies end with that to a read, not ECHO: behind that no hit would wait for a miss."""
    peer.sendall(requests + MARK_REQUEST)
    tail = b""
    while not tail.endswith(MARK_REPLY):
        piece = peer.recv(1 << 20)
        if not piece:
            raise BenchError("churn: the proxy closed the connection")
        tail = (tail + piece)[-len(MARK_REPLY):]


def churn(machine, row):
    """Writes and reads of all sizes and lifetimes, of several times what fits."""
    upstream = machine.start_redis("upstream redis", machine.upstream_core)
    proxy = machine.start_nearcached("nearcached", upstream, "--l1-memory",
                                     f"{CHURN_BUDGET_MIB}MiB", "--set", "l1.ttl=720h")
    command(upstream.port, "SET", "churn:mark", MARK)
    random_source = random.Random(1)
    resident = []
    end = time.monotonic() + machine.options.churn_seconds
    turns, sampled = 0, 0.0
    address = ("127.0.0.1", proxy.port)
    with socket.create_connection(address, timeout=60) as reader, \
            socket.create_connection(address, timeout=60) as writer:
        while time.monotonic() < end:
            send_and_drain(writer, writes(random_source))
            send_and_drain(reader, reads(random_source))
            turns += 1
            if time.monotonic() > sampled + 0.5:
                sampled = time.monotonic()
                resident.append(proxy.rss_bytes() / MIB)
                progress(f"{row}: {resident[-1]:.0f} MiB, {end - sampled:.0f} s left")
    section = info(proxy.port, "nearcached")
    machine.stop_all()
    if int(section["l1_evictions"]) == 0 or int(section["l1_expired"]) == 0:
        machine.failures[row] = "nothing was evicted, or nothing expired: this is no churn"
    third = len(resident) // 3
    thirds = [statistics.median(resident[i * third:(i + 1) * third]) for i in range(3)]
    print_line(row, f"most resident, budget {CHURN_BUDGET_MIB} MiB", [max(resident)],
               Target(CHURN_BUDGET_MIB * 1.1 + 24, "MiB"),
               f"{turns * (CHURN_READS + CHURN_WRITES):,} requests, {100 * float(section['l1_hit_ratio']):.0f} % hits, "
               f"{section['l1_evictions']} evicted, {section['l1_expired']} expired")
    print_line(row, "last third against the second", [thirds[2] / thirds[1]], Target(1.02, "×"),
               f"{thirds[0]:.1f}, {thirds[1]:.1f}, {thirds[2]:.1f} MiB")
