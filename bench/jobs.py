"""Tiny jobs: see jobs.lua. An executor with a process for each core.

python3 bench/jobs.py [COUNT]
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import measurement

ROUNDS = 3
CHUNK = 1000  # the items of a message of map
SHARE = 10  # a call alone takes so much longer that only one in so many is made


def empty(_=None):
    pass


def run(executor, count):
    futures = [executor.submit(empty) for _ in range(count)]
    for future in futures:
        future.result()


def main():
    count = measurement.count(100000)
    with ProcessPoolExecutor(multiprocessing.cpu_count()) as executor:
        seconds = measurement.median_time(ROUNDS, lambda: list(executor.map(empty, range(count), chunksize=CHUNK)))
        measurement.report("map", seconds / count * 1e6, "us")
        seconds = measurement.median_time(ROUNDS, lambda: run(executor, count // SHARE))
        measurement.report("run", seconds / (count // SHARE) * 1e6, "us")


if __name__ == "__main__":
    main()
