import sys

import pytest

from vggfeat import InputError, VggfeatError
from vggfeat.ui import server


@pytest.mark.parametrize(
    ("host", "auth", "expected"),
    [
        ("127.0.0.1", None, None),
        ("localhost", None, None),
        ("127.0.0.1", "a:b", ("a", "b")),
        ("0.0.0.0", "ann:pass:word", ("ann", "pass:word")),  # noqa: S104 (what is tested)
    ],
)
def test_who_may_come_in(host, auth, expected):
    assert server.check_auth(host, auth) == expected


@pytest.mark.parametrize(
    ("host", "auth", "words"),
    [
        ("0.0.0.0", None, "needs --auth"),  # noqa: S104 (what is tested)
        ("192.168.0.5", None, "needs --auth"),
        ("127.0.0.1", "ann", "USER:PASSWORD"),
        ("127.0.0.1", "ann:", "USER:PASSWORD"),
        ("127.0.0.1", ":word", "USER:PASSWORD"),
    ],
)
def test_others_need_a_password(host, auth, words):
    with pytest.raises(InputError, match=words), server.serve(host, auth=auth):
        pass


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(VggfeatError, match=r'pip install "vggfeat\[ui\]"'), server.serve():
        pass
