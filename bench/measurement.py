"""What Python's workloads have in common; see measurement.lua."""

import statistics
import sys
import time


def report(name, value, unit):
    """One line for the runner."""
    print(f"{name}\t{value}\t{unit}", flush=True)


def now():
    """Seconds since some moment in the past."""
    return time.perf_counter()


def seconds(fn):
    """How long fn() takes."""
    start = now()
    fn()
    return now() - start


def median_time(rounds, fn):
    """The median of the seconds that each of so many calls takes, after one that is not measured."""
    fn()
    return statistics.median(seconds(fn) for _ in range(rounds))


def count(otherwise):
    """The count on the command line."""
    return int(sys.argv[1]) if len(sys.argv) > 1 else otherwise
