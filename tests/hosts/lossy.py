"""Gives back the packets of a TUN device, in their order, but for one in a hundred.

usage: lossy.py DESCRIPTOR

It ends with its standard input.
"""

import os
import random
import select
import sys

LOSS = 0.01

tun = int(sys.argv[1])
end = sys.stdin.fileno()
chance = random.Random(1)
while end not in select.select([tun, end], [], [])[0]:
    packet = os.read(tun, 65536)
    if chance.random() >= LOSS:
        os.write(tun, packet)
