"""The wheel, built from a copy of the sources and installed outside of them, does the project's main job by itself."""

import os
import shutil
import site
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.processes import ROOT

LEFT_OUT = (".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "build", "runs", "results")
"""What the root of the repository may have that is no source of the wheel."""
CHECKED = [
    "tests/cli/test_loggers.py::test_csv_is_in_the_run_folder_wherever_that_is",
    "tests/cli/test_compat.py",
    "tests/attention_zoo/test_registry.py",
    "tests/attention_zoo/test_mmseg.py::test_bad_input",
]
"""What shows that the project starts, trains, goes on and reports, and that what it has of others is where it was."""
TESTING = ["pytest>=9", "hypothesis>=6.170"]
COMMIT = ["-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qm", "all"]


def call(*command, cwd, **more):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def built(sources, folder):
    """The wheel of some sources."""
    call(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, sources, cwd=sources)
    (wheel,) = folder.glob("*.whl")
    return wheel


def main_job(python, work):
    """Train and test with configs that are found by name."""
    script = "import sys; from attention_zoo.__main__ import main; main(sys.argv[1:])"
    small = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.accelerator", "cpu"]
    named = ["--config", "classification/digits.yaml", "--config", "mixers/vars_d.yaml"]
    call(python, "-c", script, "fit", *named, *small, cwd=work)
    said = call(python, "-m", "attention_zoo", "test", "--ckpt_path", "last", cwd=work)
    assert "test/acc" in said or "top1" in said


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources") / "copy"

    def left_out(folder, names):
        return [n for n in names if n == "__pycache__" or (Path(folder) == ROOT and (n in LEFT_OUT or "egg-info" in n))]

    return shutil.copytree(ROOT, folder, ignore=left_out)


@pytest.fixture(scope="module")
def wheel(sources, tmp_path_factory):
    return built(sources, tmp_path_factory.mktemp("wheel"))


@pytest.mark.slow
def test_the_wheel_has_the_configs_and_a_version_without_history(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    configs = {name.removeprefix("attention_zoo/") for name in names if name.startswith("attention_zoo/configs/")}
    assert configs == {str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.yaml")}
    assert not [name for name in names if name.partition("/")[0] in ("tests", "results", "configs", "benchmarks")]
    fallback = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools_scm"]["fallback_version"]
    assert wheel.name.split("-")[1] == fallback


@pytest.mark.slow
def test_a_tag_gives_the_version(sources, tmp_path):
    copy = shutil.copytree(sources, tmp_path / "tagged", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    for words in (["init", "-q"], ["add", "."], COMMIT, ["tag", "v7.8.9"]):
        call("git", *words, cwd=copy)
    assert built(copy, tmp_path / "wheel").name.split("-")[1] == "7.8.9"


@pytest.mark.slow
def test_the_main_job_from_the_wheel_alone(wheel, tmp_path):
    """The libraries are those of this environment; the project itself is not to be seen there."""
    call(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env", cwd=tmp_path)
    (packages,) = (tmp_path / "env").glob("lib/*/site-packages")
    call(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", packages, wheel, cwd=tmp_path)
    python, work = tmp_path / "env/bin/python", tmp_path / "work"
    (packages / "libraries.pth").write_text("\n".join(site.getsitepackages()))
    work.mkdir()
    where = "import attention_zoo, tasks, datamodules as d; print(attention_zoo.__file__, tasks.__file__, d.__file__)"
    assert all(Path(path).is_relative_to(packages) for path in call(python, "-c", where, cwd=work).split())

    main_job(python, work)
    assert "VarsD" in call(python, "-m", "attention_zoo", "mixers", cwd=work)


@pytest.mark.slow
def test_the_main_job_with_the_oldest_versions(wheel, tmp_path):
    """Of every dependency the version of its floor, in an environment of its own: gigabytes, most of them torch's."""
    if find_spec("uv") is None:
        pytest.skip("needs uv, which can install the oldest versions: pip install uv")
    uv, python, work = (sys.executable, "-m", "uv"), tmp_path / "env/bin/python", tmp_path / "work"
    call(*uv, "venv", "-q", "--python", sys.executable, tmp_path / "env", cwd=tmp_path)
    floors = ("--resolution", "lowest-direct", "-r", ROOT / "pyproject.toml", wheel, *TESTING)
    try:
        call(*uv, "pip", "install", "-q", "--python", python, *floors, cwd=tmp_path)
    except AssertionError as failed:
        if "Failed to fetch" in str(failed):
            pytest.skip("needs the package index")
        raise
    work.mkdir()
    main_job(python, work)
    call(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *CHECKED, cwd=ROOT)


def test_the_console_script_is_the_same_program():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"attention-zoo": "attention_zoo.__main__:main"}
