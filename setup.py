"""Puts the configs, a folder at the root of the repository, into the package that is built: attention_zoo/configs."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """The building of the packages; an editable install reads the repository's own folder."""

    def run(self) -> None:
        """Copy the packages, and the configs into the first of them."""
        super().run()
        if not self.editable_mode:
            configs = Path(self.build_lib, "attention_zoo", "configs")
            shutil.rmtree(configs, ignore_errors=True)  # of an earlier build
            shutil.copytree("configs", configs)


setup(cmdclass={"build_py": BuildWithConfigs})
