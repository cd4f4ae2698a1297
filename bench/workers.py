"""Workers: see workers.lua. Another VM is another process here.

python3 bench/workers.py [COUNT]
"""

import multiprocessing

import measurement

ROUNDS = 9


def empty():
    pass


def start_all(count):
    for _ in range(count):
        process = multiprocessing.Process(target=empty)
        process.start()
        process.join()


def main():
    count = measurement.count(20)
    seconds = measurement.median_time(ROUNDS, lambda: start_all(count))
    measurement.report("start", seconds / count * 1e6, "us")


if __name__ == "__main__":
    main()
