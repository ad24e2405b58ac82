#!/usr/bin/env python3
"""That modules depend on each other in one direction, and that the pure ones are pure.

The layers are those of src/README.md. A module may include itself and what its row allows; libuv comes
in at one place; and a pure module has no sockets, no threads and no clock, which is what lets a test or
a simulator run it as it is.
"""
import os
import re
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

PURE = {"resp", "command", "l1", "coherence", "topology"}
LOW = {"base", "config"} | PURE
LAYERS = {
    "base": set(),
    "config": {"base"},
    "resp": {"base"},
    "command": {"base", "resp"},
    "l1": {"base"},
    "coherence": {"base"},
    "topology": {"base", "config"},
    "loop": LOW,
    "bus": LOW | {"loop"},
    "discovery": LOW | {"loop"},
    "upstream": LOW | {"loop"},
    "client": LOW | {"loop", "upstream"},
    "route": LOW | {"loop", "bus", "discovery", "upstream", "client"},
    "server": LOW | {"loop", "bus", "discovery", "upstream", "client", "route"},
    "main.cc": LOW | {"server"},
}

LIBUV_ONLY_IN = "loop"
IMPURE = re.compile(r"(uv\.h|sys/(socket|epoll|time|un|eventfd)\.h|netinet/.*|arpa/.*|netdb\.h|poll\.h"
                    r"|unistd\.h|pthread\.h|thread|mutex|shared_mutex|condition_variable|future"
                    r"|semaphore|stop_token|atomic|chrono|ctime|time\.h|nearcached/base/clock\.h"
                    r"|random|fstream|iostream)")
# The stamp table is the one thing that workers share; it is made of atomics and nothing else.
PURE_EXCEPTIONS = {("include/nearcached/coherence/stamp_table.h", "atomic")}

INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^">]+)[">]', re.MULTILINE)


def sources(root):
    """(path, module) of every source of the program; what lies directly in src/ is its own module."""
    for top in ("include/nearcached", "src"):
        for directory, _, files in os.walk(os.path.join(root, top)):
            for name in sorted(files):
                if name.endswith((".h", ".cc", ".inc")):
                    path = os.path.relpath(os.path.join(directory, name), root)
                    yield path, os.path.relpath(path, top).split(os.sep)[0]


def module_of(included, modules):
    """The module that an include names, or None if it is not one of ours."""
    name = included.removeprefix("nearcached/").split("/")[0]
    return name if "/" in included and name in modules else None


def violations(root):
    found = []
    files = list(sources(root))
    modules = {module for _, module in files}
    for path, module in files:
        if module not in LAYERS:
            found.append(f"{path}: module {module} has no place among the layers")
            continue
        with open(os.path.join(root, path)) as source:
            includes = INCLUDE.findall(source.read())
        for included in includes:
            other = module_of(included, modules)
            if other is not None and other != module and other not in LAYERS[module]:
                found.append(f"{path}: {module} must not include {included}")
            if included == "uv.h" and module != LIBUV_ONLY_IN:
                found.append(f"{path}: only {LIBUV_ONLY_IN} includes <uv.h>")
            elif module in PURE and IMPURE.fullmatch(included) and \
                    (path, included) not in PURE_EXCEPTIONS:
                found.append(f"{path}: {module} is pure and must not include {included}")
    return found


class Layers(unittest.TestCase):
    def test_dependencies_between_modules_point_one_way(self):
        files = list(sources(ROOT))
        self.assertGreater(len(files), 50, "the sources have moved; this test looks at nothing")
        self.assertEqual({module for _, module in files} - set(LAYERS), set())
        self.assertEqual(violations(ROOT), [])

    def test_the_layers_themselves_have_no_cycle(self):
        placed = set()
        for module, below in LAYERS.items():
            self.assertLessEqual(below, placed, f"{module} stands above something later in the list")
            placed.add(module)


class MadeUpTree(unittest.TestCase):
    """The check itself: a tree with one fault each must be reported, one without must not."""

    def reported(self, extra):
        tree = {
            "include/nearcached/base/bytes.h": "#include <cstdint>\n",
            "include/nearcached/base/clock.h": "#include <time.h>\n",
            "include/nearcached/coherence/stamp_table.h": "#include <atomic>\n",
            "include/nearcached/l1/table.h": '#include "nearcached/base/bytes.h"\n',
            "src/l1/table.cc": '#include "nearcached/l1/table.h"\n#include "l1/heap.h"\n',
            "src/loop/loop.h": "#include <uv.h>\n#include <mutex>\n",
            "src/route/router.h": '#include "loop/loop.h"\n#include "nearcached/l1/table.h"\n',
            "src/main.cc": '#include "server/server.h"\n',
            "src/server/server.h": '#include "route/router.h"\n',
        }
        for path, text in extra.items():
            tree[path] = tree.get(path, "") + text
        with tempfile.TemporaryDirectory(prefix="nearcached-layers-test-") as root:
            for path, text in tree.items():
                os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
                with open(os.path.join(root, path), "w") as out:
                    out.write(text)
            return violations(root)

    def assert_reported(self, path, line):
        found = self.reported({path: line})
        self.assertEqual(len(found), 1, found)
        self.assertTrue(found[0].startswith(path), found)

    def test_a_tree_in_order_is_not_reported(self):
        self.assertEqual(self.reported({}), [])

    def test_an_include_upwards_is_reported(self):
        self.assert_reported("src/l1/table.cc", '#include "route/router.h"\n')
        self.assert_reported("src/route/router.h", '#include "server/server.h"\n')
        self.assert_reported("include/nearcached/base/bytes.h", '#include "nearcached/l1/table.h"\n')

    def test_an_include_between_pure_modules_is_reported(self):
        self.assert_reported("src/l1/table.cc", '#include "nearcached/coherence/stamp_table.h"\n')

    def test_main_includes_nothing_between_itself_and_the_server(self):
        self.assert_reported("src/main.cc", '#include "route/router.h"\n')

    def test_libuv_outside_the_loop_is_reported(self):
        self.assert_reported("src/route/router.h", "#include <uv.h>\n")
        self.assert_reported("src/l1/table.cc", "#  include <uv.h>\n")

    def test_sockets_threads_and_clocks_in_a_pure_module_are_reported(self):
        for header in ("sys/socket.h", "thread", "mutex", "chrono", "time.h", "atomic"):
            self.assert_reported("src/l1/table.cc", f"#include <{header}>\n")
        self.assert_reported("src/l1/table.cc", '#include "nearcached/base/clock.h"\n')
        self.assert_reported("include/nearcached/coherence/stamp_table.h", "#include <thread>\n")

    def test_a_module_without_a_place_is_reported(self):
        self.assert_reported("src/misc/misc.cc", "\n")


if __name__ == "__main__":
    unittest.main()
