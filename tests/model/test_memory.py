import platform
import resource

import pytest
import torch

from review_sentiment.model.memory import freed_memory_kept

BYTES = 200 * 2**20


def pages_filled():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(BYTES // 4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library is left as it is")
def test_freed_memory_serves_again_for_a_while():
    every_time = pages_filled()
    with freed_memory_kept():
        pages_filled()
        assert pages_filled() < every_time / 10
    assert pages_filled() > every_time / 10
