"""The results of `on_cuda.py` as tables in Markdown."""

import statistics
from collections.abc import Callable, Iterator

from gpu_timing import seconds
from measuring import Found, markdown, ratio


def table(found: Found) -> str:
    """All sections that were measured."""
    done = {name: told for name, told in found["sections"].items() if "error" not in told}
    parts: list[str] = []
    timed = ["", "time", "times the peer's speed", "over its convolutions", "memory"]
    if "rates" in done:
        told = done["rates"]
        rows = [
            [name, f"{told['flops'][name] / seconds(each) / 1e12:.3g} TFLOP/s"]
            for name, each in told["found"].items()
            if name != "copy" and seconds(each)
        ]
        rows.append(["copy", f"{told['copied'] / seconds(told['found']['copy']) / 1e9:.4g} GB/s"])
        parts.append(markdown(["rate", ""], rows))
    if "extraction" in done:
        flops = done["extraction"]["flops"]
        parts.append(markdown(timed, _time_rows(found, "extraction", lambda _: "torchvision", lambda _: flops)))
    if "losses" in done:
        flops = done["losses"]["flops"]
        peers = {"LPIPS": "LPIPS: lpips", "DISTS": "", "ESRGAN": "ESRGAN: snippet"}
        parts.append(
            markdown(timed, _time_rows(found, "losses", lambda n: peers[_first(n)], lambda n: flops[_first(n)]))
        )
    if "painting" in done:
        flops = done["painting"]["flops"]
        parts.append(
            markdown(
                timed,
                _time_rows(found, "painting", lambda n: f"{_first(n)}: plain Gatys loop", lambda n: flops[_first(n)]),
            )
        )
    if "memory" in done:
        rows = [_memory_row(name, told) for name, told in done["memory"]["found"].items()]
        parts.append(markdown(["objective", "peak", "over prediction"], rows))
    if "dump" in done:
        rows = [
            [name, f"{statistics.median(told):.0f} pictures/s"]
            for name, told in done["dump"]["pictures_per_second"].items()
            if told
        ]
        parts.append(markdown(["dump", ""], rows))
    if "equality" in done:
        rows = [[name, f"{value:.1e}"] for name, value in done["equality"]["metrics"].items()]
        rows += [
            [f"{name}: painted twice", "equal" if same else "**different**"]
            for name, same in done["equality"]["same_painting_twice"].items()
        ]
        parts.append(markdown(["CPU and device", "difference"], rows))
    parts += [f"{name}: {told['error']}\n" for name, told in found["sections"].items() if "error" in told]
    if found.get("tests"):
        parts.append(f"Tests marked `cuda`: {found['tests']['counts']}\n")
    return "\n".join(parts)


def _time_rows(
    found: Found, section: str, peer_of: Callable[[str], str], flops_of: Callable[[str], float]
) -> Iterator[list[str]]:
    everyone = found["sections"][section]["found"]
    for name, told in everyone.items():
        taken = seconds(told)
        peer = seconds(everyone.get(peer_of(name), {}))
        yield [
            name,
            told["error"] if taken is None else f"{taken * 1e3:.3g} ms",
            ratio(peer / taken) if peer and taken else "",
            _share(found, section, name, flops_of(name)),
            "" if told.get("peak_mib") is None else f"{told['peak_mib']:.0f} MiB",
        ]


def _share(found: Found, section: str, name: str, flops: float) -> str:
    """How many times longer than its convolutions take at the rate that was measured in that precision."""
    taken = seconds(found["sections"][section]["found"][name])
    precision = next((p for p in ("bfloat16", "float16", "tf32", "float32") if p in name), None)
    rate = found["sections"].get("rates", {}).get("found", {}).get(f"convolution {precision}")
    if taken is None or rate is None or seconds(rate) is None:
        return ""
    each = found["sections"]["rates"]["flops"][f"convolution {precision}"] / seconds(rate)
    return ratio(taken / (flops / each))


def _first(name: str) -> str:
    """`LPIPS` of `LPIPS: lpips`, `512 px` of `512 px: plain Gatys loop`."""
    return name.split(":", maxsplit=1)[0]


def _memory_row(name: str, told: Found) -> list[str]:
    if told.get("peak_mib") is None:
        return [name, told.get("error", "not told"), ""]
    return [name, f"{told['peak_mib']:.0f} MiB", f"{told['peak_mib'] / told['predicted_mib']:.2f}"]
