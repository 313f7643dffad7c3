#!/usr/bin/env python3
"""Writes agent/layout.ld anew: the functions that an agent runs, for the linker to put side by side.

    tests/layout.py            needs valgrind, and half an hour on two cores

An agent runs a sixth of the program's code, but the kernel maps sixteen pages around each that is run. Where functions lie
as the compiler leaves them, that is most of the program, in memory beside every task (docs/adr/0018).

The benchmarks are run with their agents under valgrind: first what every agent does (start, serve, hold connections), then
what only some do. Write the file anew when `.ci/run` says that the program has moved away from it, which a new compiler or
many new versions of libraries can bring about.
"""

import bisect
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LAYOUT = ROOT / "agent" / "layout.ld"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()

# What every agent runs comes first: one that does no more maps no more.
SUITES = ["memory", "inbound-jwt", "workload-api", "sigv4", "hops"]

# Basic blocks from one writing of what was run to the next. Benchmarks kill their agents: what is unwritten then is lost.
INTERVAL = 2_000_000

HEADER = """\
/* Written by tests/layout.py: the functions an agent runs, side by side in the program (docs/adr/0018). */
SECTIONS
{
  .text.used :
  {
"""
FOOTER = """\
  }
}
INSERT BEFORE .text;
"""


class Section(NamedTuple):
    """What the linker moves as a whole: a function, or a file of assembly."""

    start: int
    size: int
    file: str
    name: str

    def pattern(self):
        """What to name it by, whichever versions of the compiler and of libraries made it; `None` for what is not ours."""
        if self.name == ".text":
            member = re.search(r"\([0-9a-f]{16}-(.*)\)$", self.file)
            return f"*:*-{member[1]}(.text)" if member else None
        # Each crate's version is in its hash, and what a name repeats is counted from its start.
        name = re.sub(r"Cs[0-9A-Za-z]+_", "Cs*_", self.name)
        name = re.sub(r"B[0-9A-Za-z]{0,2}_", "B*_", name)
        return f"*({re.sub(r'aws_lc_[0-9]+_[0-9]+_[0-9]+_', 'aws_lc_*_', name)})"


def build():
    """Builds the program, as released, and the benchmarks: their directory, and the program's sections."""
    map_file = TARGET / "layout.map"
    release = ["--release", "--locked", "-p"]
    linked = ["--", "-C", f"link-arg=-Wl,-Map={map_file}"]
    subprocess.run(["cargo", "rustc", *release, "warifu-agent", "--bin", "warifu", *linked], cwd=ROOT, check=True)
    subprocess.run(["cargo", "build", *release, "warifu-tests", "--bin", "bench"], cwd=ROOT, check=True)
    entry = re.compile(r"\s*([0-9a-f]+)\s+[0-9a-f]+\s+([0-9a-f]+)\s+\d+\s+(\S.*):\((\.text.*)\)$")
    entries = (entry.match(line) for line in map_file.read_text().splitlines())
    sections = [Section(int(e[1], 16), int(e[2], 16), e[3], e[4]) for e in entries if e]
    return TARGET / "release", sorted(section for section in sections if section.size)


def addresses_run(suite, release):
    """Runs one suite of the benchmarks: the addresses of the instructions that its agents ran, as in the program's file."""
    program = release / "warifu"
    with tempfile.TemporaryDirectory(prefix="warifu-layout-") as directory:
        directory = Path(directory)
        # A benchmark runs the `warifu` beside it.
        bench, wrapper = directory / "bench", directory / "warifu"
        bench.write_bytes((release / "bench").read_bytes())
        wrapper.write_text(
            "#!/bin/sh\n"
            f'[ "$1" = agent ] || exec {program} "$@"\n'
            "exec valgrind --quiet --tool=callgrind --dump-instr=yes --compress-pos=no --compress-strings=no"
            f' --dump-every-bb={INTERVAL} --callgrind-out-file={directory}/ran.%p {program} "$@"\n'
        )
        bench.chmod(0o755)
        wrapper.chmod(0o755)
        # How it ends says nothing: all bars are missed under valgrind, and peers in other languages are not found from here.
        ended = subprocess.run([bench, suite, "--quick"], cwd=directory, capture_output=True, text=True)
        ran, ours = set(), False
        for file in directory.glob("ran.*"):
            with file.open(errors="replace") as lines:
                for line in lines:
                    if line.startswith("ob="):
                        ours = line.rstrip().endswith(str(program))
                    elif ours and line.startswith("0x"):
                        ran.add(int(line.split(maxsplit=1)[0], 16))
    if not ran:
        sys.exit(f"{suite}: no agent ran:\n{ended.stdout}{ended.stderr}")
    return ran


def sections_at(addresses, sections):
    """The sections that these addresses lie in."""
    starts = [section.start for section in sections]
    found = (sections[bisect.bisect_right(starts, address) - 1] for address in addresses)
    return {it for it, address in zip(found, addresses) if it.start <= address < it.start + it.size}


def functions_run():
    """The lines of the list."""
    release, sections = build()
    lines, seen = [], {None}
    for suite in SUITES:
        used = sections_at(addresses_run(suite, release), sections)
        new = {section.pattern() for section in used} - seen
        seen |= new
        size = sum(section.size for section in sections if section.pattern() in new)
        print(f"{suite}: {len(new)} further functions, {size // 1024} KiB", flush=True)
        lines += [f"    /* {suite} */\n", *(f"    {pattern}\n" for pattern in sorted(new))]
    return lines


def main():
    before, lines = LAYOUT.read_text(), None
    try:
        # Valgrind knows whose an instruction is in `.text` alone, so that is where they are all to be.
        LAYOUT.write_text(HEADER + FOOTER)
        lines = functions_run()
    finally:
        LAYOUT.write_text(HEADER + "".join(lines) + FOOTER if lines else before)


if __name__ == "__main__":
    main()
