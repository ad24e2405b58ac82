#!/usr/bin/env python3
"""That the tools which make claims about nearcached notice when a claim is not true.

A benchmark that counts errors as replies, or a demonstration that cannot fail, is worse than none.
"""
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NEARCACHED = os.environ["NEARCACHED_BINARY"]
LOADGEN = os.environ["NEARCACHED_LOADGEN"]
FLOOR = os.environ["NEARCACHED_FLOOR"]
QUICKSTART = os.path.join(ROOT, "tools", "quickstart")


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


class Bench(Directory):
    def test_a_row_of_hits_that_hits_nothing_fails(self):
        self.script("build/src/nearcached", f'exec "{NEARCACHED}" "$@" --set l1.enabled=false\n')
        for part in ("meson-info", "meson-logs"):
            os.symlink(os.path.join(os.environ["NEARCACHED_BUILD"], part),
                       os.path.join(self.directory, "build", part))
        os.makedirs(os.path.join(self.directory, "build/tests/bench"))
        for program in (LOADGEN, FLOOR):
            os.symlink(program, os.path.join(self.directory, "build/tests/bench",
                                             os.path.basename(program)))
        done = run(os.path.join(ROOT, "tools", "bench"), "--build",
                   os.path.join(self.directory, "build"), "--no-twemproxy", "--rows", "hit p1 64",
                   "--rounds", 1, "--seconds", 0.1, "--keys", 100)
        self.assertEqual(done.returncode, 1)
        self.assertIn("at least 99 % must be hits", done.stderr)


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
