"""The peer's half of a benchmark: one measured repetition per line "go" on stdin, one line of JSON per answer.

The harness keeps both sides alive and lets them take turns, so a load on the machine falls on both.
"""

import json
import resource
import sys
import time


def answer(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def serve(repeat, version):
    """`repeat()` does the work once and returns how many units of it there were, or a dict with what it timed itself."""
    answer({"ready": True, "version": version})
    for line in sys.stdin:
        if line.strip() != "go":
            break
        cpu, wall = time.process_time(), time.perf_counter()
        lap = repeat()
        measured = {
            "seconds": time.perf_counter() - wall,
            "cpuSeconds": time.process_time() - cpu,
            "peakMb": peak_mb(),
        }
        answer({**measured, **(lap if isinstance(lap, dict) else {"units": lap})})
