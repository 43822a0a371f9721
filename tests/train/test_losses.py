from __future__ import annotations

import cmath
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from stonecli_train.losses import (  # noqa: E402
    SKEY_WEIGHTS,
    Views,
    balance_loss,
    binary_cross_entropy,
    cpsd_loss,
    dft,
    first_mode,
    key_loss,
    mode_loss,
    mode_pseudo_labels,
    published_mode_labels,
    rotated_chroma,
    semi_tone_loss,
    signatures,
    skey_loss,
    soft_cross_entropy,
    stone_loss,
    tonic_offset,
)

SHIFTS = [shift for shift in range(-11, 12) if shift]
CIRCLES = pytest.mark.parametrize("circle", [1, 7])


def hot(*places: int, classes: int = 12) -> Tensor:
    """One-hot KSPs [len(places), classes]."""
    return torch.nn.functional.one_hot(torch.tensor(places), classes).float()


def random_ksp(seed: int, batch: int = 5, classes: int = 24) -> Tensor:
    return torch.softmax(2.0 * torch.randn(batch, classes, generator=torch.Generator().manual_seed(seed)), dim=1)


def random_views(seed: int = 0, classes: int = 24) -> Views:
    shift = torch.tensor([-11, -3, 2, 7, 11])
    first, second, third = (random_ksp(seed + index, classes=classes) for index in range(3))
    return Views(first, second, third, shift)


# --- the transform ----------------------------------------------------------------------------------------------------


@CIRCLES
@pytest.mark.parametrize("place", range(12))
def test_a_one_hot_ksp_is_on_the_circle(circle: int, place: int) -> None:
    point = cmath.exp(2j * math.pi * circle * place / 12)
    assert dft(hot(place), circle)[0].tolist() == pytest.approx([point.real, point.imag], abs=1e-6)


def test_neighbors_on_the_circles() -> None:
    # Circle 7: a fifth (7 steps) turns by 7 * 7 / 12 = 4 + 1/12 turns, that is 30 degrees; a semitone by 210 degrees.
    assert dft(hot(7), 7)[0].tolist() == pytest.approx([math.sqrt(3) / 2, 0.5], abs=1e-6)
    assert dft(hot(1), 7)[0].tolist() == pytest.approx([-math.sqrt(3) / 2, -0.5], abs=1e-6)
    # Circle 1: the opposite.
    assert dft(hot(1), 1)[0].tolist() == pytest.approx([math.sqrt(3) / 2, 0.5], abs=1e-6)
    assert dft(hot(7), 1)[0].tolist() == pytest.approx([-math.sqrt(3) / 2, -0.5], abs=1e-6)


@CIRCLES
def test_a_flat_ksp_and_two_opposite_peaks_are_at_the_origin(circle: int) -> None:
    assert dft(torch.full((1, 12), 1 / 12), circle)[0].tolist() == pytest.approx([0, 0], abs=1e-6)
    assert dft(0.5 * hot(2) + 0.5 * hot(8), circle)[0].tolist() == pytest.approx([0, 0], abs=1e-6)


def test_two_peaks_a_fifth_apart() -> None:
    # Circle 7: (1 + exp(i pi/6)) / 2 has the length cos(15 degrees) = 0.9659; circle 1: cos(105 degrees) in value.
    ksp = 0.5 * hot(0) + 0.5 * hot(7)
    assert dft(ksp, 7).norm().item() == pytest.approx(math.cos(math.radians(15)), abs=1e-6)
    assert dft(ksp, 1).norm().item() == pytest.approx(math.cos(math.radians(75)), abs=1e-6)


@pytest.mark.parametrize("circle", [0, 2, 5, 12])
def test_other_circles_are_refused(circle: int) -> None:
    with pytest.raises(ValueError, match="circle"):
        dft(hot(0), circle)


# --- cross-power spectral density -------------------------------------------------------------------------------------


@CIRCLES
@pytest.mark.parametrize("shift", [0, *SHIFTS])
def test_the_loss_is_zero_for_a_consistent_pair(circle: int, shift: int) -> None:
    below = torch.arange(12)
    first, second = hot(*((below + shift) % 12).tolist()), hot(*below.tolist())
    assert cpsd_loss(first, second, torch.full((12,), shift), circle).item() == pytest.approx(0, abs=1e-10)


@CIRCLES
@pytest.mark.parametrize("shift", SHIFTS)
def test_the_wrong_sign_of_a_shift_has_a_loss(circle: int, shift: int) -> None:
    # |e^{i a} - e^{-i a}|^2 = 4 sin^2 a with a = 2 pi circle shift / 12; it vanishes at the tritone alone, where up is
    # down.
    loss = cpsd_loss(hot(-shift % 12), hot(0), torch.tensor([shift]), circle).item()
    assert loss == pytest.approx(4 * math.sin(2 * math.pi * circle * shift / 12) ** 2, abs=1e-5)
    assert (loss > 0.5) == (shift not in (-6, 6))


@CIRCLES
def test_the_loss_of_flat_ksps_is_one(circle: int) -> None:
    flat = torch.full((3, 12), 1 / 12)
    assert cpsd_loss(flat, flat, torch.tensor([0, 5, -7]), circle).item() == pytest.approx(1, abs=1e-6)
    assert cpsd_loss(flat, hot(0, 1, 2), torch.tensor([0, 5, -7]), circle).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("circle", "steps", "degrees"),
    [(7, 7, 30), (7, 5, 30), (7, 1, 150), (7, 6, 180), (1, 1, 30), (1, 11, 30), (1, 7, 150), (1, 6, 180)],
)
def test_the_loss_of_each_distance(circle: int, steps: int, degrees: int) -> None:
    # |1 - e^{i a}|^2 = 2 - 2 cos a: 0.268 at 30 degrees, 3.732 at 150, 4 at 180.
    loss = cpsd_loss(hot(steps), hot(0), torch.tensor([0]), circle).item()
    assert loss == pytest.approx(2 - 2 * math.cos(math.radians(degrees)), abs=1e-6)


@CIRCLES
def test_it_is_the_mean_over_the_batch(circle: int) -> None:
    first, second, shift = hot(0, 6), hot(0, 0), torch.tensor([0, 0])
    assert cpsd_loss(first, second, shift, circle).item() == pytest.approx((0 + 4) / 2, abs=1e-6)


# --- sums -------------------------------------------------------------------------------------------------------------


@CIRCLES
def test_key_loss_is_the_sum_of_three(circle: int) -> None:
    views = random_views(classes=12)
    zero = torch.zeros_like(views.shift)
    expected = (
        cpsd_loss(views.first, views.second, zero, circle)
        + cpsd_loss(views.first, views.transposed, views.shift, circle)
        + cpsd_loss(views.second, views.transposed, views.shift, circle)
    )
    assert key_loss(views, circle).item() == pytest.approx(expected.item(), abs=1e-6)
    assert stone_loss(views, circle)["total"].item() == pytest.approx(expected.item(), abs=1e-6)


def test_key_loss_by_hand() -> None:
    # Circle 7; first = second = index 3, transposed = index 1 where 3 - 7 = 8 was due: the pair in one key costs 0.
    # Each transposed pair: e^{i 2 pi 7 * 7 / 12} against e^{i 2 pi 7 * 2 / 12}: 30 against 60 degrees, 2 - 2 cos 30.
    views = Views(hot(3), hot(3), hot(1), torch.tensor([7]))
    assert key_loss(views, 7).item() == pytest.approx(2 * (2 - math.sqrt(3)), abs=1e-6)


def test_modes_are_summed_to_signatures_and_mode() -> None:
    ksp = 0.25 * hot(3, classes=24) + 0.75 * hot(12 + 3, classes=24)
    assert signatures(ksp)[0].tolist() == pytest.approx(hot(3)[0].tolist())
    assert first_mode(ksp).tolist() == pytest.approx([0.25])
    twelve = hot(5)
    assert signatures(twelve) is twelve


def test_mode_loss_by_hand() -> None:
    # Shares of the first mode: 0.8, 0.4, 0.6. H(t, p) = -t ln p - (1 - t) ln(1 - p).
    first, second, transposed = (
        share * hot(0, classes=24) + (1 - share) * hot(12, classes=24) for share in (0.8, 0.4, 0.6)
    )
    cross = {
        (0.8, 0.6): -0.8 * math.log(0.6) - 0.2 * math.log(0.4),  # 0.5919
        (0.8, 0.4): -0.8 * math.log(0.4) - 0.2 * math.log(0.6),  # 0.8352
        (0.4, 0.6): -0.4 * math.log(0.6) - 0.6 * math.log(0.4),  # 0.7541
        (0.6, 0.4): -0.6 * math.log(0.4) - 0.4 * math.log(0.6),  # 0.7541
    }
    expected = cross[0.8, 0.6] + cross[0.8, 0.4] + 0.5 * cross[0.4, 0.6] + 0.5 * cross[0.6, 0.4]
    views = Views(first, second, transposed, torch.tensor([1]))
    assert mode_loss(views).item() == pytest.approx(expected, abs=1e-5)


@CIRCLES
def test_semi_tone_weighs_the_mode_by_one_and_a_half(circle: int) -> None:
    views = random_views(3)
    terms = semi_tone_loss(views, circle)
    assert terms["total"].item() == pytest.approx(
        key_loss(views, circle).item() + 1.5 * mode_loss(views).item(), abs=1e-5
    )
    other = semi_tone_loss(views, circle, mode_weight=0.25)["total"].item()
    assert other == pytest.approx(key_loss(views, circle).item() + 0.25 * mode_loss(views).item(), abs=1e-5)


def log_clap(x: Tensor) -> Tensor:
    return torch.clamp(torch.log(x), min=-100)


@CIRCLES
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_they_equal_the_published_formulas(circle: int, seed: int) -> None:
    """The published code's, in complex numbers: loss_pos, loss_equivariant_1 and _2, loss_mode, total."""
    views = random_views(seed)
    omega = circle / 12
    alpha = torch.exp(1j * 2 * torch.pi * omega * torch.arange(12))
    y1, y2, y3 = (ksp[:, :12] + ksp[:, 12:] for ksp in (views.first, views.second, views.transposed))
    z1, z2, z3 = (torch.matmul(torch.complex(y, 0 * y), alpha) for y in (y1, y2, y3))
    turn = torch.exp(1j * 2 * torch.pi * omega * views.shift)
    key = (
        (1 - z1 * z2.conj()).abs().pow(2).mean()
        + (turn - z1 * z3.conj()).abs().pow(2).mean()
        + (turn - z2 * z3.conj()).abs().pow(2).mean()
    )
    m1, m2, m3 = (ksp[:, :12].sum(1) for ksp in (views.first, views.second, views.transposed))
    mode = (
        (-m1 * log_clap(m3) - (1 - m1) * log_clap(1 - m3)).mean()
        + 0.5 * (-m2 * log_clap(m3) - (1 - m2) * log_clap(1 - m3)).mean()
        + 0.5 * (-m3 * log_clap(m2) - (1 - m3) * log_clap(1 - m2)).mean()
        + (-m1 * log_clap(m2) - (1 - m1) * log_clap(1 - m2)).mean()
    )
    terms = semi_tone_loss(views, circle)
    assert terms["key"].item() == pytest.approx(key.item(), abs=1e-5)
    assert terms["mode"].item() == pytest.approx(mode.item(), abs=1e-5)
    assert terms["total"].item() == pytest.approx((key + 1.5 * mode).item(), abs=1e-5)
    twelve = Views(y1, y2, y3, views.shift)
    assert stone_loss(twelve, circle)["total"].item() == pytest.approx(key.item(), abs=1e-5)


# --- numerical safety -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("probability", [0.0, 1e-38, 1e-30, 0.5, 1.0 - 2**-24, 1.0])
def test_binary_cross_entropy_and_its_gradients_are_finite(target: float, probability: float) -> None:
    t, p = torch.tensor([target], requires_grad=True), torch.tensor([probability], requires_grad=True)
    loss = binary_cross_entropy(t, p)
    loss.backward()
    assert 0 <= loss.item() <= 80.001
    assert t.grad is not None
    assert p.grad is not None
    assert torch.isfinite(t.grad).all()
    assert torch.isfinite(p.grad).all()


def test_binary_cross_entropy_at_the_ends() -> None:
    assert binary_cross_entropy(torch.tensor([1.0]), torch.tensor([1.0])).item() == 0
    assert binary_cross_entropy(torch.tensor([0.0]), torch.tensor([0.0])).item() == 0
    assert binary_cross_entropy(torch.tensor([1.0]), torch.tensor([0.0])).item() == pytest.approx(80)


def all_totals(logits: Tensor, circle: int) -> dict[str, Tensor]:
    """Every objective as a function of the logits [3, batch, 24]."""
    ksps = torch.softmax(logits, dim=-1)
    shift = torch.tensor([3, -11])[: logits.shape[1]]
    views = Views(ksps[0], ksps[1], ksps[2], shift)
    label = torch.tensor([1.0, 0.0])
    return {
        "stone": stone_loss(Views(signatures(ksps[0]), signatures(ksps[1]), signatures(ksps[2]), shift), circle)[
            "total"
        ],
        "semi_tone": semi_tone_loss(views, circle)["total"],
        "skey": skey_loss(views, label, circle)["total"],
        "cross_entropy": soft_cross_entropy(logits[0], ksps[1].detach()),
    }


@CIRCLES
@pytest.mark.parametrize("name", ["stone", "semi_tone", "skey", "cross_entropy"])
def test_gradients_equal_finite_differences(circle: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "float", Tensor.double)  # the losses work in float32; here all of it in float64
    logits = torch.randn(3, 2, 24, generator=torch.Generator().manual_seed(5), dtype=torch.float64, requires_grad=True)
    target = torch.softmax(logits[1], dim=-1).detach()

    def total(values: Tensor) -> Tensor:
        if name == "cross_entropy":
            return soft_cross_entropy(values[0], target)
        return all_totals(values, circle)[name]

    assert total(logits).dtype == torch.float64
    assert torch.autograd.gradcheck(total, (logits,), eps=1e-6, atol=1e-6, rtol=1e-4)


@CIRCLES
@pytest.mark.parametrize("size", [0.0, 1.0, 1e3, 1e30])
@pytest.mark.parametrize("half", [False, True])
def test_any_logits_give_finite_losses_and_gradients(circle: int, size: float, half: bool) -> None:
    logits = (size * torch.randn(3, 2, 24, generator=torch.Generator().manual_seed(6))).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        totals = all_totals(logits * 1.0, circle)
    for name, total in totals.items():
        if name == "cross_entropy" and size > 1e20:
            continue  # grows with the logits; it has no upper bound
        assert torch.isfinite(total), name
        (gradient,) = torch.autograd.grad(total, logits, retain_graph=True)
        assert torch.isfinite(gradient).all(), name


def test_half_precision_changes_them_little() -> None:
    """Inside autocast the losses are computed in float32: not a digit is lost."""
    views = random_views(8)
    label = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0])
    outside = (semi_tone_loss(views, 7)["total"], skey_loss(views, label, 7)["total"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = (semi_tone_loss(views, 7)["total"], skey_loss(views, label, 7)["total"])
    assert [value.item() for value in inside] == [value.item() for value in outside]
    assert all(value.dtype == torch.float32 for value in inside)


# --- S-KEY ------------------------------------------------------------------------------------------------------------


def chroma_of(tonic: int, minor: bool) -> list[float]:
    """Energy of the pitch classes of a key: the scale of its signature, its tonic triad above it."""
    scale = {0, 2, 3, 5, 7, 8, 10} if minor else {0, 2, 4, 5, 7, 9, 11}
    weight = {0: 3.0, 7: 2.0, (3 if minor else 4): 1.5}
    energy = [0.0] * 12
    for step in scale:
        energy[(tonic + step) % 12] = weight.get(step, 1.0)
    return energy


@pytest.mark.parametrize("shift", range(12))
def test_the_rotated_chroma_is_transposition_invariant(shift: int) -> None:
    chroma, ksp = torch.rand(4, 12, generator=torch.Generator().manual_seed(1)), random_ksp(2, batch=4)
    moved_ksp = torch.cat([torch.roll(row, shift, dims=1) for row in (ksp[:, :12], ksp[:, 12:])], dim=1)
    moved = rotated_chroma(torch.roll(chroma, shift, dims=1), moved_ksp)
    torch.testing.assert_close(moved, rotated_chroma(chroma, ksp), atol=1e-5, rtol=0)


def test_the_rotated_chroma_by_hand() -> None:
    # A KSP at index 2 rotates pitch class 2 to the front; one with two peaks gives the mean of both rotations.
    chroma = torch.arange(12.0)[None]
    assert rotated_chroma(chroma, hot(2))[0].tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 1]
    split = 0.5 * hot(0, classes=24) + 0.5 * hot(12 + 2, classes=24)
    assert rotated_chroma(chroma, split)[0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 5, 6]


@pytest.mark.parametrize("rotation", range(12))
@pytest.mark.parametrize("minor", [False, True])
def test_the_scale_is_found_wherever_it_lies(rotation: int, minor: bool) -> None:
    # Index of C major (of A minor, for the minor) after rotation: the major tonic of the signature.
    tonic = (rotation - 3) % 12 if minor else rotation
    assert tonic_offset(torch.tensor([chroma_of(tonic, minor)])) == rotation


def test_the_scale_is_found_over_the_whole_batch() -> None:
    major, minor = chroma_of(4, minor=False), chroma_of(1, minor=True)  # one signature
    odd = chroma_of(9, minor=False)
    assert tonic_offset(torch.tensor([major, minor, minor, odd])) == 4


@pytest.mark.parametrize("rotation", range(12))
def test_pseudo_labels_of_c_major_and_a_minor(rotation: int) -> None:
    """C major and A minor share the signature; a network may have it at any index."""
    chroma = torch.tensor([chroma_of(0, minor=False), chroma_of(9, minor=True)])
    rotated = rotated_chroma(chroma, hot(rotation, rotation))
    offset = tonic_offset(rotated)
    assert offset == -rotation % 12
    assert mode_pseudo_labels(rotated, offset).tolist() == [1, 0]


def test_no_gradient_flows_through_pseudo_labels() -> None:
    logits = torch.randn(3, 24, requires_grad=True)
    chroma = torch.rand(3, 12, requires_grad=True)
    ksp = torch.softmax(logits, dim=1)
    rotated = rotated_chroma(chroma, ksp)
    assert torch.autograd.grad(rotated.sum(), logits, allow_unused=True, retain_graph=True) == (None,)
    assert not mode_pseudo_labels(rotated, 0).requires_grad


def test_published_pseudo_labels_compare_two_fixed_bins() -> None:
    # The signature is at index 4: the label is 1 where the chroma has more energy there than at index 7.
    chroma = torch.zeros(3, 12)
    chroma[0, 4] = chroma[1, 7] = chroma[2, 5] = 1.0
    assert published_mode_labels(chroma, hot(4, 4, 4)).tolist() == [1, 0, 0]
    ksp = 0.6 * hot(10, classes=24) + 0.4 * hot(11, classes=24)
    chroma = torch.zeros(1, 12)
    chroma[0, 1] = 1.0  # three above index 10, wrapped around the octave
    assert published_mode_labels(chroma, ksp).tolist() == [0]
    # Rows are summed first: index 3 has 0.35 + 0.25, more than index 8 with 0.4.
    ksp = 0.35 * hot(3, classes=24) + 0.25 * hot(12 + 3, classes=24) + 0.4 * hot(8, classes=24)
    assert published_mode_labels(hot(3), ksp).tolist() == [1]
    assert published_mode_labels(hot(8), ksp).tolist() == [0]


def test_balance() -> None:
    # (p - 1/2)^2 of the mean share p: 0 at 1/2, 1/16 at 1/4, 1/4 where every answer is in one mode.
    def share(*values: float) -> Tensor:
        return torch.cat([value * hot(0, classes=24) + (1 - value) * hot(12, classes=24) for value in values])

    assert balance_loss(share(0.0, 1.0)).item() == pytest.approx(0, abs=1e-6)
    assert balance_loss(share(0.5, 0.5)).item() == pytest.approx(0, abs=1e-6)
    assert balance_loss(share(0.1, 0.4)).item() == pytest.approx(1 / 16, abs=1e-6)
    assert balance_loss(share(0.6, 0.9)).item() == pytest.approx(1 / 16, abs=1e-6)
    assert balance_loss(share(1.0, 1.0)).item() == pytest.approx(1 / 4, abs=1e-6)


@CIRCLES
def test_skey_weighs_its_terms(circle: int) -> None:
    assert SKEY_WEIGHTS == (1.0, 1.7, 1.0)
    views = random_views(4)
    label = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0])
    profiles = (views.first, views.second, views.transposed)
    terms = skey_loss(views, label, circle)
    mode = sum(binary_cross_entropy(label, first_mode(ksp)).item() for ksp in profiles)
    assert terms["key"].item() == pytest.approx(key_loss(views, circle).item())
    assert terms["mode"].item() == pytest.approx(mode, abs=1e-6)
    assert terms["balance"].item() == pytest.approx(balance_loss(torch.cat(profiles[:2])).item())
    expected = terms["key"] + 1.7 * 1.5 * terms["mode"] + 20 * terms["balance"]
    assert terms["total"].item() == pytest.approx(expected.item(), abs=1e-5)
    other = skey_loss(views, label, circle, (2.0, 3.0, 5.0))["total"]
    expected = 2 * terms["key"] + 3 * 1.5 * terms["mode"] + 5 * 20 * terms["balance"]
    assert other.item() == pytest.approx(expected.item(), abs=1e-4)


def test_soft_cross_entropy_by_hand() -> None:
    # Logits ln 1 and ln 3: probabilities 1/4 and 3/4; target 1/2 each: (ln 4 + ln 4/3) / 2. One-hot: ln 4.
    logits = torch.tensor([[0.0, math.log(3.0)]])
    assert soft_cross_entropy(logits, torch.tensor([[0.5, 0.5]])).item() == pytest.approx(
        (math.log(4) + math.log(4 / 3)) / 2
    )
    assert soft_cross_entropy(logits, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(math.log(4))


# --- learning ---------------------------------------------------------------------------------------------------------


class Turner(nn.Module):
    """The smallest equivariant network: a learned circular filter over a chroma."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(0.1 * torch.randn(12))

    def forward(self, chroma: Tensor) -> Tensor:
        turns = torch.stack([torch.roll(chroma, -index, dims=1) for index in range(12)], dim=1)
        return torch.softmax(turns @ self.filter, dim=1)


@CIRCLES
def test_a_network_learns_on_both_circles(circle: int) -> None:
    """From nothing, on scales with noise in all keys: the loss falls far below the 3 of a flat answer, and the answer
    moves with the key."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    scales = torch.tensor([chroma_of(tonic, minor=False) for tonic in range(12)])
    network = Turner()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)

    def views() -> Views:
        tonics = torch.from_numpy(rng.integers(12, size=64))
        shift = torch.from_numpy(rng.choice(SHIFTS, size=64))
        noise = torch.from_numpy(rng.uniform(0, 1.0, (3, 64, 12))).float()
        chromas = (scales[tonics] + noise[0], scales[tonics] + noise[1], scales[(tonics - shift) % 12] + noise[2])
        first, second, third = (network(chroma) for chroma in chromas)
        return Views(first, second, third, shift)

    first = stone_loss(views(), circle)["total"].item()
    for _ in range(150):
        loss = stone_loss(views(), circle)["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert 2.5 < first < 3.1
    assert stone_loss(views(), circle)["total"].item() < 0.3
    answers = network(scales).argmax(1)
    assert ((answers - answers[0]) % 12).tolist() == list(range(12))
