"""``python -m stonecli.util.isolated_worker``: analyzes a few files in an isolated process, which may crash.

The worker that starts it sends a pickled job, the paths or URLs and a memory limit on standard input. For each file,
the process writes one pickled result, or one line with an error, to standard output.
"""

from __future__ import annotations

import os
import pickle
import sys
from contextlib import suppress

MIN_MEMORY = 4 << 30  # bytes of address space; ONNX Runtime reserves a few GB of it, even if it uses only 150 MB


def main() -> None:
    """Read the job, write the results, and exit."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not mix with the results
    job, locations, limit = pickle.load(sys.stdin.buffer)  # noqa: S301 (sent by our own worker)
    if limit is not None and sys.platform != "win32":  # Windows has no such limits
        with suppress(ValueError, OSError):  # there may be a lower hard limit
            import resource

            resource.setrlimit(resource.RLIMIT_AS, (max(limit, MIN_MEMORY),) * 2)
    from stonecli.errors import describe

    try:
        for answer in job.answers(locations):
            pickle.dump(answer, answers)
            answers.flush()
    except BrokenPipeError:
        return
    except Exception as error:
        pickle.dump(describe(error), answers)
        answers.flush()


if __name__ == "__main__":
    main()
