from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402

from stonecli.key import Key  # noqa: E402
from stonecli_train.config import TrainConfig  # noqa: E402
from stonecli_train.data import NO_KEY_INDEX, Batch  # noqa: E402
from stonecli_train.losses import (  # noqa: E402
    mode_pseudo_labels,
    published_mode_labels,
    rotated_chroma,
    tonic_offset,
)
from stonecli_train.views import (  # noqa: E402
    batch_chroma,
    batch_loss,
    class_names,
    label_indices,
    label_profiles,
    mean_teacher_loss,
    network_input,
    pseudo_label_profiles,
    relative_rows,
    segment_chroma,
    view_inputs,
)

Config = Callable[..., TrainConfig]
LOSSES = ["stone", "semi_tone", "skey", "cross_entropy"]
LARGE_LOGIT = 60.0  # makes all other probabilities zero
EVERY_SHIFT = [(plain, other) for plain in range(16) for other in range(16) if 0 < abs(plain - other) <= 11]


def batch_of(labels: list[int], shifts: list[tuple[int, int]]) -> Batch:
    """A batch with the given labels; without any, it is unlabeled. Its segments are not used."""
    rows = torch.zeros(len(shifts), 1, 99, dtype=torch.uint8)
    return Batch(
        rows,
        torch.empty(0, dtype=torch.uint8) if labels else rows,
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(shifts),
    )


def sure(indices: Tensor, classes: int) -> Tensor:
    return LARGE_LOGIT * torch.nn.functional.one_hot(indices, classes).float()


# --- crops ------------------------------------------------------------------------------------------------------------


def test_a_crop_is_a_transposition(tiny_config: Config) -> None:
    config = tiny_config(input__frames_averaged=1)
    segments = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 20, 99)).astype(np.uint8))
    inputs = network_input(segments, torch.tensor([0, 4, 15]), config)
    assert inputs.shape == (3, 1, 84, 20)
    assert inputs.dtype == torch.float32
    for row, shift in enumerate((0, 4, 15)):
        expected = segments[row, :, shift : shift + 84].T.float() / 255
        torch.testing.assert_close(inputs[row, 0], expected, atol=1e-7, rtol=0)


def test_frames_are_averaged(tiny_config: Config) -> None:
    segments = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 22, 99)).astype(np.uint8))
    inputs = network_input(segments, torch.tensor([2]), tiny_config(input__frames_averaged=4))
    assert inputs.shape == (1, 1, 84, 5)
    expected = segments[0, :20, 2:86].float().reshape(5, 4, 84).mean(1).T / 255
    torch.testing.assert_close(inputs[0, 0], expected, atol=1e-6, rtol=0)


def test_the_views(tiny_config: Config) -> None:
    config = tiny_config("semi_tone")
    rng = np.random.default_rng(1)
    first, second = (torch.from_numpy(rng.integers(0, 256, (2, 40, 99)).astype(np.uint8)) for _ in range(2))
    shifts = torch.tensor([[0, 3], [9, 1]])
    nothing = torch.empty(0, dtype=torch.int64)
    unlabeled = view_inputs(Batch(first, second, nothing, shifts), config)
    expected = [(first, shifts[:, 0]), (second, shifts[:, 0]), (first, shifts[:, 1])]
    assert torch.equal(unlabeled, torch.stack([network_input(*pair, config) for pair in expected]))
    labeled = Batch(first, torch.empty(0), torch.tensor([0, 1]), shifts)
    assert torch.equal(view_inputs(labeled, config), unlabeled[[0, 2]])
    assert torch.equal(view_inputs(labeled, tiny_config("cross_entropy")), unlabeled[:1])


@pytest.mark.parametrize("shift", [0, 1, 7, 15])
def test_a_certain_pseudo_label_equals_a_label(shift: int, tiny_config: Config) -> None:
    config = tiny_config("cross_entropy", loss__smoothing=0.0)
    labels, shifts = torch.arange(24), torch.full((24,), shift)
    pseudo_labels = functional.one_hot(labels, 24).float()
    assert torch.equal(pseudo_label_profiles(pseudo_labels, shifts), label_profiles(labels, shifts, config))


def test_pseudo_labels_are_cross_entropy_on_one_view(tiny_config: Config) -> None:
    config = tiny_config("cross_entropy", loss__unlabeled="pseudo_labels", loss__unlabeled_weight=0.5)
    pseudo_labels = torch.tensor([[0.75] + [0.25 / 23] * 23])
    batch = replace(batch_of([], [(2, 9)]), second=torch.empty(0, dtype=torch.uint8), pseudo_labels=pseudo_labels)
    assert view_inputs(batch, config).shape[0] == 1
    logits = torch.randn(1, 1, 24, generator=torch.Generator().manual_seed(0))
    expected = -(pseudo_label_profiles(pseudo_labels, torch.tensor([2])) * torch.log_softmax(logits[0], dim=-1)).sum()
    terms = batch_loss(logits, None, batch, config)
    torch.testing.assert_close(terms["total"], 0.5 * expected)


# --- indices of labels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_class_names_have_the_order_of_the_labels(loss: str, tiny_config: Config) -> None:
    config = tiny_config(loss)
    names = class_names(config)
    labels = torch.arange(24)
    indices = label_indices(labels, torch.zeros(24, dtype=torch.int64), config)
    for label, index in zip(labels.tolist(), indices.tolist(), strict=True):
        assert Key.from_index(label) in [Key.parse(name) for name in names[index].split("/")]
    assert len(set(indices.tolist())) == len(names) == (12 if loss == "stone" else 24)
    assert names[0].startswith("A major")  # the lowest bin is an A


@settings(max_examples=200, deadline=None)
@given(loss=st.sampled_from(LOSSES), label=st.integers(0, 23), shift=st.integers(0, 15), more=st.integers(-15, 15))
def test_positions_are_shifted_by_the_crop(tiny_config: Config, loss: str, label: int, shift: int, more: int) -> None:
    """Cropping n bins more sounds n semitones lower: the index is that of the key n semitones below."""
    config = tiny_config(loss)

    def place(key: Key, crop: int) -> int:
        return int(label_indices(torch.tensor([key.index]), torch.tensor([crop]), config)[0])

    key = Key.from_index(label)
    assert place(key, shift + more) == place(key.transposed(-more), shift)
    row, column = divmod(place(key, shift), 12)
    assert place(key, shift + more) == 12 * row + (column - more) % 12


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("smoothing", [0.0, 0.14, 0.5])
def test_soft_labels_sum_to_one(loss: str, smoothing: float, tiny_config: Config) -> None:
    config = tiny_config(loss, loss__smoothing=smoothing)
    labels = torch.arange(24)
    profiles = label_profiles(labels, labels % 16, config)
    torch.testing.assert_close(profiles.sum(1), torch.ones(24), atol=1e-6, rtol=0)
    assert torch.equal(profiles.argmax(1), label_indices(labels, labels % 16, config))
    soft = loss == "cross_entropy" and smoothing > 0
    assert ((profiles > 0).sum(1) == (5 if soft else 1)).all()


@pytest.mark.parametrize("label", range(24))
def test_soft_labels_share_as_mirex_scores(label: int, tiny_config: Config) -> None:
    config = tiny_config("cross_entropy", loss__smoothing=0.2)
    profile = label_profiles(torch.tensor([label]), torch.tensor([0]), config)[0].tolist()
    names = class_names(config)
    key = Key.from_index(label)
    # 0.5 for each fifth, 0.3 for the relative and 0.2 for the parallel are 1.5 in all, of which 0.2 is shared out.
    expected = {
        key: 0.8,
        key.transposed(7): 0.2 * 0.5 / 1.5,
        key.transposed(5): 0.2 * 0.5 / 1.5,
        key.relative: 0.2 * 0.3 / 1.5,
        key.parallel: 0.2 * 0.2 / 1.5,
    }
    assert {Key.parse(name): value for name, value in zip(names, profile, strict=True) if value} == pytest.approx(
        expected
    )


# --- losses of batches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("circle", [1, 7])
@pytest.mark.parametrize("loss", ["stone", "semi_tone", "skey"])
def test_right_answers_at_both_crops_have_no_loss(loss: str, circle: int, tiny_config: Config) -> None:
    """Labeled: confident logits at the label's index for the plain and the transposed crop."""
    config = tiny_config(loss, loss__circle=circle)
    shifts = EVERY_SHIFT
    labels = [(7 * number) % 24 for number in range(len(shifts))]
    batch = batch_of(labels, shifts)
    indices = [label_indices(batch.labels, batch.shifts[:, view], config) for view in range(2)]
    classes = 12 * config.network.rows
    logits = torch.stack([sure(index, classes) for index in indices])
    terms = batch_loss(logits, None, batch, config)
    assert terms["total"].item() == pytest.approx(0, abs=1e-6)
    wrong = torch.stack([logits[0], torch.roll(logits[1], 1, dims=1)])
    assert batch_loss(wrong, None, batch, config)["total"].item() > 0.4
    swapped = torch.stack([logits[1], logits[0]])
    assert batch_loss(swapped, None, batch, config)["total"].item() > 0.4


@pytest.mark.parametrize("circle", [1, 7])
@pytest.mark.parametrize("loss", ["stone", "semi_tone", "skey"])
def test_answers_transposed_as_their_crops_have_no_loss(loss: str, circle: int, tiny_config: Config) -> None:
    """Unlabeled: the network predicts a key d semitones lower if d more bins are cropped."""
    config = tiny_config(loss, loss__circle=circle)
    batch = batch_of([], EVERY_SHIFT)
    plain, transposed = batch.shifts[:, 0], batch.shifts[:, 1]
    tonic = torch.arange(len(plain)) * 5 % 12
    row = 12 * (torch.arange(len(plain)) % 2) if config.network.rows == 2 else 0
    classes = 12 * config.network.rows

    def at(shift: Tensor, sign: int = 1) -> Tensor:
        return sure((tonic - sign * shift) % 12 + row, classes)

    chroma = torch.rand(len(plain), 12)
    right = batch_loss(torch.stack([at(plain), at(plain), at(transposed)]), chroma, batch, config)
    assert right["key"].item() == pytest.approx(0, abs=1e-6)
    if loss == "semi_tone":
        assert right["mode"].item() == pytest.approx(0, abs=1e-6)
    mirrored = torch.stack([at(plain, -1), at(plain, -1), at(transposed, -1)])
    assert batch_loss(mirrored, chroma, batch, config)["key"].item() > 1
    still = torch.stack([at(plain), at(plain), at(plain)])
    assert batch_loss(still, chroma, batch, config)["key"].item() > 1


def test_cross_entropy_of_a_batch(tiny_config: Config) -> None:
    config = tiny_config("cross_entropy", loss__smoothing=0.0)
    labels = list(range(24))
    batch = batch_of(labels, [(label % 16, 0) for label in labels])
    right = sure(label_indices(batch.labels, batch.shifts[:, 0], config), 24)
    assert batch_loss(right[None], None, batch, config)["total"].item() == pytest.approx(0, abs=1e-6)
    flat = batch_loss(torch.zeros(1, 24, 24), None, batch, config)["total"].item()
    assert flat == pytest.approx(math.log(24), abs=1e-5)


@pytest.mark.parametrize("loss", ["stone", "semi_tone", "skey"])
def test_labeled_batches_have_a_weight(loss: str, tiny_config: Config) -> None:
    batch = batch_of([3, 17], [(0, 5), (7, 2)])
    logits = torch.randn(2, 2, 12 if loss == "stone" else 24, generator=torch.Generator().manual_seed(0))
    one, three = (
        batch_loss(logits, None, batch, tiny_config(loss, loss__labeled_weight=weight)) for weight in (1.0, 3.0)
    )
    assert three["total"].item() == pytest.approx(3 * one["total"].item(), rel=1e-6)
    assert three["key"].item() == one["key"].item()


def test_the_settings_reach_the_losses(tiny_config: Config) -> None:
    batch = batch_of([], [(0, 5), (7, 2)])
    generator = torch.Generator().manual_seed(0)
    logits, chroma = torch.randn(3, 2, 24, generator=generator), torch.rand(2, 12, generator=generator)

    def terms(loss: str, **changes: Any) -> dict[str, float]:
        values = batch_loss(logits, chroma, batch, tiny_config(loss, **changes))
        return {name: value.item() for name, value in values.items()}

    assert terms("semi_tone", loss__circle=1)["key"] != pytest.approx(terms("semi_tone", loss__circle=7)["key"])
    semi = terms("semi_tone", loss__mode_weight=4.0)
    assert semi["total"] == pytest.approx(semi["key"] + 4 * semi["mode"])
    skey = terms("skey", loss__skey_weights=[2.0, 3.0, 5.0])
    assert skey["total"] == pytest.approx(2 * skey["key"] + 1.5 * 3 * skey["mode"] + 20 * 5 * skey["balance"])


def test_cross_entropy_on_unlabeled_tracks_compares_views(tiny_config: Config) -> None:
    """The loss is zero if all three views agree on one key, and positive if the mode differs."""
    config = tiny_config("cross_entropy", loss__unlabeled_weight=2.0)
    shifts = EVERY_SHIFT
    for label in (0, 4, 12, 19):
        labels = torch.full((len(shifts),), label)
        plain, other = torch.tensor(shifts).T
        at_plain, at_other = label_indices(labels, plain, config), label_indices(labels, other, config)
        logits = torch.stack([sure(at_plain, 24), sure(at_plain, 24), sure(at_other, 24)])
        terms = batch_loss(logits, None, batch_of([], shifts), config)
        assert terms["total"].item() == pytest.approx(0.0, abs=1e-4)
        logits[2] = sure((at_other + 12) % 24, 24)
        terms = batch_loss(logits, None, batch_of([], shifts), config)
        assert terms["mode"].item() > 10
        assert terms["total"].item() == pytest.approx(2 * (terms["key"].item() + 1.5 * terms["mode"].item()), rel=1e-4)


def teacher_and_student_logits(
    keys: list[int], shifts: list[int], confidence: float = LARGE_LOGIT
) -> tuple[Tensor, Tensor]:
    """Logits of a teacher that predicts ``keys`` (indices for the plain crop), and of a network that follows it."""
    indices = torch.tensor(keys)
    moved = (indices % 12 - torch.tensor(shifts)) % 12 + 12 * (indices >= 12)
    return confidence * functional.one_hot(indices, 24).float(), confidence * functional.one_hot(moved, 24).float()


@given(st.lists(st.tuples(st.integers(0, 23), st.integers(-11, 11)), min_size=1, max_size=6))
def test_a_student_that_follows_the_teacher_has_no_loss(rows: list[tuple[int, int]]) -> None:
    keys, shifts = [key for key, _ in rows], [shift for _, shift in rows]
    teacher, followed = teacher_and_student_logits(keys, shifts)
    assert mean_teacher_loss(torch.stack([teacher, teacher, followed]), torch.tensor(shifts), 0.5) < 1e-6
    wrong = torch.roll(followed, 1, dims=1)
    assert mean_teacher_loss(torch.stack([teacher, teacher, wrong]), torch.tensor(shifts), 0.5) > 10.0


def test_a_teacher_with_low_confidence_is_ignored() -> None:
    shifts = torch.tensor([3, 3])
    sure, asked = teacher_and_student_logits([0, 5], [3, 3])
    flat = torch.zeros_like(sure)
    assert mean_teacher_loss(torch.stack([sure, flat, flat]), shifts, 0.6) == 0.0  # the segments' mean: 0.52
    assert mean_teacher_loss(torch.stack([sure, sure, flat]), shifts, 0.6) == pytest.approx(math.log(24.0))
    half_sure = torch.stack([sure[0], flat[1]])
    right_where_sure = torch.stack([asked[0], torch.roll(asked[1], 1)])
    assert mean_teacher_loss(torch.stack([half_sure, half_sure, right_where_sure]), shifts, 0.5) < 1e-6


def test_the_teachers_modes_weigh_the_same() -> None:
    shifts = [0, 0, 0, 0]
    teacher, followed = teacher_and_student_logits([0, 14, 15, 16], shifts)
    followed[0] = 0.0  # the only major row is asked for everything; three minor ones are right
    loss = mean_teacher_loss(torch.stack([teacher, teacher, followed]), torch.tensor(shifts), 0.5)
    assert loss == pytest.approx(math.log(24.0) / 2, abs=1e-4)


def test_the_teacher_gets_no_gradient() -> None:
    logits = torch.randn(3, 4, 24, generator=torch.Generator().manual_seed(0), requires_grad=True)
    mean_teacher_loss(logits, torch.tensor([1, -2, 3, 4]), 0.0).backward()
    assert logits.grad is not None
    assert not logits.grad[:2].any()
    assert logits.grad[2].any()


def test_relative_rows_puts_relative_keys_below_each_other(tiny_config: Config) -> None:
    names = class_names(tiny_config("cross_entropy"))
    turned = relative_rows(torch.eye(24)).argmax(dim=0)  # the output that moved to each index
    for index in range(12):
        major, minor = (Key.parse(names[int(turned[index + row])]) for row in (0, 12))
        assert major.relative == minor


# --- chroma -----------------------------------------------------------------------------------------------------------


def test_skeys_chroma_is_the_mean_of_both_segments(tiny_config: Config) -> None:
    batch = batch_of([], [(0, 5), (7, 2)])
    inputs = torch.rand(3, 2, 1, 84, 4, generator=torch.Generator().manual_seed(0))
    for scale in ("log", "root", "linear"):
        chroma = batch_chroma(inputs, batch, tiny_config("skey", loss__skey_chroma=scale))
        expected = (segment_chroma(inputs[0], scale) + segment_chroma(inputs[1], scale)) / 2
        assert chroma is not None
        torch.testing.assert_close(chroma, expected)
    assert batch_chroma(inputs, batch, tiny_config("semi_tone")) is None
    assert batch_chroma(inputs, batch_of([3, 4], [(0, 5), (7, 2)]), tiny_config("skey")) is None
    with pytest.raises(ValueError, match="chroma"):
        batch_loss(torch.zeros(3, 2, 24), None, batch, tiny_config("skey"))


def test_a_chroma_can_be_of_levels_or_of_magnitudes() -> None:
    # Levels in units of 80 dB of 10 log10 |x|: 1 is 1, 1 - 1/8 a tenth, 1 - 2/8 a hundredth, 0 is 1e-8.
    inputs = torch.zeros(1, 1, 84, 2)
    inputs[0, 0, 3] = 1.0
    inputs[0, 0, 27] = 1.0 - 1 / 8
    inputs[0, 0, 5, 0] = 1.0 - 2 / 8
    expected = torch.full((12,), 1e-8)
    expected[3] = (1.0 + 0.1) / 7
    expected[5] = 0.01 / 2 / 7
    torch.testing.assert_close(segment_chroma(inputs, "linear")[0], expected, atol=1e-7, rtol=1e-4)
    expected = torch.full((12,), 1e-4)
    expected[3] = (1.0 + 0.1**0.5 + 5e-4) / 7
    expected[5] = (0.1 / 2 + 6.5e-4) / 7
    torch.testing.assert_close(segment_chroma(inputs, "root")[0], expected, atol=1e-7, rtol=1e-4)
    expected = torch.zeros(12)
    expected[3], expected[5] = (1.0 + 7 / 8) / 7, 3 / 4 / 2 / 7
    torch.testing.assert_close(segment_chroma(inputs, "log")[0], expected)


def test_the_tonics_that_skey_compares_are_a_setting(tiny_config: Config) -> None:
    """All in C major, predicted as G: the published code compares G with A sharp, the scale method C with A."""
    scale = torch.tensor([0, 2, 4, 5, 7, 9, 11])
    chroma = torch.zeros(4, 12)
    chroma[:, scale] = 1.0
    chroma[:, 7] = 0.5
    chroma[0, 10] = 0.6
    chroma[1, 9] = 1.5
    chroma[2, 0] = 1.5
    logits = sure(torch.full((3, 4), 7), 24)
    batch = batch_of([], [(0, 5)] * 4)
    published = published_mode_labels(chroma, torch.softmax(logits[0], dim=1))
    assert published.tolist() == [0.0, 1.0, 1.0, 1.0]

    def mode(tonic: str) -> float:
        return batch_loss(logits, chroma, batch, tiny_config("skey", loss__skey_tonic=tonic))["mode"].item()

    # The network is sure of the first row: each of the three views costs 80 for every label of the second.
    assert mode("index") == pytest.approx(3 * 80 * 1 / 4, rel=1e-3)
    assert mode("scale") == pytest.approx(3 * 80 * 3 / 4, rel=1e-3)


def test_skeys_pseudo_labels_find_the_mode_of_synthetic_tracks(tiny_config: Config, draw_features: Any) -> None:
    """With a KSP that has the signature right but for a constant, pseudo-labels tell C major from A minor and so on."""
    config = tiny_config("skey", input__frames_averaged=1)
    labels = torch.arange(24)
    segments = torch.from_numpy(
        np.stack([draw_features(Key.from_index(int(label)), 300, int(label)) for label in labels])
    )
    shifts = labels % 16
    inputs = network_input(segments, shifts, config)
    indices = label_indices(labels, shifts, config)
    for constant in (0, 5):
        ksp = torch.nn.functional.one_hot((indices + constant) % 12 + 12 * (indices // 12), 24).float()
        rotated = rotated_chroma(segment_chroma(inputs, "linear"), ksp)
        offset = tonic_offset(rotated)
        assert offset == -constant % 12
        assert mode_pseudo_labels(rotated, offset).tolist() == [1.0] * 12 + [0.0] * 12


def test_the_target_without_a_key_is_uniform(tiny_config: Any) -> None:
    config = tiny_config("cross_entropy")
    labels, shifts = torch.tensor([3, NO_KEY_INDEX]), torch.tensor([0, 5])
    profiles = label_profiles(labels, shifts, config)
    torch.testing.assert_close(profiles[0], label_profiles(labels[:1], shifts[:1], config)[0])
    torch.testing.assert_close(profiles[1], torch.full((24,), 1 / 24))
