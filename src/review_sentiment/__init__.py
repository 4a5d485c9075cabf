"""Fine-tune a review classifier on an ordinary CPU, and say honestly how good it is."""

__version__ = "0.1.0"
