"""Memory that is freed stays with the process once it is told to hold on to it."""

import subprocess
import sys

import pytest

from vggfeat.features import allocation

# Takes and frees 100 MB, before and after: prints the megabytes that the process has gained each time,
# and those that go back when they are released.
_GAINED = """
import re, sys, torch
from vggfeat.features import allocation

def megabytes():
    return int(re.search(r"^VmRSS:\\s*(\\d+)", open("/proc/self/status").read(), re.M)[1]) // 1024

def gained():
    before = megabytes()
    torch.ones(25_000_000)
    return megabytes() - before

gained()
outside = gained()
arranged, held = allocation.hold(), gained()
before = megabytes()
allocation.release()
print(outside, int(arranged), held, before - megabytes())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_what_is_freed_stays_until_it_is_released():
    printed = subprocess.run([sys.executable, "-c", _GAINED], capture_output=True, text=True, check=True).stdout
    outside, arranged, held, released = map(int, printed.split())
    assert outside < 10
    assert held > 90 if arranged else held < 10
    assert released > 90 if arranged else released < 10


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_elsewhere_nothing_happens(platform, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.delattr("ctypes.CDLL")
    assert allocation.hold() is False
    allocation.release()


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert allocation.hold() is False
