"""``python -m stonecli.util.isolated_worker``: analyzes a few files in a process that may die alone.

A pickled job, its places and the limit of memory come on standard input, from the worker that has started it; an answer
a file, or a line that says why there is none, goes out as it is there.
"""

from __future__ import annotations

import os
import pickle
import sys
from contextlib import suppress

LEAST_MEMORY = 4 << 30  # bytes of address space, of which a runtime that needs 150 MB takes a few GB


def main() -> None:
    """Read the job, answer, end."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    job, places, limit = pickle.load(sys.stdin.buffer)  # noqa: S301 (the worker's own)
    if limit is not None and sys.platform != "win32":  # which has no such limits
        with suppress(ValueError, OSError):  # there may be a lower one
            import resource

            resource.setrlimit(resource.RLIMIT_AS, (max(limit, LEAST_MEMORY),) * 2)
    from stonecli.jobs import error_line

    try:
        for answer in job.heard(places):
            pickle.dump(answer, answers)
            answers.flush()
    except BrokenPipeError:
        return
    except Exception as error:
        pickle.dump(error_line(error), answers)
        answers.flush()


if __name__ == "__main__":
    main()
