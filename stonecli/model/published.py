"""The checkpoints that the authors of STONE and S-KEY have published: URL, SHA-256 and license.

The files are not part of this repository, and stone downloads one only if the user asks for it by name. The URLs
contain a commit, so their content does not change; the hashes verify it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedModel:
    """One published checkpoint.

    Attributes:
        name: name for ``stone models add``.
        title: model and paper.
        page: web page of the authors.
        url: URL of the checkpoint.
        sha256: SHA-256 of the checkpoint.
        licence: license, as far as the authors state it.
    """

    name: str
    title: str
    page: str
    url: str
    sha256: str
    licence: str


_STONE_PAGE, _SKEY_PAGE = "https://github.com/deezer/stone", "https://github.com/deezer/skey"
_STONE_FILES = "https://raw.githubusercontent.com/deezer/stone/c0d2fdf15d23aea2c34d8fc7c73cd53d898451d7/ckpt"
_SKEY_FILES = "https://raw.githubusercontent.com/deezer/skey/918b83d273568d5041569bb8068843d19a335726/skey/models"
_NONE_STATED = "not stated, so all rights are reserved: ask the authors before any use but private study"

PUBLISHED = {
    model.name: model
    for model in (
        PublishedModel(
            "stone",
            "STONE, 12 key signatures, self-supervised (Kong et al., ISMIR 2024)",
            _STONE_PAGE,
            f"{_STONE_FILES}/semitone_ks.pt",  # the best STONE according to the README, despite its name
            "d4bb627c78c164ee78bcd5472217a0943286a36b30b397d9c9da1ce33c026d73",
            _NONE_STATED,
        ),
        PublishedModel(
            "semi-tone",
            "Semi-TONE, 24 keys, semi-supervised (Kong et al., ISMIR 2024)",
            _STONE_PAGE,
            f"{_STONE_FILES}/semisupervised_ks_mode.pt",
            "eb7a456dcfaf53f9eba3a468071ca3f3214d2f56070d961fff8ac6434ecb3cd5",
            _NONE_STATED,
        ),
        PublishedModel(
            "skey",
            "S-KEY, 24 keys, self-supervised (Kong et al., ICASSP 2025)",
            _SKEY_PAGE,
            f"{_SKEY_FILES}/skey.pt",
            "78dfd0ad4fa9434bf7cec70a25934b7c575bda9c80e994700140770ad3a5ead4",
            "MIT for the code (Deezer); not stated for the weights",
        ),
    )
}


def published_by_sha256(sha256: str) -> PublishedModel | None:
    """The published checkpoint with this SHA-256 in hexadecimal, or None."""
    return next((model for model in PUBLISHED.values() if model.sha256 == sha256), None)
