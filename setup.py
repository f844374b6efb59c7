"""The compiled part of the install; everything else stands in setup.cfg."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "memoair_index.kernel._compiled",
            ["memoair_index/kernel/_compiled.c"],
            # A fused multiply-add rounds once where the kernel of NumPy rounds twice, and both must agree.
            extra_compile_args=["-O2", "-ffp-contract=off"],
            optional=True,  # where there is no compiler the install goes on, and recall runs on NumPy
        )
    ]
)
