"""``python -m stonecli.audio.other_decoders FILE``: decode ``FILE`` with audioread and write a WAV to standard output.

``stonecli.audio.ffmpeg`` starts this if the ffmpeg of the ``imageio-ffmpeg`` wheel is missing or does not start.
audioread then decodes with Core Audio (macOS), GStreamer, MAD or the system's ffmpeg, whichever is there. The process
isolates stone from libraries that a crafted file may crash, and it has a memory limit. On standard error it reports
what ``stonecli.audio.decoder_process`` reads from ffmpeg: the declared duration, and the decoder's messages.

The module imports little: it starts once per file. The guards that every ffmpeg gets are defined here.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from audioread.base import AudioFile

NO_BACKEND_CODE = 3  # exit code: audioread found no decoder on this machine
NO_BACKEND_MESSAGE = b"[stone] no decoder"
MEMORY_LIMIT = 2 << 30  # bytes of address space for this process, and for an ffmpeg that it starts
MAX_ALLOCATION = 64 << 20  # bytes per allocation of ffmpeg; the index of an 18 hour M4A has this size

# Demuxers of ffmpeg that may open a file. Playlists and similar formats are excluded: they open other files.
_DEMUXERS = "aac,aiff,ape,asf,au,caf,dsf,flac,iff,matroska,mov,mp3,mpc,mpc8,ogg,shn,tak,tta,w64,wav,wv"

# Signatures of the files that a decoder may open, after ID3 tags. No playlist starts with one of these.
_SIGNATURES = (
    *(b"OggS", b"fLaC", b"RIFF", b"RF64", b"BW64", b"FORM", b"FRM8", b"riff", b"caff", b".snd", b"dns."),
    *(b"wvpk", b"MAC ", b"MP+", b"MPCK", b"TTA1", b"tBaK", b"ajkg", b"DSD ", b"\x1a\x45\xdf\xa3"),
    bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),  # ASF
)
_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes:
        """The next ``size`` bytes; fewer only at the end."""


def guarded_input(path: str) -> list[str]:
    """The options with which ffmpeg opens the file at ``path`` and no other, with bounded allocations."""
    return [
        *("-nostdin", "-nostats", "-hide_banner", "-threads", "1", "-max_alloc", str(MAX_ALLOCATION)),
        *("-protocol_whitelist", "file,pipe", "-format_whitelist", _DEMUXERS, "-i", f"file:{path}"),
    ]


# Larger frames save a third of the time: ffmpeg passes each frame through five threads, and its default is about a
# thousand samples. More than two channels are mixed to two with ffmpeg's weights, which leave out the subwoofer.
GUARDED_OUTPUT = [
    *("-map", "0:a:0", "-af", "asetnsamples=n=32768:p=0,aformat=channel_layouts=mono|stereo"),
    *("-rematrix_maxval", "1", "-map_metadata", "-1", "-fflags", "+bitexact"),
]


def main() -> None:
    """Decode the file named on the command line; exit code 0 means success."""
    path = Path(sys.argv[1]).absolute()
    _avoid_current_folder()
    _limit_memory()
    output = sys.stdout.buffer
    try:
        if not _looks_like_audio(path):
            raise ValueError("not an audio container")
        with _opened(path) as audio:
            if audio.duration:
                _report_duration(float(audio.duration))
            output.write(_wav_header(audio.samplerate, audio.channels))
            for block in audio:
                output.write(block)
            output.flush()
            failed = isinstance(audio, _process_class()) and audio.failed()
    except _NoBackend:
        _report(NO_BACKEND_MESSAGE)
        _exit(NO_BACKEND_CODE)
    except BrokenPipeError:  # stone closed its end
        _exit(1)
    except Exception as error:
        _report(f"[audioread] {type(error).__name__}: {error}".encode("utf-8", "replace").replace(b"\n", b" "))
        _exit(1)
    _exit(1 if failed else 0)


class _NoBackend(Exception):
    """audioread has no decoder on this machine."""


def _opened(path: Path) -> AudioFile:
    """The file, opened by the first backend that can open it; raises the error of the last backend."""
    backends = _backends()
    if not backends:
        raise _NoBackend
    for backend in backends[:-1]:
        with suppress(Exception):
            return backend(str(path))
    return backends[-1](str(path))


def _backends() -> list[Any]:
    """The decoders that audioread finds on this machine, in its order, with guards around ffmpeg.

    Its reader of WAV and AIFF is excluded, because libsndfile reads those.
    """
    import audioread
    from audioread.ffdec import FFmpegAudioFile

    found = []
    for backend in audioread.available_backends():
        if backend.__module__ == "audioread.rawread" or backend is FFmpegAudioFile:
            continue
        found.append(backend)
    return [*found, _process_class()] if _system_ffmpeg() else found


def _system_ffmpeg() -> str | None:
    """Absolute path of the ffmpeg on PATH, or None."""
    import shutil

    found = shutil.which("ffmpeg")
    return found if found and Path(found).is_absolute() else None


def _avoid_current_folder() -> None:
    """Make sure that no program in the current folder is started: audioread starts some by name only."""
    folders = [folder for folder in os.get_exec_path() if Path(folder).is_absolute()]
    os.environ["PATH"] = os.pathsep.join(folders)
    with suppress(OSError):
        os.chdir(Path(sys.executable).parent)  # Windows searches the current folder before PATH


def _process_class() -> type[Any]:
    """audioread's ffmpeg backend with stone's guards around the process.

    The original starts ffmpeg without limits on formats, protocols and memory, buffers all output that was not read
    yet, and parses sample rate and duration from text that includes the file's name and tags.
    """
    import queue

    from audioread import ffdec

    class GuardedFfmpeg(ffdec.FFmpegAudioFile):  # type: ignore[misc]
        def __init__(self, filename: str, block_size: int = 1 << 16) -> None:
            program = _system_ffmpeg()
            if program is None:
                raise ffdec.NotInstalledError
            command = [program, *guarded_input(filename), *GUARDED_OUTPUT, "-c:a", "pcm_s16le", "-f", "wav", "pipe:1"]
            # ffmpeg prints to our standard error; stonecli.audio.decoder_process reads duration and truncation from it.
            self.proc = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)  # noqa: S603
            assert self.proc.stdout is not None  # noqa: S101 (for the type checker)
            header = read_wav_header(self.proc.stdout)
            if header is None:
                self.proc.stdout.close()
                self.proc.wait()
                raise ffdec.UnsupportedError
            self.samplerate, self.channels, _ = header
            self.duration = 0.0  # ffmpeg prints the duration itself
            self.stdout_reader = ffdec.QueueReaderThread(self.proc.stdout, block_size)
            self.stdout_reader.queue = queue.Queue(16)
            self.stdout_reader.start()

        def failed(self) -> bool:
            """Whether ffmpeg ended with an error; call it after all output was read."""
            return bool(self.proc.wait())

        def close(self) -> None:
            if hasattr(self, "proc") and self.proc.poll() is None:
                self.proc.kill()
                self.proc.wait()

    return GuardedFfmpeg


def read_wav_header(stream: _Readable) -> tuple[int, int, int] | None:
    """Sample rate, channels and bits per sample of a WAV, read up to its first sample; None if there is no header."""
    found = None
    if len(stream.read(12)) < 12:  # RIFF, its size, WAVE
        return None
    while len(header := stream.read(8)) == 8:
        name, size = struct.unpack("<4sI", header)
        if name == b"data":
            return found
        content = stream.read(size)
        if name == b"fmt ":
            _, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", content)
            found = rate, channels, bits
    return None


def _wav_header(rate: int, channels: int) -> bytes:
    """The header of a streamed WAV with 16 bits per sample, whose length is not known yet."""
    frame_size = 2 * channels
    content = struct.pack("<HHIIHH", 1, channels, rate, rate * frame_size, frame_size, 16)
    sizes = struct.pack("<I", len(content)), b"\xff" * 4
    return b"RIFF" + sizes[1] + b"WAVEfmt " + sizes[0] + content + b"data" + sizes[1]


def _looks_like_audio(path: Path) -> bool:
    """Whether the file starts like a supported container. This excludes playlists, which GStreamer would follow."""
    with path.open("rb") as file:
        position = 0
        for _ in range(100):
            file.seek(position)
            head = file.read(16)
            if len(head) < 10 or not head.startswith(b"ID3"):
                break
            position += (
                10 + (head[6] & 127) * 2**21 + (head[7] & 127) * 2**14 + (head[8] & 127) * 2**7 + (head[9] & 127)
            )
    is_mpeg = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0
    return is_mpeg or head[4:8] in _ATOMS or head.startswith(_SIGNATURES)


def _limit_memory() -> None:
    """Limit the memory of this process and its children; Windows cannot, and macOS ignores the limit."""
    if sys.platform != "win32":
        import resource

        with suppress(ValueError, OSError):  # a lower limit is already set
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))


def _report_duration(seconds: float) -> None:
    """Print the declared duration in the format of ffmpeg."""
    minutes, seconds = divmod(seconds, 60)
    _report(f"  Duration: {int(minutes) // 60:02d}:{int(minutes) % 60:02d}:{seconds:05.2f}, ".encode())


def _report(line: bytes) -> None:
    os.write(2, line + b"\n")


def _exit(code: int) -> None:
    """End the process at once, without joining threads that still wait for a decoder."""
    os._exit(code)


if __name__ == "__main__":
    main()
