"""Keep memory that is freed for the next step, instead of giving it back to the system."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# Options of mallopt(3), and the values that glibc's own adjusting ends at.
_TRIM_THRESHOLD, _MMAP_MAX, _MMAP_THRESHOLD = -1, -4, -3
_NEVER = -1
_USUAL = {_MMAP_MAX: 65_536, _MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20}


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let glibc keep what is freed, for a while; another C library is left as it is.

    A training step allocates and frees the same gigabyte again and again. By default glibc asks the system for each
    large block and gives it back at once, and the system fills each of its pages with zeros, which can take as long as
    the products.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        for option, value in _USUAL.items():
            library.mallopt(option, value)
        library.malloc_trim(0)
