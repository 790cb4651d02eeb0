import math

import pytest

from vggfeat.errors import LayerError, RecipeError
from vggfeat.training.recipe import TrainingRecipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "cosin"}, "unknown schedule 'cosin': did you mean cosine"),
        ({"epochs": 0}, "epochs is 0: it must be a whole number between 1 and 100000"),
        ({"epochs": 2.5}, "epochs is 2.5: it must be a whole number"),
        ({"batch_size": True}, "batch size is True: it must be a whole number"),
        ({"held_out": math.nan}, "held out is nan"),
        ({"size": 31}, "size is 31: A needs at least 32 pixels a side"),
        ({"freeze": "block6"}, "unknown blocks 'block6' of A: it has block1 to block5"),
        ({"network": "vgg12"}, "unknown network 'vgg12'"),
    ],
)
def test_refusals(changes, message):
    with pytest.raises((RecipeError, LayerError)) as caught:
        TrainingRecipe(**changes)
    assert message in str(caught.value)


def test_the_network_is_varied():
    recipe = TrainingRecipe(network="8,M,16", batch_norm=True, activation="leaky_relu", slope=0.2)
    assert recipe.architecture().name == "8,M,16+bn+leaky_relu:0.2"
    assert TrainingRecipe(slope=0.2).architecture().name == "A"  # the slope is that of leaky_relu


def test_blocks_freeze():
    frozen = [layer.name for layer in TrainingRecipe(network="A", freeze="block1-2").frozen_layers()]
    assert frozen == ["conv1_1", "relu1_1", "pool1", "conv2_1", "relu2_1", "pool2"]


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("cosine", [0.0, 0.5, 1.0, 0.75, 0.25, 0.0]),
        ("step", [0.0, 0.5, 1.0, 0.5, 0.25, 0.25]),
        ("constant", [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_schedules(schedule, rates):
    recipe = TrainingRecipe(
        schedule=schedule, learning_rate=1.0, epochs=5, warmup=2.0, step_epochs=3.0 if schedule == "step" else 1.0,
        step_factor=0.5,
    )  # fmt: skip
    epochs = {"cosine": [0, 1, 2, 3, 4, 5], "step": [0, 1, 2, 3, 6, 8.9], "constant": range(6)}[schedule]
    assert [recipe.rate(epoch) for epoch in epochs] == pytest.approx(rates)
    assert TrainingRecipe(warmup=0.0, learning_rate=1.0).rate(0) == 1.0
