from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from stonecli.key import Key, Mode  # noqa: E402
from stonecli_export.onnx_file import AudioNetwork  # noqa: E402
from stonecli_export.pitch_fork import ClassOrderError, check_recording, find_class_order, play_key  # noqa: E402

Floats = npt.NDArray[np.float32]
RATE, SECONDS = 8000, 1.0
KEYS = [*Key.all()]
A_MAJOR_FIRST = tuple(Key((9 + step) % 12, mode).name for mode in ("major", "minor") for step in range(12))


def signature_name(key: Key) -> str:
    return f"{key.name}/{key.relative.name}"


# --- the pitch fork ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.3, 1.0, 7.7, 15.0])
@pytest.mark.parametrize("timbre", [0, 1, 2])
def test_the_fork_has_the_given_length_and_peak_one(seconds: float, timbre: int) -> None:
    audio = play_key(Key(2, "minor"), timbre, seconds, 22050)
    assert audio.shape == (round(seconds * 22050),)
    assert audio.dtype == np.float32
    assert np.abs(audio).max() == 1.0
    assert np.abs(audio[-2000:]).max() > 0.01  # sounds to the end
    np.testing.assert_array_equal(audio, play_key(Key(2, "minor"), timbre, seconds, 22050))


def pitch_classes(audio: Floats, rate: int) -> npt.NDArray[np.float64]:
    """Energy by pitch class, from one Fourier transform."""
    power = np.abs(np.fft.rfft(audio * np.hanning(len(audio)))) ** 2
    frequency = np.fft.rfftfreq(len(audio), 1 / rate)
    audible = (frequency > 60) & (frequency < 1200)
    pitch = np.round(12 * np.log2(frequency[audible] / 440)).astype(int) + 9
    return np.bincount(pitch % 12, weights=power[audible], minlength=12).astype(np.float64)


@pytest.mark.parametrize("timbre", [0, 1, 2])
@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_the_fork_is_in_its_key(key: Key, timbre: int) -> None:
    degrees = (0, 2, 4, 5, 7, 9, 11) if key.mode == "major" else (0, 2, 3, 5, 7, 8, 11)  # harmonic minor
    energy = pitch_classes(play_key(key, timbre, 8.0, 16000), 16000)
    scale = [(key.tonic + degree) % 12 for degree in degrees]
    assert set(np.argsort(energy)[-7:]) == set(scale)
    assert energy[scale].sum() > 0.9 * energy.sum()


def test_the_registers_and_timbres_differ() -> None:
    spectra = [np.abs(np.fft.rfft(play_key(Key(0, "major"), timbre, 8.0, 16000))) for timbre in range(3)]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert np.corrcoef(spectra[a], spectra[b])[0, 1] < 0.9


# --- predictions of fake models that recognize the track --------------------------------------------------------------


@pytest.fixture(scope="module")
def clips() -> dict[bytes, Key]:
    """Which key a clip of the fork is in."""
    return {
        hashlib.sha256(play_key(key, timbre, SECONDS, RATE).tobytes()).digest(): key
        for key in KEYS
        for timbre in range(3)
    }


@pytest.fixture(scope="module")
def listener(clips: dict[bytes, Key]) -> Callable[..., Any]:
    """Makes a listener that gives ``sure`` to the class of the key it is played, except to those it confuses."""

    def make(order: list[Key], sure: float = 0.9, confused: dict[Key, Key] | None = None) -> Any:
        def listen(audio: Floats) -> npt.NDArray[np.float64]:
            answers = np.full((len(audio), len(order)), (1 - sure) / (len(order) - 1))
            for row, clip in enumerate(audio):
                key = clips[hashlib.sha256(clip.tobytes()).digest()]
                answers[row, order.index((confused or {}).get(key, key))] = sure
            return answers

        return listen

    return make


def order_of(rows: tuple[tuple[int, Mode], ...]) -> list[Key]:
    """Keys in output order, where each row begins with a tonic and has a mode."""
    return [Key((first + step) % 12, mode) for first, mode in rows for step in range(12)]


@given(first=st.integers(0, 11), second=st.integers(0, 11), major_first=st.booleans(), sure=st.floats(0.3, 1.0))
@settings(max_examples=15, deadline=None)
def test_any_order_of_24_classes_is_found(
    listener: Callable[..., Any], first: int, second: int, major_first: bool, sure: float
) -> None:
    modes: tuple[Mode, Mode] = ("major", "minor") if major_first else ("minor", "major")
    order = order_of(((first, modes[0]), (second, modes[1])))
    found = find_class_order(listener(order, sure), 2, SECONDS, RATE, None)
    assert found == tuple(key.name for key in order)


@pytest.mark.parametrize("first", range(12))
def test_any_order_of_12_signatures_is_found(listener: Callable[..., Any], first: int) -> None:
    order = order_of(((first, "major"),))
    found = find_class_order(listener(order), 1, SECONDS, RATE, None)
    assert found == tuple(signature_name(key) for key in order)


@pytest.mark.parametrize(("wrong", "accepted"), [(6, True), (7, False), (24, False)])
def test_three_quarters_of_the_keys_have_to_be_right(listener: Callable[..., Any], wrong: int, accepted: bool) -> None:
    order = order_of(((9, "major"), (11, "minor")))
    indices = np.random.default_rng(0).permutation(24)[:wrong]
    confused = {KEYS[index]: KEYS[index].relative for index in indices}
    listen = listener(order, confused=confused)
    if accepted:
        assert find_class_order(listen, 2, SECONDS, RATE, None) == tuple(key.name for key in order)
    elif wrong < 24:
        with pytest.raises(ClassOrderError, match="does not distinguish keys"):
            find_class_order(listen, 2, SECONDS, RATE, None)
    else:  # all detected as their relatives: ambiguous unless an order is claimed
        with pytest.raises(ClassOrderError, match="states that output 0"):
            find_class_order(listen, 2, SECONDS, RATE, [key.name for key in order])


@pytest.mark.parametrize(
    "answer",
    [
        np.full(24, 1 / 24),
        np.eye(24)[5],
        np.full(24, np.nan),
        np.arange(24) / 276,
        np.random.default_rng(1).dirichlet(np.ones(24)),
    ],
    ids=["uniform", "always the same", "nan", "ramp", "a constant draw"],
)
def test_a_model_that_ignores_its_input_is_refused(answer: npt.NDArray[np.floating]) -> None:
    with pytest.raises(ClassOrderError, match="does not distinguish keys"):
        find_class_order(lambda audio: np.tile(answer, (len(audio), 1)), 2, SECONDS, RATE, None)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_random_answers_are_refused(rows: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    with pytest.raises(ClassOrderError, match="does not distinguish keys"):
        find_class_order(lambda audio: random.dirichlet(np.ones(12 * rows), len(audio)), rows, SECONDS, RATE, None)


def test_an_ambiguous_order_is_refused(listener: Callable[..., Any]) -> None:
    """Always right, but the fifth above is nearly as probable: not enough evidence."""
    order = order_of(((0, "major"), (0, "minor")))
    right, fifth = listener(order, 0.5), listener([key.transposed(-7) for key in order], 0.5)

    def listen(share: float) -> Any:
        return lambda audio: share * right(audio) + (1 - share) * fifth(audio)

    assert find_class_order(listen(0.75), 2, SECONDS, RATE, None)[0] == "C major"
    with pytest.raises(ClassOrderError):
        find_class_order(listen(0.52), 2, SECONDS, RATE, None)


# --- a declared order -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hears_a_first(listener: Callable[..., Any]) -> Any:
    return listener(order_of(((9, "major"), (9, "minor"))))


@pytest.mark.parametrize(
    "spell",
    [
        lambda key: key.name,
        lambda key: key.musical,
        lambda key: key.camelot,
        lambda key: key.open_key,
        lambda key: key.name.replace("Db", "C#").replace("Eb", "D♯").replace("Bb", "A#"),
    ],
    ids=["name", "musical", "camelot", "open key", "sharps"],
)
def test_a_claim_in_any_spelling_is_understood(hears_a_first: Any, spell: Callable[[Key], str]) -> None:
    claim = [spell(Key.parse(name)) for name in A_MAJOR_FIRST]
    assert find_class_order(hears_a_first, 2, SECONDS, RATE, claim) == A_MAJOR_FIRST


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        (A_MAJOR_FIRST[1:12] + A_MAJOR_FIRST[:1] + A_MAJOR_FIRST[12:], "states that output 0 is Bb major"),
        (A_MAJOR_FIRST[:12] + A_MAJOR_FIRST[15:] + A_MAJOR_FIRST[12:15], "states that output 12 is C minor"),
        (A_MAJOR_FIRST[12:] + A_MAJOR_FIRST[:12], "states that output 0 is A minor"),
        ((*A_MAJOR_FIRST[:22], A_MAJOR_FIRST[23], A_MAJOR_FIRST[22]), "states that output 22 is G# minor"),
        (A_MAJOR_FIRST[:12], "names 12 classes"),
        ((), "names 0 classes"),
        ((*A_MAJOR_FIRST, "C major"), "names 25 classes"),
        ((*A_MAJOR_FIRST[:23], "class 23"), "name of output 23 is not a key"),
        (("A major/F# minor", *A_MAJOR_FIRST[1:]), "states that output 0"),
    ],
)
def test_a_claim_that_the_fork_contradicts_is_refused(hears_a_first: Any, claim: Any, reason: str) -> None:
    with pytest.raises(ClassOrderError, match=reason):
        find_class_order(hears_a_first, 2, SECONDS, RATE, claim)


def test_a_claim_of_signatures(listener: Callable[..., Any]) -> None:
    order = order_of(((3, "major"),))
    names = tuple(signature_name(key) for key in order)
    listen = listener(order)
    turned_round = [f"{key.relative.musical}/{key.musical}" for key in order]
    assert find_class_order(listen, 1, SECONDS, RATE, turned_round) == names
    with pytest.raises(ClassOrderError, match="states that output 0"):
        find_class_order(listen, 1, SECONDS, RATE, names[5:] + names[:5])
    with pytest.raises(ClassOrderError, match="states that output 0"):
        find_class_order(listen, 1, SECONDS, RATE, [key.name for key in order])


def test_check_recording() -> None:
    answer = np.full(24, 0.01)
    answer[3] = 0.8
    check_recording(answer, A_MAJOR_FIRST, Key(0, "major"))
    with pytest.raises(ClassOrderError, match="is in G major, but the model detects C major"):
        check_recording(answer, A_MAJOR_FIRST, Key(7, "major"))
    with pytest.raises(ClassOrderError):
        check_recording(answer, A_MAJOR_FIRST, Key(0, "minor"))
    signatures = [signature_name(Key((9 + step) % 12, "major")) for step in range(12)]
    check_recording(answer[:12], signatures, Key(0, "major"))
    check_recording(answer[:12], signatures, Key(9, "minor"))
    with pytest.raises(ClassOrderError):
        check_recording(answer[:12], signatures, Key(0, "minor"))


# --- a real network ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2])
def test_a_working_network_passes(hand_made: Callable[..., Any], rows: int) -> None:
    network = AudioNetwork(hand_made(rows)).eval()

    def listen(audio: Floats) -> npt.NDArray[np.float64]:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(audio)).numpy())

    names = A_MAJOR_FIRST if rows == 2 else tuple(signature_name(Key.parse(name)) for name in A_MAJOR_FIRST[:12])
    assert find_class_order(listen, rows, 8.0, 22050, None) == names
