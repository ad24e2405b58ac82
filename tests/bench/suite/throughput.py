"""GET at several pipelines and sizes: all servers, in turns."""
import statistics

from .report import (Target, median_of, median_ratio, print_line, progress, ratios, size_name,
                     turned, verdict)
from .servers import FLOOR, HIT, PASS, REDIS, TWEMPROXY, counters, hit_share

PIPELINES = (1, 16, 64)
DATASET_BYTES_MAX = 64 << 20  # of the values: several times less than L1 of a row of hits has
FLOOR_VALUE_BYTES = 64

CELLS = [(pipeline, size) for size in (64, 4096) for pipeline in PIPELINES]
HIT_CELLS = CELLS + [(1, 65536), (16, 65536)]

UPSTREAM_TARGET = Target(0.40, "× redis")


def cell_name(pipeline, value_bytes):
    return f"p{pipeline} {size_name(value_bytes)}"


def target_of(name, pipeline, value_bytes, by_name):
    """(the server to compare with, the target), or None."""
    if name == HIT and value_bytes == FLOOR_VALUE_BYTES:
        return {1: (FLOOR, Target(1.10, "× floor")), 16: (REDIS, Target(0.68, "× redis")),
                64: (REDIS, Target(0.50, "× redis"))}[pipeline]
    if name == HIT:
        return REDIS, Target(1.0, "× redis")
    if name == PASS and TWEMPROXY in by_name:
        small = {1: 0.80, 16: 0.25, 64: 0.18}
        limit = small[pipeline] if value_bytes == 64 else (1.0 if pipeline == 1 else 0.5)
        return TWEMPROXY, Target(limit, "× twemproxy")
    return None


def shape_of(options, value_bytes):
    return ["--keys", min(options.keys, DATASET_BYTES_MAX // value_bytes),
            "--value-bytes", value_bytes]


def measure(machine, server, upstream, pipeline, value_bytes, *more):
    """One run against one server; returns its figures."""
    shape = [*shape_of(machine.options, value_bytes), *more]
    machine.warm(server, *shape)
    before = counters(server) if server.name == HIT else None
    behind = upstream if server.name in (TWEMPROXY, PASS, HIT) else None
    figures = machine.run_load(server, *shape, "--pipeline", pipeline, "--seconds",
                               machine.options.seconds, upstream=behind)
    if before:
        figures["hits"] = hit_share(machine, f"hit {cell_name(pipeline, value_bytes)}", before,
                                    counters(server), figures["requests"])
    return figures


def run(machine, hit_cells, pass_cells):
    """{(pipeline, value_bytes): {server name: [figures of each round]}}"""
    options = machine.options
    redis, upstream = machine.start_direct_and_upstream()
    subjects = [redis]
    if options.twemproxy_binary and pass_cells:
        subjects.append(machine.start_twemproxy(upstream))
    if pass_cells:
        subjects.append(machine.start_pass(upstream))
    if hit_cells:
        subjects.append(machine.start_floor(FLOOR_VALUE_BYTES))
        # The largest values are just above the default limit, with the protocol around them.
        subjects.append(machine.start_hit(upstream, "--set", "l1.value_max=128KiB"))

    def takes_part(subject, cell):
        if subject.name == FLOOR:
            return cell in hit_cells and cell[1] == FLOOR_VALUE_BYTES
        if subject.name == HIT:
            return cell in hit_cells
        return subject.name == REDIS or cell in pass_cells

    results = {cell: {subject.name: [] for subject in subjects if takes_part(subject, cell)}
               for cell in HIT_CELLS if cell in hit_cells or cell in pass_cells}
    for round_number in range(options.rounds):
        filled_bytes = None
        for pipeline, value_bytes in results:
            progress(f"round {round_number + 1} of {options.rounds}: "
                     f"{cell_name(pipeline, value_bytes)}")
            if filled_bytes != value_bytes:
                machine.fill((redis, upstream), *shape_of(options, value_bytes))
                filled_bytes = value_bytes
            for subject in turned(subjects, round_number):
                if subject.name in results[pipeline, value_bytes]:
                    results[pipeline, value_bytes][subject.name].append(
                        measure(machine, subject, upstream, pipeline, value_bytes))
    machine.stop_all()
    return results


def print_results(results):
    print(f"{'GET row':<12} {'server':<16} {'requests/s':>10} {'×redis':>6} {'CPU µs/req':>10} "
          f"{'×redis':>6} {'busy':>5} {'p50 µs':>7} {'p99 µs':>7} {'hits':>6}  CPU target")
    for (pipeline, value_bytes), by_name in results.items():
        for name, rounds in by_name.items():
            hits = f"{100 * median_of(rounds, 'hits'):.1f}%" if "hits" in rounds[0] else "-"
            target = target_of(name, pipeline, value_bytes, by_name)
            outcome = (verdict(ratios(rounds, by_name[target[0]], "cpu_us"), target[1])
                       if target else "")
            print(f"{cell_name(pipeline, value_bytes):<12} {name:<16} "
                  f"{median_of(rounds, 'rate'):>10,.0f} "
                  f"{median_ratio(rounds, by_name[REDIS], 'rate'):>6.2f} "
                  f"{median_of(rounds, 'cpu_us'):>10.3f} "
                  f"{median_ratio(rounds, by_name[REDIS], 'cpu_us'):>6.2f} "
                  f"{100 * median_of(rounds, 'busy'):>4.0f}% "
                  f"{median_of(rounds, 'p50_us'):>7.0f} {median_of(rounds, 'p99_us'):>7.0f} "
                  f"{hits:>6}  {outcome}".rstrip())
        print()


def print_upstream(results, wanted):
    """Redis's own CPU per request behind a proxy, of the runs that were made anyway."""
    for (pipeline, value_bytes), by_name in results.items():
        row = f"upstream {cell_name(pipeline, value_bytes)}"
        if pipeline != 1 or PASS not in by_name or not wanted(row):
            continue
        for name in (TWEMPROXY, PASS):
            if name in by_name:
                print_line(row, f"Redis's own CPU behind {name}",
                           ratios(by_name[name], by_name[REDIS], "upstream_cpu_us", "cpu_us"),
                           UPSTREAM_TARGET if name == PASS else None,
                           f"{median_of(by_name[name], 'upstream_cpu_us'):.2f} µs per request, "
                           f"{statistics.median(f['cpu_us'] for f in by_name[REDIS]):.2f} directly")
    print()
