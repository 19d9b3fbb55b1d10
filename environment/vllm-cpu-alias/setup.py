"""Puts torchvision_cpu_shim.pth beside the module, at the top of site-packages.

No declarative setting does: data_files go below sys.prefix, package_data needs a package.
"""

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithPth(build_py):
    def run(self) -> None:
        super().run()
        self.copy_file("torchvision_cpu_shim.pth", self.build_lib)


setup(cmdclass={"build_py": BuildWithPth})
