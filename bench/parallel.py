"""Parallel: see parallel.lua. A pool of processes, one for each core.

python3 bench/parallel.py [ROUNDS]
"""

import multiprocessing
import statistics

import measurement

JOBS = 64
N = 27
RESULT = JOBS * 196418


def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def seconds(run):
    """How long it takes to get it right."""
    start = measurement.now()
    assert sum(run()) == RESULT, "wrong results"
    return measurement.now() - start


def main():
    with multiprocessing.Pool() as pool:
        pool.map(fib, [1] * JOBS)
        speedups, walls = [], []
        for _ in range(measurement.count(3)):
            serial = seconds(lambda: map(fib, [N] * JOBS))
            walls.append(seconds(lambda: pool.map(fib, [N] * JOBS)))
            speedups.append(serial / walls[-1])
    measurement.report("speedup", statistics.median(speedups), "x")
    measurement.report("wall", statistics.median(walls) * 1000, "ms")


if __name__ == "__main__":
    main()
