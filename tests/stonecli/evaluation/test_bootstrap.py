import numpy as np
import pytest

from stonecli.evaluation.bootstrap import resampled_means, sign_flip_p_value


class TestResampledMeans:
    def test_means_of_two_tracks_have_three_values_in_known_shares(self) -> None:
        drawn = resampled_means(np.array([[0.0], [1.0]]), 20_000, np.random.default_rng(3))[:, 0]
        values, counts = np.unique(drawn, return_counts=True)
        assert values.tolist() == [0.0, 0.5, 1.0]
        assert counts / 20_000 == pytest.approx([0.25, 0.5, 0.25], abs=0.015)

    def test_columns_are_drawn_together(self) -> None:
        points = np.array([[1.0, 0.0], [0.0, 1.0], [0.3, 0.7]])
        drawn = resampled_means(points, 500, np.random.default_rng(0))
        assert drawn.sum(axis=1) == pytest.approx(np.ones(500))
        assert np.unique(drawn[:, 0]).size > 5


class TestSignFlip:
    @pytest.mark.parametrize(
        ("differences", "p_value"),
        [
            ([], 1.0),
            ([0, 0], 1.0),
            ([1.0], 1.0),
            ([1.0] * 5, 2 / 32),
            ([1.0, 1.0, 1.0, -1.0], 10 / 16),  # sums of four signs: 4, 2, 0, -2, -4 in 1, 4, 6, 4, 1 ways
            ([0.5, 0.3], 2 / 4),  # 0.8, 0.2, -0.2, -0.8
            ([0.5, -0.3], 1.0),
            ([0.5, -0.3, 0.0, 1.0], 4 / 8),  # +-0.5 +-0.3 +-1: of 1.8, 1.2, 0.8, 0.2 two are at least 1.2
            ([0.7] * 3 + [0.2], 2 / 16),
        ],
    )
    def test_sign_flip_test_by_hand(self, differences: list[float] | list[int], p_value: float) -> None:
        assert sign_flip_p_value(np.array(differences, dtype=float)) == p_value

    def test_sign_flip_test_of_many_tracks(self) -> None:
        # 60 of 100 tosses or more, twice: 0.0569 (binomial).
        assert sign_flip_p_value(np.repeat([1.0, -1.0], [60, 40])) == pytest.approx(0.05689, abs=1e-5)
        assert sign_flip_p_value(np.ones(3000)) < 1e-300
