"""The rows that are not GET at a pipeline."""
import resource
import subprocess
import time

from .report import Target, print_line, progress
from .servers import BenchError

IDLE_TARGET_MB = 15.0


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
        print_line(row, f"{connections} connections, {subject.name}", [after / 1e6],
                   Target(IDLE_TARGET_MB, "MB") if subject.name == "nearcached" else None,
                   f"{before / 1e6:.1f} MB without, {(after - before) / connections:.0f} bytes each")
    machine.stop_all()


# Name as --rows sees it, and how it is run.
ROWS = {
    "idle": idle,
}
