"""Update README.md and the plots from results/PROCESSOR/*.json: the tables, and which aims are reached.

    python benchmarks/report.py [--check]

Each table stands between `<!-- NAME -->` and `<!-- end -->`. With `--check` nothing is written, and the exit code is 1
where README.md says something else than the results.
"""

import argparse
import importlib
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from measuring import Found, described, markdown, median, paired, write_chart

from vggfeat import files

FOLDER = Path(__file__).parent
PAGE = FOLDER / "README.md"
BENCHMARKS = ("extraction", "dump", "losses", "stylize", "scaling", "kernels", "reading")


class Aim(NamedTuple):
    """Something to reach: of which benchmark, in words, the least (or, `most`, the most), and how it is found."""

    benchmark: str
    words: str
    limit: float
    found: Callable[[Found], float | None]
    most: bool = False

    def row(self, results: "Results", processors: Sequence[str]) -> list[str]:
        """What was aimed at, and what each processor reached; bold where that is not enough."""
        wanted = f"{'at most' if self.most else 'at least'} {self.limit:.3g}"
        return [self.words, wanted, *(self._reached(results.get(self.benchmark, {}).get(name)) for name in processors)]

    def _reached(self, found: Found | None) -> str:
        if found is None or (value := self.found(found)) is None:
            return ""
        enough = value <= self.limit if self.most else value >= self.limit
        return f"{value:.3g}" if enough else f"**{value:.3g}**"


def _faster(peer: str, name: str) -> Callable[[Found], float | None]:
    def found_in(found: Found) -> float | None:
        seconds = found["seconds"]
        return paired(seconds[peer], seconds[name]) if {peer, name} <= seconds.keys() else None

    return found_in


def _memory(peer: str, name: str) -> Callable[[Found], float | None]:
    def found_in(found: Found) -> float | None:
        one, other = (found["peak_mib"].get(each) for each in (name, peer))
        return one / other if one and other else None

    return found_in


def _share_of_dump(kind: str, name: str) -> Callable[[Found], float]:
    return lambda found: paired(found["pictures_per_second"][kind][name], found["pictures_per_second"]["network"][name])


def _way(precision: str) -> Callable[[Found], float | None]:
    def found_in(found: Found) -> float | None:
        if f"vggfeat {precision}" not in found["ways"]:
            return None
        theirs, ours = found["ways"]["pastiche"], found["ways"][f"vggfeat {precision}"]
        pairs = zip(ours["seconds"], ours["losses"], strict=True)
        seconds = next((second for second, loss in pairs if loss <= theirs["losses"][-1]), None)
        return None if seconds is None else theirs["seconds"][-1] / seconds

    return found_in


def _growth(found: Found) -> float | None:
    each = {
        tuple(name.split(" px, ")): median(seconds) / int(name.split()[0]) ** 2
        for name, seconds in found["step"].items()
    }
    worst = [each[at] for at in each if at[0] == "2048"]
    return max(worst) / each["256", "whole"] if worst and ("256", "whole") in each else None


AIMS = (
    Aim("extraction", "extraction in float32, times torchvision's speed", 2.0,
        _faster("torchvision float32", "vggfeat float32")),
    Aim("extraction", "extraction in float32, times torchvision's in channels_last", 1.3,
        _faster("torchvision float32, channels_last", "vggfeat float32")),
    Aim("extraction", "extraction in bfloat16, times torchvision's speed in float32", 6,
        _faster("torchvision float32", "vggfeat bfloat16")),
    Aim("extraction", "extraction in bfloat16, share of its convolutions alone", 0.85,
        _faster("convolutions alone bfloat16", "vggfeat bfloat16")),
    Aim("dump", "dumping all features in float32, share of the network alone", 0.8,
        _share_of_dump("full", "vggfeat float32")),
    Aim("dump", "dumping all features in bfloat16, share of the network alone", 0.8,
        _share_of_dump("full", "vggfeat bfloat16")),
    Aim("losses", "LPIPS step in float32, times the speed of `lpips`", 1.8,
        _faster("LPIPS: lpips", "LPIPS: vggfeat float32")),
    Aim("losses", "LPIPS step in float32, times the speed of `lpips` in channels_last", 1.2,
        _faster("LPIPS: lpips, channels_last", "LPIPS: vggfeat float32")),
    Aim("losses", "LPIPS step in bfloat16, times the speed of `lpips` in float32", 4,
        _faster("LPIPS: lpips", "LPIPS: vggfeat bfloat16")),
    Aim("losses", "LPIPS step in float32, memory over that of `lpips`", 1.0,
        _memory("LPIPS: lpips", "LPIPS: vggfeat float32"), most=True),
    Aim("losses", "ESRGAN step in float32, memory over the snippet's", 1.0,
        _memory("ESRGAN: snippet", "ESRGAN: vggfeat float32"), most=True),
    Aim("losses", "ESRGAN step in float32, times the snippet's speed", 1.5,
        _faster("ESRGAN: snippet", "ESRGAN: vggfeat float32")),
    Aim("losses", "ESRGAN step in bfloat16, times the snippet's speed in float32", 4,
        _faster("ESRGAN: snippet", "ESRGAN: vggfeat bfloat16")),
    Aim("stylize", "style-transfer step in bfloat16, times its convolutions alone", 1.5,
        _faster("vggfeat bfloat16", "convolutions alone bfloat16"), most=True),
    Aim("stylize", "style-transfer step in bfloat16, times pastiche's speed", 8,
        _faster("pastiche", "vggfeat bfloat16")),
    Aim("stylize", "pastiche's seconds to its last loss, over vggfeat's in bfloat16", 30, _way("bfloat16")),
    Aim("stylize", "style-transfer step in float32, times pastiche's speed", 1.8,
        _faster("pastiche", "vggfeat float32")),
    Aim("stylize", "style-transfer step in float32, memory over pastiche's", 1.0,
        _memory("pastiche", "vggfeat float32"), most=True),
    Aim("stylize", "pastiche's seconds to its last loss, over vggfeat's in float32", 25, _way("float32")),
    Aim("scaling", "a step's cost a pixel at 2048 px, in blocks, over that at 256 px", 1.6,
        _growth, most=True),
    Aim("reading", "seconds for 20,000 random rows of 300,000x64", 1,
        lambda found: median(found["seconds"]["random rows: vggfeat"]), most=True),
    Aim("reading", "seconds for opening a dump of 300,000 entries", 1,
        lambda found: median(found["seconds"]["open_dump"]), most=True),
    Aim("reading", "MiB for opening a dump of 300,000 entries", 95.4,
        lambda found: found["peak_mib"]["open_dump"], most=True),
)  # fmt: skip


Results = Mapping[str, Mapping[str, Found]]
"""{benchmark: {processor: what was kept}}."""


def results() -> Results:
    """Of the benchmarks that were run, what was kept of each processor."""
    kept: dict[str, dict[str, Any]] = {}
    for name in BENCHMARKS:
        for path in sorted((FOLDER / "results").glob(f"*/{name}.json")):
            kept.setdefault(name, {})[path.parent.name] = json.loads(path.read_text("utf-8"))
    return kept


def filled(page: str, kept: Results) -> str:
    """The page with the results between its marks."""
    parts = {name: "\n".join(_part(name, *of) for of in found.items()) for name, found in kept.items()}
    processors = list(dict.fromkeys(processor for found in kept.values() for processor in found))
    parts["aims"] = markdown(["aim", "wanted", *processors], [aim.row(kept, processors) for aim in AIMS])
    for name, text in parts.items():
        page, count = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)",
            lambda found, text=text: f"{found[1]}{text}{found[2]}",
            page,
            flags=re.DOTALL,
        )
        if count != 1:
            raise SystemExit(f"README.md has {count} places for {name}, not one")
    return page


def _part(name: str, processor: str, found: Found) -> str:
    """The command and what it ran on, the table, and the chart."""
    module = importlib.import_module(name)
    place = (
        f"{found['card']['name']}; {described(found['machine'])}" if found.get("card") else described(found["machine"])
    )
    line = f"`python benchmarks/{name}.py{_options(module, found)}` on {place}."
    chart = f"\n![{name} on {processor}](results/{processor}/{name}.png)\n" if hasattr(module, "chart") else ""
    return f"{line}\n\n{module.table(found)}{chart}"


def _options(module: ModuleType, found: Found) -> str:
    usual = {key: Path(value).name if isinstance(value, str) else value for key, (value, _) in module.SETTINGS.items()}
    changed = {key: value for key, value in found["settings"].items() if usual.get(key, "wall") != value}
    return "".join(f" --{key} {value}" for key, value in changed.items())


def main() -> None:
    """Write the page, or look whether it is true."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    before = PAGE.read_text("utf-8")
    after = filled(before, results())
    if options.check:
        sys.exit(before != after)
    for name, found in results().items():
        module = importlib.import_module(name)
        for processor, kept in found.items() if hasattr(module, "chart") else ():
            chart = module.chart(kept)
            write_chart(FOLDER / "results" / processor / f"{name}.png", chart)
    files.write(PAGE, after)


if __name__ == "__main__":
    main()
