"""Find texts that stand in the reviews more than once, by numbers alone.

Letters: N reviews.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Repeats:
    """Which of N reviews can't be used because of another; no review is in two of these.

    Attributes:
        two_labels: The text stands under two labels, bool, shape (N,).
        again: The text stands on the same side further up, bool, shape (N,).
        in_both_sides: A training text that is also in the test side, bool, shape (N,).
    """

    two_labels: np.ndarray
    again: np.ndarray
    in_both_sides: np.ndarray


def find_repeats(keys: np.ndarray, label_ids: np.ndarray, in_test: np.ndarray) -> Repeats:
    """Find texts that stand there more than once.

    Args:
        keys: Each text as a number, uint64, shape (N,).
        label_ids: Its class, shape (N,).
        in_test: Whether it is on the test side, bool, shape (N,); training rows come first.
    """
    masks = [np.zeros(len(keys), dtype=np.bool_) for _ in range(3)]
    if not len(keys):
        return Repeats(*masks)
    # The same texts side by side, and in each such group training rows first, each side in its order.
    order = np.argsort(keys, kind="stable")
    keys, label_ids, in_test = keys[order], label_ids[order], in_test[order]
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    sizes = np.diff(np.append(starts, len(keys)))
    differ = np.minimum.reduceat(label_ids, starts) != np.maximum.reduceat(label_ids, starts)
    two_labels = np.repeat(differ, sizes)
    first = np.append(True, (keys[1:] != keys[:-1]) | (in_test[1:] != in_test[:-1]))
    again = ~two_labels & ~first
    group_in_test = np.repeat(in_test[starts + sizes - 1], sizes)
    in_both_sides = ~two_labels & first & ~in_test & group_in_test
    for mask, found in zip(masks, (two_labels, again, in_both_sides), strict=True):
        mask[order] = found
    return Repeats(*masks)
