"""Memory that is freed stays with the process while it is kept, and goes back at the end."""

import os
import subprocess
import sys

import pytest

from vggfeat import allocation
from vggfeat.transfer import run

# Takes and frees 100 MB: prints the pages that the system cleared outside, for four turns inside, and afterwards, and
# how many megabytes went back at the end.
_FAULTS = """
import re, resource, sys, torch
from vggfeat import allocation

def take():
    torch.ones(25_000_000)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def held():
    return int(re.search(r"^VmRSS:\\s*(\\d+)", open("/proc/self/status").read(), re.M)[1]) // 1024

take()
outside = faults()
take()
outside = faults() - outside
with allocation.kept(), allocation.kept():
    # It takes some turns until a freed piece fits.
    for _ in range(16):
        take()
    inside = faults()
    for _ in range(4):
        take()
    inside = faults() - inside
    most = held()
after = faults()
take()
print(outside, inside, faults() - after, most - held())
"""

glibc = pytest.mark.skipif(allocation._glibc() is None, reason="the C library is not glibc, or told by its user")  # noqa: SLF001


def measured(**environment):
    printed = subprocess.run(
        [sys.executable, "-c", _FAULTS],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [int(word) for word in printed.split()]


@glibc
def test_what_is_kept_is_not_cleared_again():
    outside, inside, after, returned = measured()
    pages = 25_000_000 * 4 // 4096
    assert outside > 0.9 * pages
    assert inside < 0.05 * pages
    assert after > 0.9 * pages
    assert returned > 90


@glibc
def test_who_has_told_the_library_is_obeyed():
    _, inside, *_ = measured(MALLOC_MMAP_THRESHOLD_="1000000")
    assert inside > 3 * 25_000_000 * 4 // 4096


def test_elsewhere_nothing_happens(monkeypatch):
    monkeypatch.setattr(allocation, "_glibc", lambda: None)
    assert not allocation.possible()
    with allocation.kept():
        allocation.release()


def test_what_is_kept_ends_with_the_run(monkeypatch):
    told = []
    monkeypatch.setattr(allocation, "_tell", told.append)
    steps = run.running(iter("ab"), keep=True)
    assert not told
    next(steps)
    assert len(told) == 1
    steps.close()
    assert len(told) == 2
    assert told[0] != told[1]
    assert list(run.running(iter("ab"), keep=False)) == ["a", "b"]
    assert len(told) == 2
