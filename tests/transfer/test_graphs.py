"""The whole of a painting step, with its evaluation and gradient, is one graph."""

import pytest
import torch

from vggfeat.transfer import optimise
from vggfeat.transfer.history import ListedHistory, StackedHistory
from vggfeat.transfer.named import recipe
from vggfeat.transfer.run import stylize


@pytest.mark.parametrize(
    ("objective", "history"),
    [(name, ListedHistory) for name in ("gram", "gram+meanstd", "covariance", "nn")] + [("gram", StackedHistory)],
)
def test_a_step_is_one_graph(objective, history, monkeypatch):
    monkeypatch.setattr(optimise, "remember", history)
    taken = []

    def backend(graph, _):
        taken.append(graph)
        return graph.forward

    picture = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    small = recipe("default", network="vgg16", content_layers={"relu3_1": 1}, style_layers={"relu1_1": 1, "relu2_1": 1},
                   objective=objective, steps=2)  # fmt: skip
    run = stylize(picture, picture.flip(3), small, device="cpu", precision="float32")
    compiled, plain = (run.make_optimiser(1, None) for _ in range(2))
    torch._dynamo.reset()  # noqa: SLF001
    with torch._dynamo.config.patch(trace_autograd_ops=True):  # noqa: SLF001
        torch.compile(compiled.step, backend=backend, fullgraph=True)()
    plain.step()
    assert len(taken) == 1
    assert "pair.0.s" in plain.state()
    torch.testing.assert_close(compiled.state(), plain.state(), rtol=1e-3, atol=1e-5)
