import subprocess
import sys


def test_others_need_a_password(vggfeat):
    assert "--host 0.0.0.0 lets other machines connect" in vggfeat("ui", "--host", "0.0.0.0", code=2).stderr  # noqa: S104 (tested)
    assert "--auth must be USER:PASSWORD" in vggfeat("ui", "--auth", "ann", code=2).stderr


def test_a_missing_extra_is_named(vggfeat, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert 'pip install "vggfeat[ui]"' in vggfeat("ui", code=2).stderr


def test_help_needs_neither_torch_nor_gradio():
    code = "import sys; from vggfeat_cli import ui; sys.exit('torch' in sys.modules or 'gradio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
