"""Where commands write: nothing that is there is written over unasked, be it a broken link."""

import pytest

FILES = {
    "export": ["--ckpt_path", "gone.ckpt", "--format", "torch", "--out", "out.png"],
    "maps": ["image.png", "--out", "out.png"],
}
FOLDERS = {
    "export": ["--ckpt_path", "gone.ckpt", "--format", "huggingface", "--out"],
    "premises": ["--ckpt_path", "gone.ckpt", "--out"],
    "decode": ["image.png", "--ckpt_path", "gone.ckpt", "--out"],
    "bench": ["DotProduct", "--out"],
}


@pytest.mark.parametrize("command", FILES)
def test_a_broken_link_is_not_written_over(zoo, tmp_path, command):
    link = tmp_path / "out.png"
    link.symlink_to("elsewhere/not_mounted")
    ended = zoo(command, *FILES[command])
    assert ended.code == 2
    assert ended.err == "error: out.png exists; choose another file with --out, or give --overwrite true\n"
    assert link.is_symlink()


@pytest.mark.parametrize("command", FILES)
def test_a_folder_is_no_file_to_overwrite(zoo, tmp_path, command):
    (tmp_path / "out.png").mkdir()
    ended = zoo(command, *FILES[command], "--overwrite", "true")
    assert (ended.code, ended.err) == (2, "error: out.png is a folder; choose a file with --out\n")


@pytest.mark.parametrize("command", FOLDERS)
def test_folders_that_cannot_be(zoo, tmp_path, command):
    (tmp_path / "out").symlink_to("elsewhere/not_mounted")
    ended = zoo(command, *FOLDERS[command], "out")
    assert (ended.code, ended.err) == (2, "error: out is a file; choose a folder with --out\n")
    ended = zoo(command, *FOLDERS[command], "")
    assert (ended.code, ended.err) == (2, "error: out is empty; name a path (the working folder is .)\n")
