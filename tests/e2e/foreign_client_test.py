#!/usr/bin/python3
"""A client library that knows nothing of nearcached: python3-redis through the proxy."""
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import redis

BINARY = os.environ["NEARCACHED_BINARY"]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port):
    for _ in range(2000):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.01)
    raise RuntimeError(f"nobody listens on port {port}")


def start_proxy(port, upstream, *args):
    # Its log goes where the results go: a line of it in the middle of a result would hide that.
    process = subprocess.Popen([BINARY, "--listen", f"127.0.0.1:{port}", "--threads", "2",
                                "--upstream", upstream, "--set", "log.level=warn", *args])
    wait_for(port)
    return process


class ForeignClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory()
        cls.redis_port, cls.port = free_port(), free_port()
        cls.processes = [
            subprocess.Popen(["redis-server", "--port", str(cls.redis_port), "--save", "",
                              "--bind", "127.0.0.1", "--dir", cls.directory.name],
                             stdout=subprocess.DEVNULL)]
        wait_for(cls.redis_port)
        cls.processes.append(start_proxy(cls.port, f"redis://127.0.0.1:{cls.redis_port}"))

    @classmethod
    def tearDownClass(cls):
        for process in reversed(cls.processes):
            process.send_signal(signal.SIGTERM)
        statuses = [process.wait() for process in cls.processes]
        cls.directory.cleanup()
        assert statuses == [0, 0], f"redis-server and nearcached ended with {statuses}"

    def setUp(self):
        self.client = redis.Redis(port=self.port)
        self.text = redis.Redis(port=self.port, decode_responses=True)
        self.direct = redis.Redis(port=self.redis_port, decode_responses=True)
        self.client.flushall()

    def tearDown(self):
        for client in (self.client, self.text, self.direct):
            client.close()

    def test_values_come_as_bytes_or_as_text_as_the_client_asks(self):
        self.client.set("k", "häuser")
        for _ in range(3):
            self.assertEqual(self.client.get("k"), "häuser".encode())
            self.assertEqual(self.text.get("k"), "häuser")
        self.assertIsNone(self.text.get("none"))

    def test_every_type_reads_back_as_it_was_written_and_again_from_the_cache(self):
        self.text.hset("h", mapping={"a": "1", "b": "2"})
        self.text.rpush("l", "x", "y")
        self.text.sadd("s", "m", "n")
        self.text.zadd("z", {"one": 1, "half": 0.5})
        self.text.xadd("x", {"f": "v"}, id="1-1")
        for _ in range(3):
            self.assertEqual(self.text.hgetall("h"), {"a": "1", "b": "2"})
            self.assertEqual(self.text.lrange("l", 0, -1), ["x", "y"])
            self.assertEqual(self.text.smembers("s"), {"m", "n"})
            self.assertEqual(self.text.zrange("z", 0, -1, withscores=True),
                             [("half", 0.5), ("one", 1.0)])
            self.assertEqual(self.text.xrange("x"), [("1-1", {"f": "v"})])
            self.assertEqual(self.text.mget("none", "none"), [None, None])

    def test_a_pool_of_threads_sees_its_own_writes(self):
        pool = redis.ConnectionPool(port=self.port, max_connections=8, decode_responses=True)
        failures = []

        def work(name):
            client = redis.Redis(connection_pool=pool)
            for i in range(200):
                client.set(name, i)
                if client.get(name) != str(i):
                    failures.append((name, i))

        threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pool.disconnect()
        self.assertEqual(failures, [])

    def test_a_pipeline_is_answered_in_order(self):
        pipeline = self.text.pipeline(transaction=False)
        for i in range(500):
            pipeline.set(f"k{i}", i)
            pipeline.get(f"k{i}")
        replies = pipeline.execute()
        self.assertEqual(replies[1::2], [str(i) for i in range(500)])

    def test_a_transaction_with_optimistic_locking_loses_no_update(self):
        def increment():
            client = redis.Redis(port=self.port, decode_responses=True)
            for _ in range(25):
                client.transaction(
                    lambda p: (lambda v: (p.multi(), p.set("n", v + 1)))(int(p.get("n") or 0)),
                    "n")
            client.close()

        threads = [threading.Thread(target=increment) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(self.text.get("n"), "150")

    def test_a_subscriber_gets_messages_from_both_sides(self):
        subscriber = self.text.pubsub(ignore_subscribe_messages=True)
        subscriber.subscribe("c")
        subscriber.psubscribe("p*")
        while self.direct.pubsub_numsub("c")[0][1] == 0 or self.direct.pubsub_numpat() == 0:
            subscriber.get_message(timeout=0.01)
        self.direct.publish("c", "direct")
        self.text.publish("pattern", "through")
        got = []
        while len(got) < 2:
            message = subscriber.get_message(timeout=10)
            if message:
                got.append((message["type"], message["channel"], message["data"]))
        self.assertEqual(got, [("message", "c", "direct"), ("pmessage", "pattern", "through")])
        subscriber.close()

    def test_a_registered_script_runs_and_its_write_is_seen(self):
        script = self.text.register_script("return redis.call('SET', KEYS[1], ARGV[1])")
        self.text.get("k")
        for value in ("1", "2"):
            script(keys=["k"], args=[value])
            self.assertEqual(self.text.get("k"), value)

    def test_scan_iter_meets_every_key(self):
        keys = {f"key:{i}" for i in range(500)}
        self.text.mset({key: "v" for key in keys})
        self.assertEqual(set(self.text.scan_iter(match="key:*", count=50)), keys)

    def test_a_blocking_pop_waits_for_a_push(self):
        threading.Timer(0.1, lambda: self.direct.rpush("q", "job")).start()
        self.assertEqual(self.text.blpop("q", timeout=10), ("q", "job"))
        self.assertIsNone(self.text.blpop("q", timeout=0.05))
        self.assertIsNone(self.text.get("after"))

    def test_a_lock_excludes(self):
        with self.text.lock("lock", timeout=10):
            self.assertFalse(self.text.lock("lock", timeout=10).acquire(blocking=False))
        self.assertTrue(self.text.lock("lock", timeout=10).acquire(blocking=False))

    def test_errors_are_the_servers_own(self):
        self.text.rpush("l", "x")
        with self.assertRaisesRegex(redis.ResponseError, "WRONGTYPE"):
            self.text.get("l")
        with self.assertRaisesRegex(redis.ResponseError, "unknown command"):
            self.text.execute_command("NOSUCH")

    def test_databases_names_and_info_are_the_clients_own(self):
        named = redis.Redis(port=self.port, db=3, client_name="me", decode_responses=True)
        named.set("k", "three")
        self.assertIsNone(self.text.get("k"))
        self.assertEqual(named.client_getname(), "me")
        self.assertEqual(named.get("k"), "three")
        self.assertIn("redis_version", named.info())
        self.assertIn("l1_hits", named.info("nearcached"))
        named.close()


class ForeignClusterClient(unittest.TestCase):
    """A client that insists on a cluster, of one that a single proxy presents."""

    PRIMARIES = 3

    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory()
        ports = [free_port() for _ in range(cls.PRIMARIES)]
        bus_ports = [free_port() for _ in range(cls.PRIMARIES)]
        cls.processes = []
        for port, bus_port in zip(ports, bus_ports):
            directory = os.path.join(cls.directory.name, str(port))
            os.mkdir(directory)
            cls.processes.append(subprocess.Popen(
                ["redis-server", "--port", str(port), "--cluster-port", str(bus_port),
                 "--bind", "127.0.0.1", "--save", "", "--dir", directory,
                 "--cluster-enabled", "yes"], stdout=subprocess.DEVNULL))
        for port in ports:
            wait_for(port)
        cls.nodes = [redis.Redis(port=port, decode_responses=True) for port in ports]
        for i, node in enumerate(cls.nodes):
            first, end = (16384 * n // cls.PRIMARIES for n in (i, i + 1))
            node.execute_command("CLUSTER SET-CONFIG-EPOCH", i + 1)
            node.execute_command("CLUSTER ADDSLOTSRANGE", first, end - 1)
            for port, bus_port in list(zip(ports, bus_ports))[:i]:
                node.execute_command("CLUSTER MEET", "127.0.0.1", port, bus_port)
        while any(node.execute_command("CLUSTER INFO")["cluster_state"] != "ok"
                  for node in cls.nodes):
            time.sleep(0.02)
        cls.port = free_port()
        cls.processes.append(start_proxy(
            cls.port, "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in ports),
            "--set", "server.present_as=cluster"))

    @classmethod
    def tearDownClass(cls):
        for node in cls.nodes:
            node.close()
        for process in reversed(cls.processes):
            process.send_signal(signal.SIGTERM)
        statuses = [process.wait() for process in cls.processes]
        cls.directory.cleanup()
        assert set(statuses) == {0}, f"redis-servers and nearcached ended with {statuses}"

    def setUp(self):
        self.client = redis.RedisCluster(host="127.0.0.1", port=self.port, decode_responses=True)
        self.client.flushall()

    def tearDown(self):
        self.client.close()

    def test_it_knows_the_proxy_alone_and_every_slot_is_there(self):
        nodes = self.client.get_nodes()
        self.assertEqual([(node.host, node.port) for node in nodes], [("127.0.0.1", self.port)])
        slots = self.client.nodes_manager.slots_cache
        self.assertEqual(len(slots), 16384)

    def test_keys_of_all_shards_are_written_and_read_and_are_on_all_nodes(self):
        for i in range(300):
            self.client.set(f"k{i}", i)
        for _ in range(2):
            for i in range(300):
                self.assertEqual(self.client.get(f"k{i}"), str(i))
        self.assertTrue(all(node.dbsize() > 0 for node in self.nodes))
        self.assertEqual(self.client.dbsize(), 300)
        self.assertGreater(redis.Redis(port=self.port).info("nearcached")["l1_hits"], 0)

    def test_a_pipeline_over_all_shards_is_answered_in_order(self):
        pipeline = self.client.pipeline()
        for i in range(200):
            pipeline.set(f"k{i}", i)
            pipeline.get(f"k{i}")
        self.assertEqual(pipeline.execute()[1::2], [str(i) for i in range(200)])

    def test_commands_of_several_keys_that_it_splits_by_slot_work(self):
        keys = [f"k{i}" for i in range(50)]
        self.client.mset_nonatomic({key: key for key in keys})
        self.assertEqual(self.client.mget_nonatomic(keys), keys)
        self.assertEqual(self.client.exists(*keys), 50)
        self.assertEqual(self.client.delete(*keys), 50)

    def test_scan_iter_meets_every_key(self):
        keys = {f"key:{i}" for i in range(500)}
        for key in keys:
            self.client.set(key, "v")
        self.assertEqual(set(self.client.scan_iter(match="key:*", count=50)), keys)
        self.assertEqual(set(self.client.keys("key:*")), keys)

    def test_a_script_runs_on_every_shard(self):
        sha = self.client.script_load("return redis.call('INCR', KEYS[1])")
        for i in range(20):
            self.assertEqual(self.client.evalsha(sha, 1, f"n{i}"), 1)

    def test_a_subscriber_gets_what_is_published_at_a_node(self):
        subscriber = self.client.pubsub(ignore_subscribe_messages=True)
        subscriber.subscribe("c")
        got = None
        while got is None:
            self.nodes[1].publish("c", "hello")
            got = subscriber.get_message(timeout=0.05)
        self.assertEqual((got["channel"], got["data"]), ("c", "hello"))
        subscriber.close()


if __name__ == "__main__":
    sys.exit(unittest.main())
