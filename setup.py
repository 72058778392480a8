"""Builds the Python package: metadata, and a thin driver for CMake, which builds the native module.

The metadata is here and not in pyproject.toml because the setuptools of Debian 12 refuses today's form of it.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


class CMakeBuild(build_ext):
    """Runs CMake instead of a compiler."""

    def build_extension(self, ext: Extension) -> None:
        out = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        tree = Path(self.build_temp).resolve()
        configure = ["cmake", "-S", str(ROOT), "-B", str(tree), "-DCF_BUILD_PYTHON=ON", f"-DCF_PY_OUT={out}"]
        configure.append(f"-DPython3_EXECUTABLE={sys.executable}")
        configure.append(f"-DCMAKE_BUILD_TYPE={'Debug' if self.debug else 'RelWithDebInfo'}")
        self.spawn([*configure, *os.environ.get("COUNTERFOIL_CMAKE_ARGS", "").split()])
        jobs = str(min(4, os.cpu_count() or 1))
        self.spawn(["cmake", "--build", str(tree), "--target", "counterfoil_python", "--parallel", jobs])


setup(
    name="counterfoil",
    version=(ROOT / "VERSION").read_text().strip(),
    description="Keeps sessions, one-time codes and tokens: each with a life to the millisecond and exactly one winner",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    package_dir={"": "python"},
    packages=[
        "counterfoil", "counterfoil.adapters", "counterfoil.express", "counterfoil.interfaces", "counterfoil.testing",
    ],
    py_modules=["counterfoil_pytest"],  # beside the package: pytest loads it wherever this is installed
    entry_points={"pytest11": ["counterfoil = counterfoil_pytest"]},
    package_data={"counterfoil": ["py.typed", "*.pyi"]},
    ext_modules=[Extension("counterfoil._native", sources=[], py_limited_api=True)],
    cmdclass={"build_ext": CMakeBuild},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
    zip_safe=False,
    classifiers=["Programming Language :: Python :: 3", "Programming Language :: C", "Typing :: Typed"],
)
