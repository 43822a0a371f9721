"""``python -m stonecli.audio.other_decoders FILE``: decode ``FILE`` with audioread and write a WAV to standard output.

``stonecli.audio.decode`` starts this if the ffmpeg of the ``imageio-ffmpeg`` wheel is missing or does not start.
audioread then decodes with Core Audio (macOS), GStreamer, MAD or the system's ffmpeg, whichever is there. The process
isolates stone from libraries that a crafted file may crash, and it has a memory limit. On standard error it reports
what ``stonecli.audio.decode`` reads from ffmpeg: the announced duration, and the decoder's messages.

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

# Demuxers of ffmpeg that may open a file. Playlists and the like, which lead to other files, are not among them.
_DEMUXERS = "aac,aiff,ape,asf,au,caf,dsf,flac,iff,matroska,mov,mp3,mpc,mpc8,ogg,shn,tak,tta,w64,wav,wv"

# How the files begin that a decoder may open, after ID3 tags. No playlist begins like this.
_SIGNATURES = (
    *(b"OggS", b"fLaC", b"RIFF", b"RF64", b"BW64", b"FORM", b"FRM8", b"riff", b"caff", b".snd", b"dns."),
    *(b"wvpk", b"MAC ", b"MP+", b"MPCK", b"TTA1", b"tBaK", b"ajkg", b"DSD ", b"\x1a\x45\xdf\xa3"),
    bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),  # ASF
)
_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes:
        """The next ``size`` bytes; fewer at the end only."""


def guarded_input(path: str) -> list[str]:
    """ffmpeg's options that open the file at ``path`` and nothing else, with bounded allocations."""
    return [
        *("-nostdin", "-nostats", "-hide_banner", "-threads", "1", "-max_alloc", str(MAX_ALLOCATION)),
        *("-protocol_whitelist", "file,pipe", "-format_whitelist", _DEMUXERS, "-i", f"file:{path}"),
    ]


# Frames of a thousand samples would each be handed through five threads: a third of the time. More than two channels
# are mixed to two with ffmpeg's weights, which leave out the subwoofer.
GUARDED_OUTPUT = [
    *("-map", "0:a:0", "-af", "asetnsamples=n=32768:p=0,aformat=channel_layouts=mono|stereo"),
    *("-rematrix_maxval", "1", "-map_metadata", "-1", "-fflags", "+bitexact"),
]


def main() -> None:
    """Decode the file that the command line names; the exit code is 0 where that succeeded."""
    path = Path(sys.argv[1]).absolute()
    _leave_current_folder()
    _limit_memory()
    output = sys.stdout.buffer
    try:
        if not _looks_like_audio(path):
            raise ValueError("not a container of audio")
        with _opened(path) as audio:
            if audio.duration:
                _report_duration(float(audio.duration))
            # The sizes are those of a stream: nobody knows them yet.
            block_size = audio.channels * 2
            form = struct.pack(
                "<HHIIHH", 1, audio.channels, audio.samplerate, audio.samplerate * block_size, block_size, 16
            )
            output.write(
                b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<I", len(form)) + form + b"data\xff\xff\xff\xff"
            )
            for block in audio:
                output.write(block)
            output.flush()
            failed = isinstance(audio, _process_class()) and audio.failed()
    except _NoBackend:
        _report(NO_BACKEND_MESSAGE)
        _leave(NO_BACKEND_CODE)
    except BrokenPipeError:  # nobody reads any more
        _leave(1)
    except Exception as error:
        _report(f"[audioread] {type(error).__name__}: {error}".encode("utf-8", "replace").replace(b"\n", b" "))
        _leave(1)
    _leave(1 if failed else 0)


class _NoBackend(Exception):
    """audioread has no decoder here."""


def _opened(path: Path) -> AudioFile:
    """The file, opened by the first backend that can; errors are those of the last one."""
    backends = _backends()
    if not backends:
        raise _NoBackend
    for backend in backends[:-1]:
        with suppress(Exception):
            return backend(str(path))
    return backends[-1](str(path))


def _backends() -> list[Any]:
    """audioread's decoders on this machine in audioread's own order, with guards around ffmpeg.

    Its reader of WAV and AIFF is left out: libsndfile reads those.
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
    """The absolute path of the ffmpeg on PATH."""
    import shutil

    found = shutil.which("ffmpeg")
    return found if found and Path(found).is_absolute() else None


def _leave_current_folder() -> None:
    """No program is to be found in the current folder, which may be one of downloads: audioread starts some by name."""
    folders = [folder for folder in os.get_exec_path() if Path(folder).is_absolute()]
    os.environ["PATH"] = os.pathsep.join(folders)
    with suppress(OSError):
        os.chdir(Path(sys.executable).parent)  # Windows looks there before PATH


def _process_class() -> type[Any]:
    """audioread's ffmpeg backend with stone's guards around the process.

    The original starts ffmpeg without limits on formats, protocols and memory, keeps all output that was not read yet,
    and takes sample rate and length from text that includes the file's name and tags.
    """
    import queue

    from audioread import ffdec

    class GuardedFfmpeg(ffdec.FFmpegAudioFile):  # type: ignore[misc]
        def __init__(self, filename: str, block_size: int = 1 << 16) -> None:
            program = _system_ffmpeg()
            if program is None:
                raise ffdec.NotInstalledError
            command = [program, *guarded_input(filename), *GUARDED_OUTPUT, "-c:a", "pcm_s16le", "-f", "wav", "pipe:1"]
            # Its messages go to our standard error, where stonecli.audio.decode reads duration and truncation.
            self.proc = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)  # noqa: S603
            assert self.proc.stdout is not None  # noqa: S101 (for the type checker)
            header = read_wav_header(self.proc.stdout)
            if header is None:
                self.proc.stdout.close()
                self.proc.wait()
                raise ffdec.UnsupportedError
            self.samplerate, self.channels, _ = header
            self.duration = 0.0  # ffmpeg reports it itself
            self.stdout_reader = ffdec.QueueReaderThread(self.proc.stdout, block_size)
            self.stdout_reader.queue = queue.Queue(16)
            self.stdout_reader.start()

        def failed(self) -> bool:
            """Whether ffmpeg ended with an error, after all output was read."""
            return bool(self.proc.wait())

        def close(self) -> None:
            if hasattr(self, "proc") and self.proc.poll() is None:
                self.proc.kill()
                self.proc.wait()

    return GuardedFfmpeg


def read_wav_header(stream: _Readable) -> tuple[int, int, int] | None:
    """Sample rate, channels and bits per sample of a WAV, read up to its first sample; None where there is none."""
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
    """The header of a WAV with 16 bits per sample whose length nobody knows yet."""
    frame_size = 2 * channels
    content = struct.pack("<HHIIHH", 1, channels, rate, rate * frame_size, frame_size, 16)
    sizes = struct.pack("<I", len(content)), b"\xff" * 4
    return b"RIFF" + sizes[1] + b"WAVEfmt " + sizes[0] + content + b"data" + sizes[1]


def _looks_like_audio(path: Path) -> bool:
    """Whether the file begins like one of the containers that are to be decoded: GStreamer follows playlists."""
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
    """Limit this process and its children, where the system can: not on Windows, and macOS ignores it."""
    if sys.platform != "win32":
        import resource

        with suppress(ValueError, OSError):  # there may be a lower limit
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))


def _report_duration(seconds: float) -> None:
    """Report the announced length as ffmpeg does."""
    minutes, seconds = divmod(seconds, 60)
    _report(f"  Duration: {int(minutes) // 60:02d}:{int(minutes) % 60:02d}:{seconds:05.2f}, ".encode())


def _report(line: bytes) -> None:
    os.write(2, line + b"\n")


def _leave(code: int) -> None:
    """End at once: threads that still wait for an ended decoder are not waited for."""
    os._exit(code)


if __name__ == "__main__":
    main()
