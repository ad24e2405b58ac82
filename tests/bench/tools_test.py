#!/usr/bin/env python3
"""That the tools which make claims about nearcached notice when a claim is not true.

A benchmark that counts errors as replies, or a demonstration that cannot fail, is worse than none.
"""
import json
import os
import signal
import socket
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NEARCACHED = os.environ["NEARCACHED_BINARY"]
LOADGEN = os.environ["NEARCACHED_LOADGEN"]
FLOOR = os.environ["NEARCACHED_FLOOR"]
QUICKSTART = os.path.join(ROOT, "tools", "quickstart")
INSTRUCTIONS = os.path.join(ROOT, "tests", "bench", "instructions.py")

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(ROOT, "tests", "bench"))
import instructions  # noqa: E402: it is found by the line above
from suite.report import Target, verdict  # noqa: E402


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run(*argv, **options):
    return subprocess.run([str(arg) for arg in argv], capture_output=True, text=True, timeout=300,
                          stdin=subprocess.DEVNULL, **options)


class Directory(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="nearcached-tools-test-")
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    def script(self, name, text):
        path = os.path.join(self.directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as out:
            out.write("#!/bin/sh\n" + text)
        os.chmod(path, 0o755)
        return path


class LoadGenerator(Directory):
    def setUp(self):
        super().setUp()
        self.port = free_port()
        self.redis = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
             "--dir", self.directory], stdout=subprocess.DEVNULL)
        self.addCleanup(self.redis.wait)
        self.addCleanup(self.redis.terminate)
        while self.redis_cli("PING").stdout != "PONG\n":
            time.sleep(0.02)
        self.shape = ["--port", self.port, "--keys", 100, "--value-bytes", 64]
        self.assertEqual(run(LOADGEN, "fill", *self.shape).returncode, 0)

    def redis_cli(self, *args):
        return run("redis-cli", "-p", self.port, *args)

    def get(self, *args):
        return run(LOADGEN, "run", *self.shape, "--connections", 3, "--pipeline", 7, "--seconds",
                   0.2, *args)

    def test_all_keys_with_a_tag_are_in_its_slot(self):
        self.redis_cli("FLUSHALL")
        for kind in ("get", "hgetall"):
            shape = [*self.shape, "--key-tag", "tag", "--command", kind]
            self.assertEqual(run(LOADGEN, "fill", *shape).returncode, 0)
            self.assertEqual(run(LOADGEN, "run", *shape, "--passes", 1).returncode, 0)
        keys = self.redis_cli("KEYS", "*").stdout.split()
        self.assertEqual(len(keys), 200)
        self.assertTrue(all(key.startswith("{tag}") for key in keys), keys[:3])

    def test_right_replies_are_counted_as_the_server_counts_them(self):
        self.redis_cli("CONFIG", "RESETSTAT")
        done = self.get("--pid", self.redis.pid)
        self.assertEqual(done.returncode, 0, done.stderr)
        result = json.loads(done.stdout)
        stats = self.redis_cli("INFO", "commandstats").stdout
        self.assertIn(f"cmdstat_get:calls={result['requests']},", stats)
        self.assertGreater(result["processes"][0]["running_ns"], 0)

    def test_one_value_that_belongs_to_another_key_ends_the_run(self):
        self.redis_cli("COPY", "key:000000000007", "key:000000000042", "REPLACE")
        done = self.get()
        self.assertEqual(done.returncode, 1)
        self.assertIn("wrong reply to GET of key 42", done.stderr)

    def test_a_missing_key_ends_the_run(self):
        self.redis_cli("DEL", "key:000000000042")
        self.assertIn("wrong reply to GET of key 42", self.get().stderr)

    def test_an_error_reply_ends_the_run(self):
        self.redis_cli("CONFIG", "SET", "requirepass", "secret")
        done = self.get()
        self.assertEqual(done.returncode, 1)
        self.assertIn("NOAUTH", done.stderr)


    def load(self, *args, fill=True, value_bytes=64):
        shape = ["--port", self.port, "--value-bytes", value_bytes, *args]
        if fill:
            self.assertEqual(run(LOADGEN, "fill", *shape).returncode, 0)
        done = run(LOADGEN, "run", *shape, "--connections", 3)
        return json.loads(done.stdout) if done.returncode == 0 else done.stderr

    def calls(self, name):
        for line in self.redis_cli("INFO", "commandstats").stdout.splitlines():
            if line.startswith(f"cmdstat_{name}:calls="):
                return int(line.split("=")[1].split(",")[0])
        return 0

    def test_the_keys_of_an_mget_are_counted_and_one_wrong_value_among_them_is_seen(self):
        args = ["--command", "mget", "--keys-per-request", 20, "--keys", 100]
        result = self.load(*args, "--passes", 3)
        self.assertEqual((result["requests"], self.calls("mget")), (300, 15))
        self.redis_cli("COPY", "key:000000000007", "key:000000000042", "REPLACE")
        self.assertIn("wrong reply to MGET of key 42", self.load(*args, "--passes", 1, fill=False))

    def test_a_reply_to_HGETALL_is_as_long_as_one_to_GET_and_verified_in_both_protocols(self):
        for size in (64, 4096):
            self.redis_cli("FLUSHALL")
            args = ["--keys", 50, "--passes", 2]
            gets = self.load(*args, value_bytes=size)
            args += ["--command", "hgetall"]
            for protocol in ([], ["--resp3"]):
                hashes = self.load(*args, *protocol, value_bytes=size)
                self.assertEqual(hashes["requests"], 100)
                self.assertLess(abs(hashes["bytes"] - gets["bytes"]), 2 * 100)
            self.redis_cli("HSET", "map:000000000042", "f00", "x")
            for protocol in ([], ["--resp3"]):
                self.assertIn("wrong reply to HGETALL of key 42",
                              self.load(*args, *protocol, fill=False, value_bytes=size))

    def test_a_key_of_the_cold_share_is_asked_for_once(self):
        args = ["--keys", 1_000_000, "--hot-keys", 100, "--cold-percent", 10, "--seconds", 0.1]
        # Only the hot keys exist: the first of the others is a wrong reply.
        self.assertIn("wrong reply to GET of key 100 ", self.load(*args, fill=False))
        scarce = ["--keys", 110, "--hot-keys", 100, "--cold-percent", 10, "--seconds", 0.5]
        self.assertIn("every key has been asked for", self.load(*scarce))

    def test_an_open_loop_asks_at_its_rate_and_keeps_the_churned_keys_apart(self):
        result = self.load("--keys", 100, "--rate", 500, "--seconds", 1, "--churned-keys", 50)
        self.assertEqual(result["requests"], 500)
        self.assertGreater(result["churned"], 100)
        self.assertLess(result["churned"], 400)

    def test_the_floor_gives_the_replies_that_redis_gives(self):
        port = free_port()
        floor = subprocess.Popen([FLOOR, "--port", str(port), "--value-bytes", "64"])
        self.addCleanup(floor.wait)
        self.addCleanup(floor.terminate)
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.02)
        for pipeline in (1, 64, 4096):  # the last comes in several reads
            done = run(LOADGEN, "run", "--port", port, "--keys", 100, "--value-bytes", 64,
                       "--connections", 3, "--pipeline", pipeline, "--passes", 200)
            self.assertEqual(json.loads(done.stdout)["requests"], 20_000, done.stderr)


class Report(unittest.TestCase):
    def test_a_target_is_met_or_missed_by_the_median(self):
        self.assertTrue(verdict([0.5, 0.7, 3.0], Target(0.7, "× redis")).startswith("ok: 0.70 "))
        self.assertTrue(verdict([0.5, 0.71, 0.9], Target(0.7, "× redis")).startswith("MISSED"))
        self.assertTrue(verdict([1.9, 2.0, 2.1], Target(2.0, "×", True)).startswith("ok"))
        self.assertTrue(verdict([1.99], Target(2.0, "×", True)).startswith("MISSED"))


class Instructions(Directory):
    def test_more_than_five_percent_either_way_is_not_accepted(self):
        for measured, accepted in ((1000, True), (1049, True), (951, True), (1060, False),
                                   (940, False)):
            self.assertEqual(instructions.compare("hit", measured, 1000)[1], accepted, measured)

    @unittest.skipUnless(shutil.which("valgrind"), "needs valgrind")
    def test_figures_of_another_compiler_are_not_compared(self):
        path = os.path.join(self.directory, "instructions.json")
        with open(path, "w") as out:
            json.dump({"environment": {"compiler": "none"},
                       "instructions_per_request": {"hit": 1, "pass": 1}}, out)
        done = run(INSTRUCTIONS, "--build", os.environ["NEARCACHED_BUILD"], "--committed", path)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("SKIPPED", done.stdout)


class Bench(Directory):
    def setUp(self):
        super().setUp()
        self.script("build/src/nearcached", f'exec "{NEARCACHED}" "$@" --set l1.enabled=false\n')
        for part in ("meson-info", "meson-logs"):
            os.symlink(os.path.join(os.environ["NEARCACHED_BUILD"], part),
                       os.path.join(self.directory, "build", part))
        os.makedirs(os.path.join(self.directory, "build/tests/bench"))
        for program in (LOADGEN, FLOOR):
            os.symlink(program, os.path.join(self.directory, "build/tests/bench",
                                             os.path.basename(program)))

    def bench_without_cache(self, row):
        return run(os.path.join(ROOT, "tools", "bench"), "--build",
                   os.path.join(self.directory, "build"), "--no-twemproxy", "--rows", row,
                   "--rounds", 1, "--seconds", 0.1, "--keys", 100)

    def test_a_row_of_hits_that_hits_nothing_fails(self):
        for row in ("hit p1 64", "mget", "active"):
            done = self.bench_without_cache(row)
            self.assertEqual(done.returncode, 1)
            self.assertIn("at least 99 % must be hits", done.stderr)

    def test_a_mixed_row_whose_share_of_hits_is_another_fails(self):
        done = self.bench_without_cache("mixed p16")
        self.assertEqual(done.returncode, 1)
        self.assertIn("88 to 92 % must be hits", done.stderr)


class Quickstart(Directory):
    def quickstart(self, *args, binary=NEARCACHED):
        return run(QUICKSTART, "--binary", binary, *args,
                   env={**os.environ, "TMPDIR": self.directory})

    def left_over(self):
        return [name for name in os.listdir(self.directory) if name.startswith("nearcached-quick")]

    def test_the_demonstration_observes_miss_hit_and_invalidation(self):
        done = self.quickstart("--demo", "--listen", f"127.0.0.1:{free_port()}")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(done.stderr, "")  # where the shell says that something crashed
        self.assertEqual(self.left_over(), [])

    def test_the_demonstration_fails_and_says_so_when_nothing_is_cached(self):
        without = self.script("nearcached", f'exec "{NEARCACHED}" "$@" --set l1.enabled=false\n')
        done = self.quickstart("--demo", "--listen", f"127.0.0.1:{free_port()}", binary=without)
        self.assertEqual(done.returncode, 1)
        self.assertIn("not observed: hit", done.stderr)

    def test_a_busy_port_is_named(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = "127.0.0.1:%d" % taken.getsockname()[1]
            done = self.quickstart("--demo", "--listen", address)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"{address} is in use by another program", done.stderr)

    def test_SIGTERM_ends_what_it_started_and_removes_its_directory(self):
        port = free_port()
        process = subprocess.Popen([QUICKSTART, "--binary", NEARCACHED, "--listen",
                                    f"127.0.0.1:{port}"], stdout=subprocess.PIPE, text=True,
                                   env={**os.environ, "TMPDIR": self.directory})
        self.addCleanup(process.stdout.close)
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C"):
                break
        redis_port = int(lines[0].split("127.0.0.1:")[1].split(",")[0])
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(60), 0)
        self.assertEqual(self.left_over(), [])
        for gone in (port, redis_port):
            with self.assertRaises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", gone), timeout=5)


if __name__ == "__main__":
    unittest.main()
