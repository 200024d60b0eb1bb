#!/usr/bin/python3 -S
"""Stands in for `drbdsetup` and `drbdadm`: plays what a test has put into the folder that it lies in.

`events2`: the file stream.N, N counting the starts, as it grows, until a line END; before that file is there, silence.
`events2 --now`, `show`, `dump`: the file of that name; exit status 20 without it.
"""

import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def play(path):
    while not os.path.exists(path):
        time.sleep(0.01)
    with open(path) as file:
        while True:
            line = file.readline()
            if line == "END\n":
                return
            if line:
                sys.stdout.write(line)
                sys.stdout.flush()
            else:
                time.sleep(0.01)


def main(words):
    name = "now" if "--now" in words else words[0]
    if name == "events2":
        number = sum(name.startswith("started.") for name in os.listdir(HERE)) + 1
        open(f"{HERE}/started.{number}", "w").close()
        play(f"{HERE}/stream.{number}")
        return 0
    try:
        with open(f"{HERE}/{name}") as file:
            sys.stdout.write(file.read())
    except FileNotFoundError:
        return 20
    return 0


sys.exit(main(sys.argv[1:]))
