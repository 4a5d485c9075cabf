"""Kedro datasets of this project: readers of reviews and encoders, and writers that leave no half-written version."""
