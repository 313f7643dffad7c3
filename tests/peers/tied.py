"""Runs a command for as long as standard input stays open.

The harness holds the other end. When the harness ends, however it ends, the pipe closes and the whole
process group is killed: no peer outlives a test that crashed.
"""

import os
import signal
import subprocess
import sys
import threading


def kill_group_at_end_of_input():
    while sys.stdin.buffer.read(4096):
        pass
    os.killpg(0, signal.SIGKILL)


child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
threading.Thread(target=kill_group_at_end_of_input, daemon=True).start()
sys.exit(child.wait())
