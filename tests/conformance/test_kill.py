"""kill -9 at any moment: every file is one that a whole write would have left, and the journal leads back.

30 kills over all containers, and 300 in the slow test; ``STONE_KILLS=3000`` sets another number.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stonecli.key import Key
from stonecli.tags import FieldRule, remove_key, write_key

KILLS = [30, pytest.param(int(os.environ.get("STONE_KILLS", "300")), marks=pytest.mark.slow)]

# A process that has loaded everything forks one that writes, kills it after a random time, and checks the file.
SCRIPT = """
import json, os, pathlib, random, signal, sys, time
from stonecli.tags.edit import atomic_replace as safe_write
from stonecli.tags import FieldRule, read_tags, remove_key, undo_change, write_key
from stonecli.tags.undo.journal import UndoJournal
from stonecli.key import Key

folder, seed, kills = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
known = {name: [bytes.fromhex(state) for state in states] for name, states in json.load(sys.stdin).items()}
TEXTS = (FieldRule("key", "musical"), FieldRule("comment", "musical", "prepend"))
STEPS = (
    lambda path, run: write_key(path, Key.parse("8A"), journal=run),
    lambda path, run: write_key(path, Key.parse("3B"), TEXTS, journal=run),
    lambda path, run: remove_key(path, TEXTS, journal=run),
)
for name, states in known.items():  # loads the modules that read, once
    (folder / name).write_bytes(states[0])
    read_tags(folder / name)
chance = random.Random(seed)
journal_file = folder / "journal" / "undo.sqlite3"
killed = changed = left = 0
longest = 0.0
while killed < kills:
    for name, states in known.items():
        (folder / name).write_bytes(states[0])
    names = chance.sample(sorted(known), len(known))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            run = UndoJournal(journal_file).start("")
            os.write(writer, b"!")
            for name in names:
                for step in STEPS:
                    step(folder / name, run)
        finally:
            os._exit(0)
    os.read(reader, 1)
    begin = time.monotonic()
    if longest:
        time.sleep(chance.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
    killed += os.waitpid(child, 0)[1] == signal.SIGKILL
    longest = longest or (time.monotonic() - begin) / 6  # the first one is let go through: it tells how fast this is
    os.close(reader)
    os.close(writer)
    for name, states in known.items():
        content = (folder / name).read_bytes()
        assert content in states, (seed, killed, name)
        changed += content != states[0]
    leftovers = [path for path in folder.iterdir() if path.name not in known and path != journal_file.parent]
    now = time.time
    time.time = lambda: now() + 100
    assert safe_write.remove_leftovers(leftovers) == len(leftovers), leftovers
    time.time = now
    left += len(leftovers)
    journal = UndoJournal(journal_file)
    last = journal.last_run()
    if last is not None:
        for change in journal.changes(last):
            # The last record may be of a change that was not made any more: then the file is what it was before it.
            undo_change(change.path, change.undo)
            journal.mark_undone(change)
    journal.close()
    for name, states in known.items():
        assert (folder / name).read_bytes() == states[0], ("undo", seed, killed, name)
print(json.dumps([killed, changed, left]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kills", KILLS)
def test_a_kill_at_any_time_leaves_a_complete_file(kills: int, samples: dict[str, bytes], tmp_path: Path) -> None:
    texts = (FieldRule("key", "musical"), FieldRule("comment", "musical", "prepend"))
    steps = [
        lambda path: write_key(path, Key.parse("8A")),
        lambda path: write_key(path, Key.parse("3B"), texts),
        lambda path: remove_key(path, texts),
    ]
    known = {}
    for name, content in samples.items():
        if name in ("adts", "fragmented"):  # which are refused
            continue
        path = tmp_path / name
        path.write_bytes(content)
        states = [content]
        for step in steps:
            assert step(path), name
            states.append(path.read_bytes())
        known[name] = [state.hex() for state in states]
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path, "1", str(kills)],
        input=json.dumps(known),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    killed, changed, left = json.loads(result.stdout)
    assert killed == kills
    assert changed > len(known)  # more than the run that was let through: it was killed at work, too
    assert left > 0  # and in the middle of a file
