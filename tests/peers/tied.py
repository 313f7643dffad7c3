"""Runs a command for as long as standard input stays open.

The harness holds the other end. When the harness ends, however it ends, the pipe closes; the command is
killed, and then the whole process group: no peer outlives a test that crashed. Once this process is
gone, so are the command's sockets.
"""

import os
import signal
import subprocess
import sys
import threading

child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
harness_ended = threading.Event()


def kill_at_end_of_input():
    while sys.stdin.buffer.read(4096):
        pass
    harness_ended.set()
    child.kill()


threading.Thread(target=kill_at_end_of_input, daemon=True).start()
code = child.wait()
if harness_ended.is_set():
    os.killpg(0, signal.SIGKILL)
sys.exit(code)
