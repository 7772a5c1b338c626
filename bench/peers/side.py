"""The peer's half of a benchmark: one measured repetition per line "go" on stdin, one line of JSON per answer.

The harness keeps both sides alive and lets them take turns, so a load on the machine falls on both.
"""

import json
import os
import resource
import sys
import time

# Only answers go to the harness: what libraries print, also from other threads, goes to stderr.
harness = os.fdopen(os.dup(sys.stdout.fileno()), "w")
os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


def answer(message):
    harness.write(json.dumps(message) + "\n")
    harness.flush()


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
