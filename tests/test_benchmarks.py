"""The benchmarks run, what they count is right, and their page says what their results say."""

import importlib
import json
import os
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from vggfeat.networks import arch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SCRIPTS = {
    "extraction": (),
    "dump": (),
    "losses": ("lpips", "piq", "torchmetrics"),
    "stylize": ("pastiche",),
    "scaling": (),
    "kernels": (),
    "reading": (),
}
# Needs a GPU; here it runs with `--device cpu`.
CUDA = "on_cuda"


@pytest.fixture
def load(monkeypatch):
    """Import a module of benchmarks/, as its scripts do."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == BENCHMARKS:
            del sys.modules[name]


def run(name, *arguments):
    """What a script prints."""
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_every_script_has_a_test():
    helpers = {"measuring", "roofline", "report", "judge", "gpu_sections", "gpu_table", "gpu_timing"}
    assert {path.stem for path in BENCHMARKS.glob("*.py")} - helpers - {
        "objectives",
        "preconditioning",
        "schedules",
        "steady",
    } == {*SCRIPTS, CUDA}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_runs_on_little_work(name, tmp_path):
    for package in SCRIPTS[name]:
        if not find_spec(package):
            pytest.skip(f"{package} is not installed: pip install -e '.[bench]'")
    printed = run(name, "--quick", "--out", tmp_path)
    (folder,) = tmp_path.iterdir()
    found = json.loads((folder / f"{name}.json").read_text())
    text = json.dumps(found)
    assert str(tmp_path) not in text
    assert str(BENCHMARKS.parent) not in text
    assert os.uname().nodename not in text
    assert "|  | seconds" in printed or "network" in printed or "step" in printed or "rule" in printed
    assert found["machine"]["torch"] == torch.__version__
    assert len(found["peak_mib"]) >= 2 or name == "kernels"
    if sys.platform == "linux":
        least = 0 if name == "reading" else 1  # a small dump fits into what importing has freed
        assert all(least <= value < 20_000 for value in found["peak_mib"].values())
    with Image.open(folder / f"{name}.png") as chart:
        assert len(chart.convert("RGB").getcolors(1 << 20)) > 5
    assert sorted(path.name for path in folder.iterdir()) == [f"{name}.json", f"{name}.png"]


@pytest.mark.slow
def test_the_cuda_command_runs_on_a_cpu(tmp_path):
    printed = run(CUDA, "--device", "cpu", "--quick", "--no-tests", "--out", tmp_path)
    (path,) = tmp_path.glob("*/on_cuda.json")
    found = json.loads(path.read_text())
    assert list(found["sections"]) == ["equality", "rates", "losses", "painting", "extraction", "memory", "dump"]
    assert "error" not in path.read_text()
    assert max(found["sections"]["equality"]["metrics"].values()) == 0
    assert set(found["sections"]["equality"]["same_painting_twice"].values()) == {True}
    assert set(found["sections"]["memory"]["found"]) == {"gram, whole", "gram, blocks"}
    assert "LPIPS: vggfeat float32" in printed


def test_the_cuda_command_says_where_there_is_no_card(load, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        load(CUDA).main([])
    assert ended.value.code == 2
    assert "torch sees no CUDA device here" in capsys.readouterr().err


def test_a_section_that_fails_leaves_its_error_and_the_others(load, tmp_path):
    cuda = load(CUDA)

    def fails(_bench):
        raise RuntimeError("CUDA error: out of memory\nand more")

    sections = {"rates": fails, "dump": lambda _bench: {"pictures_per_second": {"float32": [3.0]}, "pictures": 8}}
    assert cuda.main(["--device", "cpu", "--no-tests", "--out", str(tmp_path)], sections) == 1
    (path,) = tmp_path.glob("*/on_cuda.json")
    found = json.loads(path.read_text())["sections"]
    assert found["rates"]["error"] == "RuntimeError: CUDA error: out of memory"
    assert found["dump"]["pictures_per_second"] == {"float32": [3.0]}


def test_a_time_is_told_beside_its_peer_and_its_convolutions(load):
    cuda = load(CUDA)
    times = {"torchvision": [0.2, 0.2], "vggfeat bfloat16": [0.1, 0.1]}
    found = {
        "sections": {
            "rates": {"found": {"convolution bfloat16": {"seconds": [1.0]}, "copy": {"seconds": [1.0]}},
                      "flops": {"convolution bfloat16": 1e12}, "copied": 1e9},
            "extraction": {"found": {name: {"seconds": each} for name, each in times.items()}, "flops": 5e10},
        },
    }  # fmt: skip
    row = next(line for line in cuda.table(found).splitlines() if line.startswith("| vggfeat bfloat16"))
    assert [cell.strip() for cell in row.split("|")[2:5]] == ["100 ms", "2.00x", "2.00x"]


def test_contenders_take_turns(load):
    measuring, turns = load("measuring"), []
    clock = measuring.timer(SimpleNamespace(clock="wall"))
    seconds = measuring.race({"one": lambda: turns.append(1), "other": lambda: time.sleep(0.01)}, 3, clock, warm_ups=2)
    assert len(turns) == 5
    assert [len(each) for each in seconds.values()] == [3, 3]
    assert min(seconds["other"]) >= 0.01 > max(seconds["one"])


def test_processor_time_leaves_waiting_out(load):
    measuring = load("measuring")
    clock = measuring.timer(SimpleNamespace(clock="cpu"))
    (taken,) = measuring.race({"sleeps": lambda: time.sleep(0.05)}, 1, clock)["sleeps"]
    assert taken < 0.02


def test_ratios_are_taken_round_by_round(load):
    measuring = load("measuring")
    one, other = [2.0, 20.0, 2.0], [1.0, 10.0, 4.0]  # the machine was slow in the second round
    assert measuring.paired(one, other) == 2.0
    assert measuring.spread(one) == "2 (2-20)"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_that_of_the_work_and_not_of_the_parent(tmp_path):
    (tmp_path / "work.py").write_text(
        """
import types, measuring
def build(name, settings):
    return lambda: bytearray(b"1") * (int(name) << 20)
if __name__ == "__main__":
    mine = build("600", None)()
    print(measuring.peaks(build, ["1", "200"], types.SimpleNamespace(clock='wall')))
"""
    )
    command = [sys.executable, str(tmp_path / "work.py")]
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS)}
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    little, much = (float(value) for value in re.findall(r": ([\d.]+)", printed))
    assert little < 20
    assert 199 < much < 230


def test_the_machine_is_told_without_its_name(load):
    measuring = load("measuring")
    about = measuring.machine()
    line = measuring.described(about)
    assert about["cpu"] in line
    assert torch.__version__ in line
    assert os.uname().nodename not in json.dumps(about)
    assert ("no AMX" in line) == ("AMX" not in about["capabilities"])


@pytest.mark.parametrize("backward", [False, True])
def test_convolutions_alone_are_those_of_the_network(load, backward):
    work = load("roofline").Convolutions("vgg16", "relu3_3", (2, 32, 32), "float32", backward=backward)
    macs = next(row.macs for row in arch.sized_layers("vgg16", 32, 32) if row.name == "relu3_3")
    assert work.flops == 2 * 2 * macs * (1 + backward)
    with torch.profiler.profile() as profile:
        work()
    calls = {event.key: event.count for event in profile.key_averages()}
    assert calls["aten::conv2d"] == 7
    assert calls.get("aten::convolution_backward", 0) == 7 * backward


def test_extraction_is_counted(load):
    extraction = load("extraction")
    seconds = {name: [0.5, 0.5] for name in extraction.CONTENDERS} | {
        f"{what} {precision}": [0.1, 0.2]
        for what in ("convolutions alone", "matrix product")
        for precision in extraction.LIMITS
    }
    seconds["vggfeat bfloat16"] = [0.125, 0.25]
    found = {
        "seconds": seconds,
        "flops": dict.fromkeys(seconds, 1e9),
        "settings": {"batch": 4, "side": 8},
        "peak_mib": {},
    }
    assert extraction.shares(found)["vggfeat bfloat16"] == pytest.approx(0.8)
    row = next(line for line in extraction.table(found).splitlines() if line.startswith("| vggfeat bfloat16"))
    assert [cell.strip() for cell in row.split("|")[2:7]] == ["0.188 (0.125-0.25)", "21.3", "5", "3.00x", "80%"]
    extraction.chart(found)


def test_the_way_to_a_loss_is_timed_without_its_judging(load):
    stylize = load("stylize")

    def pictures():
        for number in range(3):
            time.sleep(0.01)
            yield None if number == 1 else torch.tensor(float(number))

    def judge(picture):
        time.sleep(0.2)
        return 10.0 - float(picture)

    found = stylize.way(pictures(), judge, time.perf_counter)
    assert found["losses"] == [10.0, 8.0]
    assert 0.03 <= found["seconds"][1] < 0.2
    assert stylize.seconds_to(found, 9.0) == found["seconds"][1]
    assert stylize.seconds_to(found, 7.0) is None


@pytest.mark.slow
def test_objectives_are_compared(tmp_path):
    printed = run("objectives", "--size", 64, "--objectives", "gram,swd", "--out", tmp_path)
    assert [line.split("|")[1].strip() for line in printed.splitlines()[-2:]] == ["gram", "swd"]
    assert {path.name for path in tmp_path.iterdir()} == {"objectives.jpg", "objectives.json", "painted"}


@pytest.mark.slow
def test_schedules_are_compared(tmp_path):
    few = "size:64,first_size:64,steps"
    printed = run("schedules", "--pairs", 2, "--out", tmp_path, f"short={few}:2", f"long={few}:12")
    ratios = {line.split("|")[1].strip(): line.split("|")[3].strip() for line in printed.splitlines()[-2:]}
    assert ratios["all, short"] == "1.00x"
    assert float(ratios["all, long"].removesuffix("x")) < 1
    assert (tmp_path / "schedules.jpg").exists()


@pytest.mark.slow
def test_the_pyramid_lowers_the_loss():
    printed = run("preconditioning", "--size", 80, "--steps", 20)
    gains = [int(line.split("|")[4].strip().removesuffix("%")) for line in printed.splitlines()[2:]]
    assert len(gains) == 5
    assert min(gains) > 0


def test_pictures_are_judged_ever_less_often(load):
    judged = [step for step in range(501) if load("stylize").judged(step)]
    assert judged[:10] == list(range(10))
    assert 500 - 64 < judged[-1] <= 500
    assert len(judged) < 80


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_gatys_objective_is_pastiches(load):
    pytest.importorskip("pastiche", reason="pip install -e '.[bench]'")
    stylize = load("stylize")
    settings = SimpleNamespace(**{key: quick for key, (_, quick) in stylize.SETTINGS.items()})
    settings.steps, settings.clock = 1, "wall"
    ways = stylize.ways(settings)  # refuses to run where the objectives differ
    assert ways["vggfeat float32"]["losses"]
    assert ways["pastiche"]["losses"][0] > 0


def test_doubles_up_to_the_last(load):
    scaling = load("scaling")
    assert scaling.doubled(256, 4096) == [256, 512, 1024, 2048, 4096]
    settings = SimpleNamespace(smallest=256, largest=4096)
    assert scaling.looks(settings) == [
        (256, "whole"), (512, "whole"), (1024, "whole"), (1024, "blocks"), (2048, "blocks"), (4096, "blocks"),
    ]  # fmt: skip


def test_aims_say_whether_they_are_reached(load):
    report = load("report")
    least = report.Aim("dump", "words", 2, lambda found: found["x"])
    kept = {"dump": {"one": {"x": 2.5}, "other": {"x": 1.5}}, "losses": {"third": {}}}
    processors = ["one", "other", "third"]
    assert least.row(kept, processors) == ["words", "at least 2", "2.5", "**1.5**", ""]
    assert least._replace(most=True).row(kept, processors)[2:] == ["**2.5**", "1.5", ""]


def test_the_page_says_what_the_results_say(load):
    report = load("report")
    page = report.PAGE.read_text("utf-8")
    kept = report.results()
    assert set(kept) - {CUDA} == set(SCRIPTS)
    assert report.filled(page, kept) == page, "python benchmarks/report.py"
    for name, processors in kept.items():
        assert '"/' not in json.dumps(processors)  # no path of anybody's machine
        for processor, found in processors.items():
            if name == CUDA:
                assert load(CUDA).folder_of(found) == processor
                continue
            assert f"results/{processor}/{name}.png" in page
            assert load("measuring").processor(found["machine"]) == processor


def test_a_processor_is_named_in_short(load):
    processor = load("measuring").processor
    able = {"capabilities": ["AVX2", "AVX-512", "AVX512-BF16"], "torch_uses": "AVX512"}
    assert processor({"cpu": "AMD EPYC 9B14 96-Core Processor", **able}) == "amd-epyc-9b14-96-core-avx512-bf16"
    assert processor({"cpu": "AMD EPYC", **able, "torch_uses": "AVX2"}) == "amd-epyc-as-avx2"
    able = {"capabilities": ["AVX2"], "torch_uses": "AVX2"}
    assert processor({"cpu": "Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz", **able}) == "intel-core-i5-8250u-avx2"
