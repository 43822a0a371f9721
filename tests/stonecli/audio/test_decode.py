import os
import struct
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
from mutagen.apev2 import APEv2
from mutagen.id3 import ID3, TIT2

from stonecli.audio.decode import open_audio, read_audio
from stonecli.errors import AudioError
from tests.fixture_types import Encode, RunFfmpeg
from tests.tones import PITCH, RATE, SECONDS, assert_is_the_tone, decoded, pitch_of, tone


class TestLengths:
    """A recording is whole, or an error."""

    def test_a_vbr_mp3_without_a_header_is_read_to_its_end(self, tmp_path: Path, ffmpeg: RunFfmpeg) -> None:
        # Near silence, then noise: the first frames are small, and extrapolating from them is wrong.
        loud = np.random.default_rng(0).standard_normal(44100 * 10).astype(np.float32) * 0.3
        soundfile.write(tmp_path / "a.wav", np.concatenate([tone(seconds=10) * 1e-3, loud]), 44100)
        ffmpeg("-i", tmp_path / "a.wav", "-write_xing", "0", "-id3v2_version", "0", "-q:a", "2", tmp_path / "bare.mp3")
        ffmpeg("-i", tmp_path / "a.wav", "-write_xing", "0", "-q:a", "2", "-metadata", "title=x", tmp_path / "id3.mp3")
        assert (tmp_path / "bare.mp3").read_bytes()[:1] == b"\xff"
        assert (tmp_path / "id3.mp3").read_bytes()[:3] == b"ID3"
        for name in ("bare.mp3", "id3.mp3"):
            assert len(decoded(tmp_path / name)) / RATE == pytest.approx(20, abs=0.2)

    def test_an_mp3_between_its_tags(self, tones: Callable[[str], Path], tmp_path: Path) -> None:
        path = tmp_path / "a.mp3"
        path.write_bytes(tones("mp3").read_bytes())
        ID3().save(path)
        tags = ID3(path)
        tags.add(TIT2(encoding=3, text="t" * 100_000))
        tags.save(path, v1=2)
        end = APEv2()
        end["KEY"] = "8A" * 1000
        end.save(path)
        content = path.read_bytes()
        assert content.startswith(b"ID3")
        assert b"APETAGEX" in content[-40000:]
        assert_is_the_tone(decoded(path))

    def test_an_id3_tag_before_a_flac_hides_no_truncation(self, tones: Callable[[str], Path], tmp_path: Path) -> None:
        tag = b"ID3\x03\0\0\0\0\0\x0a" + bytes(10)
        content = tones("flac").read_bytes()
        path = tmp_path / "a.flac"
        path.write_bytes(tag + content)
        assert_is_the_tone(decoded(path))
        path.write_bytes(tag + content[: len(content) // 2])
        with pytest.raises(AudioError, match="truncated"):
            decoded(path)

    @pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFF], ids=hex)
    @pytest.mark.parametrize("channels", [1, 2])
    def test_a_streamed_wav_is_read_to_its_end(self, tmp_path: Path, size: int, channels: int) -> None:
        path = tmp_path / "a.wav"
        soundfile.write(path, np.repeat(tone()[:, None], channels, axis=1), 44100)
        content = bytearray(path.read_bytes())
        assert content[36:40] == b"data"
        content[4:8] = content[40:44] = size.to_bytes(4, "little")
        path.write_bytes(content)
        assert_is_the_tone(decoded(path), slack=0.001)

    def test_a_wav_from_a_pipe(self, tmp_path: Path, ffmpeg: RunFfmpeg) -> None:
        soundfile.write(tmp_path / "a.wav", tone(), 44100)
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", tmp_path / "a.wav", "-f", "wav", "pipe:1"]
        (tmp_path / "b.wav").write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
        assert b"\xff\xff\xff\xff" in (tmp_path / "b.wav").read_bytes()[:100]
        assert_is_the_tone(decoded(tmp_path / "b.wav"), slack=0.001)

    @pytest.mark.parametrize("ending", ["wav", "aiff"])
    def test_a_file_that_announces_more_than_it_has_is_truncated(self, tmp_path: Path, ending: str) -> None:
        path = tmp_path / f"a.{ending}"
        soundfile.write(path, tone(), 44100, subtype="PCM_16")
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(AudioError, match=r"truncated \(.* bytes"):
            decoded(path)
        name, size = (b"data", "<I") if ending == "wav" else (b"SSND", ">I")
        at = content.index(name) + 4
        path.write_bytes(content[:at] + struct.pack(size, 100_000_000) + content[at + 4 :])
        with pytest.raises(AudioError, match=r"truncated \(.* of 100000000 bytes"):
            decoded(path)

    @pytest.mark.parametrize("moov", ["end", "faststart", "frag_keyframe+empty_moov"])
    def test_a_truncated_m4a(self, tmp_path: Path, ffmpeg: RunFfmpeg, moov: str) -> None:
        soundfile.write(tmp_path / "a.wav", tone(seconds=12), 44100)
        options = [] if moov == "end" else ["-movflags", moov]
        ffmpeg("-i", tmp_path / "a.wav", "-c:a", "aac", *options, tmp_path / "a.m4a")
        content = (tmp_path / "a.m4a").read_bytes()
        assert_is_the_tone(decoded(tmp_path / "a.m4a"), 12)
        (tmp_path / "a.m4a").write_bytes(content[: len(content) * 6 // 10])
        with pytest.raises(AudioError, match=r"truncated|moov atom not found"):
            decoded(tmp_path / "a.m4a")

    @pytest.mark.parametrize("container", ["mp3", "flac", "wavpack", "m4a alac"])
    def test_other_truncated_files(self, songs: dict[str, Path], tmp_path: Path, container: str) -> None:
        content = songs[container].read_bytes()
        path = tmp_path / "a"
        path.write_bytes(content[: len(content) * 6 // 10])
        with pytest.raises(AudioError, match=r"truncated|moov atom not found"):
            decoded(path)

    def test_a_video_longer_than_its_audio_is_not_truncated(self, tmp_path: Path, ffmpeg: RunFfmpeg) -> None:
        soundfile.write(tmp_path / "a.wav", tone(), 44100)
        film = ["-f", "lavfi", "-i", "color=s=16x16:d=12:r=2", "-c:v", "mpeg4"]
        ffmpeg("-i", tmp_path / "a.wav", *film, "-c:a", "aac", "-movflags", "+faststart", tmp_path / "a.mp4")
        assert_is_the_tone(decoded(tmp_path / "a.mp4"))
        content = (tmp_path / "a.mp4").read_bytes()
        (tmp_path / "a.mp4").write_bytes(content[: len(content) // 3])
        with pytest.raises(AudioError, match="truncated after"):
            decoded(tmp_path / "a.mp4")

    def test_a_duration_that_ffmpeg_only_estimates_is_no_error(self, tmp_path: Path, ffmpeg: RunFfmpeg) -> None:
        loud = np.random.default_rng(0).standard_normal(44100 * 20).astype(np.float32) * 0.3
        soundfile.write(tmp_path / "a.wav", np.concatenate([tone(seconds=12) * 1e-5, loud]), 44100)
        ffmpeg("-i", tmp_path / "a.wav", "-c:a", "aac", "-q:a", "2", tmp_path / "a.aac")
        assert len(decoded(tmp_path / "a.aac")) / RATE == pytest.approx(32, abs=0.2)


class TestFilesWithoutAudio:
    @pytest.mark.parametrize("name", ["a.mp3", "a.wav", "a.m4a", "a.gsm", "a.vox", "a.raw", "a"])
    def test_text_is_not_audio_with_any_name(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_text("This is a letter and no music, believe me.\n" * 3000)
        with pytest.raises(AudioError, match="cannot be decoded"):
            decoded(tmp_path / name)

    @pytest.mark.parametrize(
        "content", [bytes(100_000), np.random.default_rng(0).bytes(100_000)], ids=["zeros", "random"]
    )
    @pytest.mark.parametrize("name", ["a.mp3", "a.flac", "a.m4a", "a.raw"])
    def test_zeros_and_random_bytes_are_not_audio(self, tmp_path: Path, name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(AudioError):
            decoded(tmp_path / name)

    def test_an_empty_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.mp3").touch()
        with pytest.raises(AudioError, match="the file is empty"):
            decoded(tmp_path / "a.mp3")

    def test_pipes_and_devices_are_not_opened(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.mp3")  # opening it would wait for ever
        for path in (tmp_path, tmp_path / "a.mp3", Path("/dev/zero")):
            with pytest.raises(AudioError, match="not a regular file"):
                decoded(path)
        with pytest.raises(FileNotFoundError):
            decoded(tmp_path / "nothing.mp3")

    @pytest.mark.parametrize("channels", [1, 2, 6])
    def test_nan_and_infinity_are_silence(self, tmp_path: Path, channels: int) -> None:
        samples = np.repeat(tone()[:, None], channels, axis=1)
        samples[1000:1100] = np.nan
        samples[2000, 0], samples[2000, -1] = np.inf, -np.inf
        samples[3000] = np.finfo(np.float32).max
        soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = decoded(tmp_path / "a.wav")
        assert np.isfinite(found).all()
        assert not found[1010:1090].any()
        assert found[2000] == 0
        assert np.abs(found).max() <= 1e6
        assert np.allclose(found[5000:], samples[5000:, 0], atol=1e-6)


NAMES = [
    "two  spaces ",
    'it\'s "quoted" `here` $HOME ; rm -rf',
    "[red]loud[-red]",
    "line\nbreak",
    "\x1b[31mred\x1b]0;title\x07",
    "héllo 🎹 👩‍🎤 ‮rtl",
    b"not \xff\xfe UTF-8",
    "-i",
    "--help",
    "concat:x|y",
    "http:",
    "http:example",
    "file:x",
    "pipe:0",
    "data:audio,x",
    "crypto:x",
    "subfile,,start,0,end,9,,:x",
    "%03d",
    "*?{a,b}",
    "n\n  Duration: 09:00:00.00, start",
    "n\n  Stream #0:0: Video: h264",
    "x" * 240,
]


@pytest.fixture
def target(tmp_path: Path, ffmpeg: RunFfmpeg) -> Path:
    """Music in the same folder that a hostile file points at; it can be decoded in itself."""
    soundfile.write(tmp_path / "target.wav", tone(), 44100)
    ffmpeg("-i", tmp_path / "target.wav", "-c:a", "aac", tmp_path / "target.ts")
    ffmpeg("-i", tmp_path / "target.wav", "-c:a", "aac", tmp_path / "target.m4a")
    return tmp_path


class TestNames:
    @pytest.mark.parametrize("container", ["wav 16 bit", "m4a aac"])
    @pytest.mark.parametrize("name", NAMES, ids=ascii)
    def test_names_are_never_read_as_options_or_urls(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        tones: Callable[[str], Path],
        container: str,
        name: str | bytes,
    ) -> None:
        monkeypatch.chdir(tmp_path)  # so that the name comes first in the path
        source = tones(container)
        path = Path(os.fsdecode(name) + source.suffix)
        path.write_bytes(source.read_bytes())
        assert_is_the_tone(decoded(path))
        path.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
        with pytest.raises(AudioError):
            decoded(path)

    @pytest.mark.parametrize("name", ["x.m4a", "x.m3u8", "x.mp3", "x.ffconcat"])
    @pytest.mark.parametrize(
        "text",
        [
            "ffconcat version 1.0\nfile target.wav\n",
            "ffconcat version 1.0\nfile target.m4a\n",
            "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\ntarget.ts\n#EXT-X-ENDLIST\n",
            "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
            '<?xml version="1.0"?><MPD><Period><AdaptationSet><Representation><BaseURL>target.m4a</BaseURL>'
            "</Representation></AdaptationSet></Period></MPD>",
            "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
        ],
        ids=["concat wav", "concat m4a", "hls", "hls http", "dash", "sdp"],
    )
    def test_a_playlist_does_not_open_other_files(self, target: Path, name: str, text: str) -> None:
        (target / name).write_text(text)
        with pytest.raises(AudioError, match="cannot be decoded"):
            decoded(target / name)


class TestBlocks:
    @pytest.mark.parametrize("container", ["wav 16 bit", "flac", "mp3", "m4a aac", "m4a alac"])
    def test_blocks_are_small_and_never_empty(self, tmp_path: Path, encode: Encode, container: str) -> None:
        path = encode(tone(seconds=30), 44100, container, tmp_path / "a")
        lengths = [len(block) for block in read_audio(path, RATE)]
        assert min(lengths) > 0
        assert max(lengths) <= 5 * RATE
        assert len(lengths) > 5

    def test_many_channels_make_blocks_shorter_not_larger(self, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "a.wav", np.zeros((200_000, 64), dtype=np.float32), 96_000, subtype="PCM_U8")
        lengths = [len(block) for block in read_audio(tmp_path / "a.wav", RATE)]
        assert sum(lengths) == pytest.approx(200_000 / 96_000 * RATE, abs=1)
        assert max(lengths) * 96_000 / RATE * 64 * 4 < 16 << 20  # bytes decoded at a time
        soundfile.write(tmp_path / "b.wav", np.zeros((1000, 100), dtype=np.float32), 44_100, subtype="PCM_U8")
        with pytest.raises(AudioError, match="100 channels"):
            decoded(tmp_path / "b.wav")


class TestFormats:
    def test_every_container_has_its_length_and_its_pitch(
        self, any_container: str, tones: Callable[[str], Path]
    ) -> None:
        assert_is_the_tone(decoded(tones(any_container)))

    def test_the_file_extension_does_not_matter(
        self, any_container: str, tones: Callable[[str], Path], tmp_path: Path
    ) -> None:
        path = tmp_path / ("wrong.mp3" if "mp3" not in any_container else "wrong.flac")
        path.write_bytes(tones(any_container).read_bytes())
        assert_is_the_tone(decoded(path))

    @pytest.mark.parametrize("rate", [8000, 16000, 22050, 48000, 96000, 192000])
    @pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "FLOAT", "DOUBLE"])
    def test_any_rate_and_depth(self, tmp_path: Path, rate: int, subtype: str) -> None:
        soundfile.write(tmp_path / "a.wav", tone(rate), rate, subtype=subtype)
        assert_is_the_tone(decoded(tmp_path / "a.wav"), slack=0.001)

    @pytest.mark.parametrize("kind", ["RF64", "W64", "CAF", "AU"])
    def test_rarer_containers_of_samples(self, tmp_path: Path, kind: str) -> None:
        soundfile.write(tmp_path / "a", tone(), 44100, format=kind, subtype="PCM_16")
        assert_is_the_tone(decoded(tmp_path / "a"), slack=0.001)

    @pytest.mark.parametrize("channels", [2, 6])
    @pytest.mark.parametrize("container", ["wav 16 bit", "flac", "m4a aac"])
    def test_channels_are_averaged(self, tmp_path: Path, encode: Encode, channels: int, container: str) -> None:
        path = encode(np.repeat(tone()[:, None], channels, axis=1), 44100, container, tmp_path / "a")
        samples = decoded(path)
        if channels == 2 or container != "m4a aac":  # ffmpeg weighs the six of a cinema
            assert_is_the_tone(samples)
        assert len(samples) / RATE == pytest.approx(SECONDS, abs=0.06)
        assert pitch_of(samples) == pytest.approx(PITCH, abs=1.0)
        one = np.zeros((44100, channels), dtype=np.float32)
        one[:, 0] = tone(seconds=1)
        soundfile.write(tmp_path / "one.wav", one, 44100, subtype="FLOAT")
        assert np.abs(decoded(tmp_path / "one.wav")).max() == pytest.approx(0.4 / channels, rel=0.05)

    @pytest.mark.parametrize("container", ["wav 16 bit", "wavpack"])
    def test_an_odd_rate_is_refused(
        self, tmp_path: Path, encode: Encode, monkeypatch: pytest.MonkeyPatch, container: str
    ) -> None:
        path = encode(tone(seconds=120), 44100, container, tmp_path / "a")
        monkeypatch.setattr("stonecli.audio.source.MAX_RATE", 8000)
        with pytest.raises(AudioError, match="unsupported format: 1 channels at 44100 Hz"):
            open_audio(path, 11025)
