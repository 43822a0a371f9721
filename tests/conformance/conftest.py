"""Short files in every container; the fixtures are described in ``tests/tag_samples.py``."""

from tests.tag_samples import decoded, digest, left_over, make, png, pytest_generate_tests, samples

__all__ = ["decoded", "digest", "left_over", "make", "png", "pytest_generate_tests", "samples"]
