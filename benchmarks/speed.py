"""Measure the cost of analyzing a file: ``python benchmarks/speed.py`` (extra ``bench``), all on this machine.

Music is rendered here and encoded with ffmpeg. These run on the same file, alternating, in one process and one thread
each:

- ``decode``: decoding alone, with soundfile (M4A: ffmpeg as a process, because soundfile cannot read it),
- ``stone``: ``detect_key``, built-in model,
- ``essentia``: its KeyExtractor after its MonoLoader (without Opus, on which its wheel crashes),
- ``librosa``: ``load``, ``chroma_stft`` and Krumhansl's profiles.

Prints the median CPU time per file, including child processes, and its ratio to ``decode``. Then prints the parts of
stone's time and, depending on the options, all cores, batches of windows, the overhead of many short files, memory, and
the start of the program. ``--device cuda`` runs the network on a GPU. ``--json FILE`` writes all results.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
os.environ.update(dict.fromkeys(THREADS, "1"))  # before numpy is loaded

import imageio_ffmpeg  # noqa: E402
import numpy as np  # noqa: E402
import soundfile  # noqa: E402

from stonecli.audio.decode import open_audio  # noqa: E402
from stonecli.audio.resample import Resampler  # noqa: E402
from stonecli.detection import windows  # noqa: E402
from stonecli.detection.detect import detect_key  # noqa: E402
from stonecli.errors import DeviceError  # noqa: E402
from stonecli.jobs import default_jobs, run  # noqa: E402
from stonecli.model import session as model  # noqa: E402
from stonecli.model.runtime import onnxruntime  # noqa: E402
from stonecli.model.session import Device, KeyModel  # noqa: E402
from stonecli.util.atomic_file import atomic_text_file  # noqa: E402

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
STONE = [sys.executable, "-m", "stonecli"]
FORMATS = {
    "mp3": ("mp3", ["-c:a", "libmp3lame", "-b:a", "320k"]),
    "v0": ("mp3", ["-c:a", "libmp3lame", "-q:a", "0"]),
    "flac": ("flac", ["-c:a", "flac"]),
    "m4a": ("m4a", ["-c:a", "aac", "-b:a", "256k"]),
    "opus": ("opus", ["-c:a", "libopus", "-b:a", "160k"]),
    "flac96": ("flac", ["-c:a", "flac", "-ar", "96000"]),
}
LENGTHS = {"30s": 30, "4min": 240, "60min": 3600, "2h": 7200}
UNREADABLE = {("essentia", ".opus"), ("librosa", ".m4a")}
OTHERS_UP_TO = 600  # seconds; the other tools hold a whole file in memory
MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)  # Krumhansl and Kessler, 1982
MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


def cpu_seconds() -> float:
    """CPU time of this process and of those it has waited for."""
    own, children = (resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


# --- music ------------------------------------------------------------------------------------------------------------


def render(path: Path) -> None:
    """A minute of chords, bass and noise in stereo, 12 cents above 440 Hz, the same on every machine."""
    rate, random = 44100, np.random.default_rng(6)
    time_axis = np.arange(rate) / rate
    parts = []
    for beat in range(60):
        root = (0, 5, 7, 9, 2, 7, 0, 5)[beat % 8]
        third = 3 if root in (9, 2) else 4
        both = []
        for side in (-1, 1):
            sound = 0.02 * random.standard_normal(rate) * np.exp(-8 * (time_axis % 0.5))
            for step, note in enumerate((root - 24, root, root + third, root + 7)):
                hertz = 261.63 * 2 ** ((note + 0.12) / 12)
                for partial in range(1, 9):
                    level = 0.1 * 0.6**partial * (1 + 0.3 * side * (-1) ** step)
                    sound += level * np.sin(2 * np.pi * partial * hertz * time_axis + partial + side)
            both.append(sound * np.minimum(1, time_axis / 0.01) * np.exp(-0.8 * time_axis))
        parts.append(np.stack(both, axis=1))
    soundfile.write(path, np.concatenate(parts), rate, subtype="PCM_16")


def encode(minute: Path, folder: Path, kind: str, length: str) -> Path:
    """``minute``, repeated, as a file of the given kind and length."""
    ending, codec = FORMATS[kind]
    path = folder / f"{kind}-{length}.{ending}"
    if not path.exists():
        loop: list[str | Path] = ["-stream_loop", "-1", "-i", minute, "-t", str(LENGTHS[length])]
        subprocess.run([FFMPEG, "-v", "error", "-y", *loop, *codec, path], check=True)
    return path


# --- tools ------------------------------------------------------------------------------------------------------------


def decode_only(path: Path) -> None:
    """Decode all samples of the file, with the usual library."""
    if path.suffix == ".m4a":
        command = [FFMPEG, "-v", "error", "-nostdin", "-threads", "1", "-i", path]
        command += ["-af", "asetnsamples=n=32768:p=0", "-f", "s16le", "pipe:1"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None  # noqa: S101
        while process.stdout.read(1 << 20):
            pass
        process.wait()
        return
    rate = soundfile.info(path).samplerate
    for _ in soundfile.blocks(path, 4 * rate, dtype="float32"):
        pass


def with_essentia() -> Callable[[Path], object]:
    """Essentia's KeyExtractor."""
    import essentia
    import essentia.standard as es

    essentia.log.infoActive = essentia.log.warningActive = False
    extractor = es.KeyExtractor()
    return lambda path: extractor(es.MonoLoader(filename=str(path), sampleRate=44100)())


def with_librosa() -> Callable[[Path], object]:
    """librosa's chroma against Krumhansl's profiles."""
    import librosa

    profiles = np.array([np.roll(profile, tonic) for profile in (MAJOR, MINOR) for tonic in range(12)])

    def analyze(path: Path) -> int:
        warnings.simplefilter("ignore")
        samples, rate = librosa.load(path, sr=22050, mono=True)
        chroma = librosa.feature.chroma_stft(y=samples, sr=rate).mean(axis=1)
        return int(np.corrcoef(np.vstack([chroma, profiles]))[0, 1:].argmax())

    return analyze


def tools(key_model: KeyModel) -> dict[str, Callable[[Path], object]]:
    """The tools to compare, by name."""
    found: dict[str, Callable[[Path], object]] = {
        "decode": decode_only,
        "stone": lambda path: detect_key(path, key_model),
    }
    for name, make in (("essentia", with_essentia), ("librosa", with_librosa)):
        try:
            found[name] = make()
        except ImportError:
            print(f"{name} is not installed (pip install '.[bench]')", file=sys.stderr)
    return found


def measure(path: Path, seconds: int, competitors: dict[str, Callable[[Path], object]], rounds: int) -> dict[str, Any]:
    """Median CPU and wall time of each tool; the tools take turns."""
    cpu, wall = defaultdict(list), defaultdict(list)
    for number in range(rounds + 1):
        for name, analyze in competitors.items():
            if (name in ("essentia", "librosa") and seconds > OTHERS_UP_TO) or (name, path.suffix) in UNREADABLE:
                continue
            start, before = time.perf_counter(), cpu_seconds()
            try:
                analyze(path)
            except Exception as error:  # a format that one of them does not read
                print(f"{name} on {path.name}: {str(error)[:70]}", file=sys.stderr)
                continue
            if number:  # the first round loads and compiles
                cpu[name].append(cpu_seconds() - before)
                wall[name].append(time.perf_counter() - start)
    return {
        name: {
            "cpu": statistics.median(cpu[name]),
            "cpu_min": min(cpu[name]),
            "wall": statistics.median(wall[name]),
            "ratio": statistics.median(a / b for a, b in zip(cpu[name], cpu["decode"], strict=True)),
        }
        for name in cpu
    }


# --- measured calls ---------------------------------------------------------------------------------------------------


@contextmanager
def timed(module: Any, name: str, spent: dict[str, float], part: str) -> Iterator[None]:
    """While open, the CPU time of the thread within ``module.name`` is added to ``spent[part]``."""
    original = getattr(module, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.thread_time()
        try:
            return original(*args, **kwargs)
        finally:
            spent[part] += time.thread_time() - start

    setattr(module, name, call)
    try:
        yield
    finally:
        setattr(module, name, original)


def network_share(key_model: KeyModel) -> float:
    """Share of the model's time that is the network's, by the runtime's own profile; the rest is the VQT's."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = str(Path(tempfile.gettempdir()) / "stone-profile")
    session = onnxruntime.InferenceSession(model.read_model(None), options, providers=["CPUExecutionProvider"])
    samples = key_model.info.window_samples + 2 * key_model.info.context_samples
    window = 0.1 * np.random.default_rng(0).standard_normal((1, samples)).astype(np.float32)
    for _ in range(30):
        session.run(None, {"audio": window})
    profile = Path(session.end_profiling())
    events = [event for event in json.loads(profile.read_text()) if event.get("cat") == "Node"]
    profile.unlink()
    events = [event for event in events if event["name"].endswith("_kernel_time")]
    first = next(int(e["name"].split("_")[1]) for e in events if e["args"]["op_name"] == "Unsqueeze")

    def is_network(name: str) -> bool:
        number = re.match(r"[a-z]+_(\d+)", name)
        return name.startswith(("Reorder", "prob")) or bool(number and int(number[1]) >= first)

    total = sum(event["dur"] for event in events)
    return float(sum(event["dur"] for event in events if is_network(event["name"])) / total)


def split(path: Path, key_model: KeyModel, rounds: int) -> dict[str, float]:
    """Median CPU seconds of each part of the analysis of ``path``."""
    found: dict[str, list[float]] = defaultdict(list)
    share = network_share(key_model)
    for number in range(rounds + 1):
        before = cpu_seconds()
        decode_only(path)
        decoded = cpu_seconds()
        for _ in open_audio(path, key_model.info.sample_rate).blocks:
            pass
        read = cpu_seconds()
        spent: dict[str, float] = defaultdict(float)
        with (
            timed(windows, "frame_peaks", spent, "tuning"),
            timed(Resampler, "__init__", spent, "resample"),
            timed(Resampler, "__call__", spent, "resample"),
            timed(model._Network, "__call__", spent, "model"),
        ):
            detect_key(path, key_model)
        whole = cpu_seconds() - read
        parts = {
            "decode": decoded - before,
            "mix and decimate": (read - decoded) - (decoded - before),
            "tuning": spent["tuning"],
            "resample": spent["resample"],
            "VQT": spent["model"] * (1 - share),
            "network": spent["model"] * share,
            "rest": whole - (read - decoded) - sum(spent.values()),
            "all": whole,
        }
        if number:
            for part, seconds in parts.items():
                found[part].append(seconds)
    return {part: statistics.median(values) for part, values in found.items()}


# --- many files -------------------------------------------------------------------------------------------------------


def start_stone(*arguments: str | Path) -> subprocess.Popen[bytes]:
    """Start ``stone`` as a separate process, without the limit of one thread."""
    environment = {key: value for key, value in os.environ.items() if key not in THREADS}
    command = [*STONE, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


def run_stone(*arguments: str | Path) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak memory in MB of ``stone``."""
    start, kilobytes = time.perf_counter(), 0
    process = start_stone(*arguments)
    while True:
        # Not ru_maxrss, which begins with the peak of the process that started it.
        found = re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{process.pid}/status").read_text())
        kilobytes = int(found[1]) if found else kilobytes
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        time.sleep(0.02)
    if status:
        raise SystemExit(f"stone failed: {arguments}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, kilobytes / 1024


def cores(song: Path, folder: Path, rounds: int, device: str) -> dict[str, Any]:
    """Wall seconds of ``stone tag --write-tags`` with one job, with one per core, and as one program per core.

    The last is the maximum for the cores, also while the machine runs other programs.
    """
    count, jobs = 24, default_jobs()
    shares = [folder / "cores" / str(share) for share in range(jobs)]
    for number in range(count):
        copy = shares[number % jobs] / f"{number}.mp3"
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists():
            shutil.copy(song, copy)
    options = ["tag", "--device", device, "--no-cache", "--write-tags", "--overwrite", "--jobs"]
    wall, cpu = defaultdict(list), defaultdict(list)
    for _ in range(rounds):
        for name, number in (("one job", 1), ("all cores", jobs)):
            seconds, used, _ = run_stone(*options, str(number), *shares)
            wall[name].append(seconds)
            cpu[name].append(used)
        start = time.perf_counter()
        for process in [start_stone(*options, "1", share) for share in shares]:
            process.wait()
        wall["as programs"].append(time.perf_counter() - start)
    found = {name: statistics.median(values) for name, values in wall.items()}
    return {
        "files": count,
        "jobs": jobs,
        "wall": found,
        "cpu": {name: statistics.median(values) for name, values in cpu.items()},
        "gain": found["one job"] / found["all cores"],
        "share_of_maximum": found["as programs"] / found["all cores"],
    }


def batches(device: Device, seconds: float = 3.0) -> dict[str, float]:
    """Windows per second that one model analyzes, by batch size; windows are submitted one by one, as by files."""
    found = {}
    for size in (1, 4, 16, 32, 64, 128):
        key_model = KeyModel(device=device, batch=size)
        samples = key_model.info.window_samples + 2 * key_model.info.context_samples
        window = 0.1 * np.random.default_rng(0).standard_normal(samples).astype(np.float32)
        for answer in [key_model.submit(window) for _ in range(2 * size)]:  # loads, and sets up kernels
            answer()
        waiting: deque[Callable[[], object]] = deque()
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds or waiting:
            if time.perf_counter() - start < seconds and len(waiting) < 4 * size:
                waiting.append(key_model.submit(window))
            else:
                waiting.popleft()()
                count += 1
        found[str(size)] = count / (time.perf_counter() - start)
    return found


def short_files(folder: Path, count: int, key_model: KeyModel) -> dict[str, Any]:
    """The overhead of the parallel map for files of one second, and the memory of a run over them."""
    from concurrent.futures import ThreadPoolExecutor

    from stonecli.tagging import Tagger

    music = folder / "short"
    music.mkdir(exist_ok=True)
    tone = sum(np.sin(2 * np.pi * hertz * np.arange(44100) / 44100) for hertz in (220.0, 261.6, 329.6)) / 4
    soundfile.write(music / "0.flac", tone, 44100)
    for number in range(1, count):
        if not (music / f"{number}.flac").exists():
            shutil.copy(music / "0.flac", music / f"{number}.flac")  # links would be taken for one file
    paths = [music / f"{number}.flac" for number in range(min(count, 2000))]
    tagger = Tagger(key_model)
    overheads = []
    for _ in range(3):
        start = time.process_time()
        for path in paths:
            tagger(path)
        plain = time.process_time() - start
        with ThreadPoolExecutor(1) as executor, run(tagger, paths, executor=executor, in_flight=2) as outcomes:
            start = time.process_time()
            for _outcome in outcomes:
                pass
            overheads.append((time.process_time() - start - plain) / len(paths))
    _, _, few = run_stone("tag", "--device", "cpu", "--no-cache", *paths[:200])
    wall, cpu, megabytes = run_stone("tag", "--device", "cpu", "--no-cache", music)
    return {
        "files": count,
        "engine_ms": 1000 * statistics.median(overheads),
        "cpu_ms_per_file": 1000 * cpu / count,
        "files_per_second": count / wall,
        "peak_mb_200": few,
        "peak_mb": megabytes,
    }


def start_up(folder: Path, other: Path | None, rounds: int = 15) -> dict[str, dict[str, float]]:
    """Minimum and median CPU seconds of starting stone and of reference commands, alternating, and a ratio.

    The ratio is the median over the rounds of that to the bare import of three libraries. Modules are compiled before,
    as by pip. ``other`` is another installation of stone, such as the standalone program.
    """
    one = folder / "one.wav"
    soundfile.write(one, 0.3 * np.sin(2 * np.pi * 220 * np.arange(44100) / 44100), 44100)
    bare = "import onnxruntime, numpy, soundfile"
    python, analyze = [sys.executable, "-c"], [*STONE, "analyze", "--device", "cpu", str(one)]
    commands = {
        "python -c pass": [*python, "pass"],
        "stone --version": [*STONE, "--version"],
        "stone --help": [*STONE, "--help"],
        bare: [*python, bare],
        "the same, OpenBLAS with one thread": [*python, f"import os; os.environ['OPENBLAS_NUM_THREADS'] = '1'; {bare}"],
        "KeyModel()": [*python, "from stonecli import KeyModel; KeyModel(device='cpu')"],
        "detect_key(), 1 s": [*python, f"from stonecli import detect_key; detect_key({str(one)!r})"],
        "stone analyze, 1 s": analyze,
        "stone analyze, 1 s, --json": [*analyze, "--json"],
    }
    if other:
        commands["other stone --version"] = [str(other), "--version"]
        commands["other stone analyze, 1 s"] = [str(other), *analyze[len(STONE) :]]
    without = {*THREADS, "PYTHONDONTWRITEBYTECODE"}
    environment = {name: value for name, value in os.environ.items() if name not in without}
    environment |= {"ORT_DISABLE_TELEMETRY": "1"}  # for the bare import, too: stone disables it
    environment |= {"PYTHONPYCACHEPREFIX": str(folder / "compiled"), "STONE_CONFIG_DIR": str(folder / "no-config")}
    times: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        for name, command in commands.items():
            before = cpu_seconds()
            subprocess.run(command, check=True, capture_output=True, env=environment)
            if number:  # the first round compiles
                times[name].append(cpu_seconds() - before)
    return {
        name: {
            "min": min(values),
            "median": statistics.median(values),
            "ratio": statistics.median(a / b for a, b in zip(values, times[bare], strict=True)),
        }
        for name, values in times.items()
    }


# --- command line -----------------------------------------------------------------------------------------------------


def machine() -> str:
    """The processor and the versions of Python and onnxruntime, in one line."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    name = found[1] if found else platform.processor()
    return (
        f"{name}, {default_jobs()} cores, {platform.system()}, Python {platform.python_version()}, "
        f"onnxruntime {onnxruntime.__version__}"
    )


def main() -> None:
    """Print the measurements that the options select, and write them to ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", nargs="*", choices=FORMATS, default=["mp3", "v0", "flac", "m4a", "opus"])
    parser.add_argument("--lengths", nargs="*", choices=LENGTHS, default=["30s", "4min"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--cores", action="store_true", help="also measure all cores")
    parser.add_argument("--batches", action="store_true", help="also measure windows per second by batch size")
    parser.add_argument("--files", type=int, default=0, metavar="N", help="also measure N files of one second")
    parser.add_argument("--memory", action="store_true", help="also measure the peak memory of 2-hour files")
    parser.add_argument("--start", action="store_true", help="also measure the start of the program")
    parser.add_argument("--other", type=Path, metavar="STONE", help="with --start, also measure this installation")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--folder", type=Path, help="folder to keep the encoded files in (default: a temporary one)")
    options = parser.parse_args()
    try:
        key_model = KeyModel(device=options.device)
    except DeviceError as error:
        raise SystemExit(f"speed.py: {error}") from None
    results: dict[str, Any] = {"machine": machine(), "device": key_model.device, "files": {}}
    print(results["machine"])
    with tempfile.TemporaryDirectory(prefix="stone-speed-") as name:
        folder = options.folder or Path(name)
        folder.mkdir(exist_ok=True)
        os.environ["STONE_STATE_DIR"] = os.environ["STONE_CACHE_DIR"] = str(Path(name) / "state")
        minute = folder / "minute.wav"
        render(minute)
        competitors = tools(key_model)
        if options.formats and options.lengths:
            print(f"\n{'CPU s per file (of decode)':26}" + "".join(f"{name:>16}" for name in competitors))
        for length in options.lengths:
            for kind in options.formats:
                found = measure(encode(minute, folder, kind, length), LENGTHS[length], competitors, options.rounds)
                results["files"][f"{kind} {length}"] = found
                cells = (f"{found[n]['cpu']:.3f} ({found[n]['ratio']:.2f})" if n in found else "-" for n in competitors)
                print(f"{kind + ' ' + length:26}" + "".join(f"{cell:>16}" for cell in cells), flush=True)
        if "4min" in options.lengths and options.formats and key_model.device == "cpu":
            kind = options.formats[0]
            results["split"] = split(encode(minute, folder, kind, "4min"), key_model, options.rounds)
            print(f"\nstone, {kind} 4min: " + ", ".join(f"{k} {1000 * v:.0f} ms" for k, v in results["split"].items()))
        if options.cores:
            results["cores"] = found = cores(encode(minute, folder, "mp3", "4min"), folder, 3, options.device)
            for measured in ("wall", "cpu"):
                print(
                    f"{found['files']} files, {measured}: "
                    + ", ".join(f"{k} {v:.1f} s" for k, v in found[measured].items())
                )
            print(
                f"{found['jobs']} cores are {found['gain']:.2f} times as fast as one, "
                f"{found['share_of_maximum']:.2f} of the maximum"
            )
        if options.batches:
            results["batches"] = found = batches(options.device)
            print("windows per second by batch: " + ", ".join(f"{size}: {rate:.0f}" for size, rate in found.items()))
        if options.files:
            results["short"] = found = short_files(folder, options.files, key_model)
            print("\nfiles of 1 s: " + ", ".join(f"{k} {v:.2f}" for k, v in found.items()))
        if options.memory:
            results["memory"] = {}
            for kind in ("mp3", "flac96"):
                _, cpu, megabytes = run_stone(
                    "tag", "--device", "cpu", "--no-cache", encode(minute, folder, kind, "2h")
                )
                results["memory"][kind] = {"peak_mb": megabytes, "cpu": cpu}
                print(f"2 h {kind}: peak {megabytes:.0f} MB, {cpu:.1f} CPU s")
        if options.start:
            results["start"] = found = start_up(folder, options.other)
            for name, of in found.items():
                print(f"{name:40}{1000 * of['min']:6.0f} ms, median {1000 * of['median']:4.0f}, {of['ratio']:.2f}")
    if options.json:
        with atomic_text_file(options.json) as file:
            json.dump(results, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
