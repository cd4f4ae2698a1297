"""Channels: see channels.lua. Another VM is another process here; between them is a pipe, of fixed capacity.

python3 bench/channels.py
"""

import multiprocessing

import measurement

ROUNDS = 3
ROUND_TRIPS = 20000
MIB = 1024 * 1024

KINDS = [
    ("integer", 42, 100000),
    ("string_1k", "x" * 1024, 50000),
    ("table", [[i * 10 + j for j in range(10)] for i in range(10)], 10000),
    ("records", [{f"field{j + 1}": i * 10 + j for j in range(10)} for i in range(10)], 10000),
    ("string_1m", "x" * MIB, 200),
]


def echo(connection):
    while True:
        connection.send(connection.recv())


def receive(connection, count):
    while True:
        for _ in range(count):
            connection.recv()
        connection.send("received")


def measure(job, arguments, measure_with):
    """Gives a process that runs a job the other end of a pipe, and measures with this one."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=job, args=(there, *arguments), daemon=True)
    process.start()
    seconds = measurement.median_time(ROUNDS, lambda: measure_with(here))
    process.terminate()
    return seconds


def round_trips(connection):
    for i in range(ROUND_TRIPS):
        connection.send(i)
        assert connection.recv() == i


def main():
    seconds = measure(echo, (), round_trips)
    measurement.report("round_trip", seconds / ROUND_TRIPS * 1e6, "us")
    for name, value, count in KINDS:

        def send_all(connection):
            for _ in range(count):
                connection.send(value)
            connection.recv()

        seconds = measure(receive, (count,), send_all)
        measurement.report(name, count / seconds, "messages/s")


if __name__ == "__main__":
    main()
