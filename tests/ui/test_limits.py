import pytest

from vggfeat import ImageError, InputError
from vggfeat.ui.limits import Limits, read_upload, sent_file


def test_a_picture_comes_in_with_its_name(send):
    upload = send("my photo.png", 5, 7)
    assert upload.name == "my photo.png"
    assert upload.picture.rgb.shape == (1, 3, 5, 7)
    assert send("clear.png", alpha=True).picture.alpha is not None


@pytest.mark.parametrize("payload", [None, {}])
def test_a_missing_picture_is_named_by_its_role(payload, folder):
    with pytest.raises(InputError, match="there is no content"):
        read_upload(payload, "content", folder, Limits())


def test_only_what_was_sent_is_read(folder, tmp_path, send):
    send("photo.png")
    (tmp_path / "secret.png").write_bytes((folder / "photo.png").read_bytes())
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    for path in (tmp_path / "secret.png", folder / "../secret.png", folder / "link.png", folder, "/etc/passwd"):
        with pytest.raises(InputError, match="no longer on the server") as error:
            sent_file({"path": str(path)}, "picture", folder)
        assert str(tmp_path) not in str(error.value)


def test_what_is_no_picture_or_too_large_is_told_without_a_folder(folder, tmp_path, send):
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    (folder / "empty.png").write_bytes(b"")
    (folder / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    send("photo.png")
    cases = {"broken.jpg": "broken.jpg", "empty.png": "empty", "drawing.svg": "not a picture"}
    for name, words in cases.items():
        with pytest.raises(ImageError, match=words) as error:
            read_upload({"path": str(folder / name)}, "picture", folder, Limits())
        assert str(tmp_path) not in str(error.value)
    with pytest.raises(ImageError, match="the limit is 3071"):
        read_upload({"path": str(folder / "photo.png")}, "picture", folder, Limits(pixels=3071))
    read_upload({"path": str(folder / "photo.png")}, "picture", folder, Limits(pixels=3072))
    with pytest.raises(ImageError, match="limit of 0 MB"):
        read_upload({"path": str(folder / "photo.png")}, "picture", folder, Limits(megabytes=0))
