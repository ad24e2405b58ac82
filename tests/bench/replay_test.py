#!/usr/bin/env python3
"""That nearcached-replay counts as simulators of caches do, and refuses what is not a trace."""
import collections
import os
import random
import re
import struct
import subprocess
import tempfile
import unittest

REPLAY = os.environ["NEARCACHED_REPLAY"]
LINE = re.compile(r"requests=(\d+) misses=(\d+) miss_ratio=([\d.]+) bytes_miss_ratio=([\d.]+)\n")


def trace(requests, objects, seed):
    """Skewed, with sizes that follow from the id."""
    chosen = random.Random(seed)
    ids = [int(objects ** chosen.random()) for _ in range(requests)]
    return [(i, 16 + i * 7919 % 3000) for i in ids]


def lru(records, limit, cost):
    cache, used, missed, missed_bytes = collections.OrderedDict(), 0, 0, 0
    for key, size in records:
        if key in cache:
            cache.move_to_end(key)
            continue
        missed += 1
        missed_bytes += size
        if cost(size) > limit:
            continue
        while used + cost(size) > limit:
            used -= cost(cache.popitem(last=False)[1])
        cache[key] = size
        used += cost(size)
    return missed, missed_bytes


class Replay(unittest.TestCase):
    def run_replay(self, records, *options, tail=b""):
        data = b"".join(struct.pack("<QI", *record) for record in records) + tail
        return subprocess.run([REPLAY, *map(str, options), "-"], input=data, capture_output=True, timeout=120)

    def counts(self, records, *options):
        done = self.run_replay(records, *options)
        self.assertEqual(done.returncode, 0, done.stderr)
        requests, missed, ratio, bytes_ratio = LINE.fullmatch(done.stdout.decode()).groups()
        return int(requests), int(missed), float(ratio), float(bytes_ratio)

    def test_lru_misses_exactly_as_a_plain_lru_does(self):
        records = trace(40_000, 3_000, 1)
        for limit in (10, 300, 2_500):
            requests, missed, ratio, _ = self.counts(records, "--policy", "lru", "--objects", limit)
            self.assertEqual(requests, len(records))
            self.assertEqual(missed, lru(records, limit, lambda size: 1)[0])
            self.assertAlmostEqual(ratio, missed / requests, places=6)
        # The least limit is below the largest value, which then is never held.
        for limit in (2_000, 100_000, 1_500_000):
            _, missed, _, bytes_ratio = self.counts(records, "--policy", "lru", "--bytes", limit)
            expected, expected_bytes = lru(records, limit, lambda size: size)
            self.assertEqual(missed, expected)
            self.assertAlmostEqual(bytes_ratio, expected_bytes / sum(size for _, size in records), places=6)

    def test_a_budget_of_memory_holds_less_than_one_of_values(self):
        records = trace(40_000, 3_000, 2)
        for policy in ("auto", "lru", "lfu", "random", "s3fifo", "gdsf"):
            free = self.counts(records, "--policy", policy, "--bytes", 400_000)[1]
            charged = self.counts(records, "--policy", policy, "--bytes", 400_000, "--charge-overhead")[1]
            self.assertLess(free, charged)
            self.assertLess(charged, 1.35 * free)

    def test_a_file_reads_as_the_stream_does(self):
        records = trace(10_000, 1_000, 3)
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"".join(struct.pack("<QI", *record) for record in records))
            file.flush()
            done = subprocess.run([REPLAY, "--objects", "100", file.name], capture_output=True, timeout=120)
        self.assertEqual(done.stdout, self.run_replay(records, "--objects", 100).stdout)

    def test_what_is_not_a_trace_is_refused(self):
        records = trace(100, 100, 4)
        self.assertNotEqual(self.run_replay(records, "--objects", 5, tail=b"x").returncode, 0)
        self.assertNotEqual(self.run_replay(records).returncode, 0)
        self.assertNotEqual(self.run_replay(records, "--objects", 5, "--bytes", 5).returncode, 0)
        self.assertNotEqual(self.run_replay(records, "--objects", 5, "--policy", "best").returncode, 0)
        self.assertNotEqual(self.run_replay(records, "--objects", 5, "--charge-overhead").returncode, 0)


if __name__ == "__main__":
    unittest.main()
