"""Build the C extension; all other package metadata is in setup.cfg."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "memoair_index.kernel._compiled",
            ["memoair_index/kernel/_compiled.c"],
            # A fused multiply-add rounds once where the NumPy kernel rounds twice, and both must agree.
            extra_compile_args=["-O2", "-ffp-contract=off"],
            optional=True,  # without a compiler the installation continues, and recall runs on NumPy
        )
    ]
)
