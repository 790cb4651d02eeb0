import csv
import io

import torch
import torch.nn.functional as F

from vggfeat.files import csv_text
from vggfeat.training.evaluation import Evaluation, tally


def test_counts_and_loss_are_those_of_the_whole():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(20, 3, generator=generator), torch.randint(0, 3, (20,), generator=generator)
    batches = [(logits[:8], labels[:8]), (logits[8:], labels[8:])]
    loss, confusion = tally(lambda x: x, batches, 3)
    torch.testing.assert_close(loss.float(), F.cross_entropy(logits, labels, reduction="sum"))
    expected = torch.zeros(3, 3, dtype=torch.int64)
    for label, found in zip(labels, logits.argmax(1), strict=True):
        expected[label, found] += 1
    assert torch.equal(confusion, expected)


def test_shares_and_tables():
    found = Evaluation(("cat", "dog", "a, b"), 0.5, torch.tensor([[3, 1, 0], [0, 2, 2], [0, 0, 0]]))
    assert found.accuracy == 5 / 8
    assert found.class_accuracy == {"cat": 0.75, "dog": 0.5, "a, b": 0.0}
    assert found.confusion_csv() == ',cat,dog,"a, b"\ncat,3,1,0\ndog,0,2,2\n"a, b",0,0,0\n'
    assert found.classes_csv().splitlines()[1] == "cat,4,3,0.750000"
    assert found.as_dict()["confusion"][1] == [0, 2, 2]


def test_a_csv_table_of_any_name_is_read_back():
    names = ["a\rb", "a\nb", 'a"b', "a,b", " a"]
    text = csv_text(["class", "accuracy"], [(name, 0.5) for name in names])
    assert "\r\n" not in text
    assert [row["class"] for row in csv.DictReader(io.StringIO(text, newline=""))] == names
