"""Start minihub.pyz: this file is the archive's own ``__main__.py``.

Rules of this file: it parses under every Python, 2.7 included, so that an interpreter that is too
old says one clear line instead of a syntax error: no annotations, no f-strings, nothing imported
before :func:`unsupported` has spoken. It does only what must happen in the archive; after
:func:`minihub.bundle.enter` everything comes from somewhere else, and the only frames of the
archive that stay on the stack are those of this file, which forgets its loader: a traceback
printed hours later must not look for source lines in an archive that was replaced meanwhile.

Threads: the main thread, before any other exists.
"""

import os
import sys

#: The oldest Python that runs minihub.
OLDEST = (3, 10)


def unsupported(version=None, platform=None):
    """Return one line that says why minihub cannot run here, or None when it can."""
    version = tuple(version or sys.version_info)[:3]
    platform = platform or sys.platform
    if platform == "win32":
        return (
            "Windows is not supported: run minihub in WSL (the Windows Subsystem for Linux),"
            " on Linux or on macOS"
        )
    if version < OLDEST:
        return (
            "Python "
            + ".".join(str(part) for part in version)
            + " is too old: minihub needs Python 3.10 or newer (this one is "
            + (sys.executable or "unknown")
            + ")"
        )
    return None


def open_standard_streams():
    """Put /dev/null where standard input, output or error were closed by whoever started us.

    Else the next files opened get their numbers: the database or the lock would be what every
    child, and the C library, take for standard error.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
            os.set_inheritable(number, True)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))


def main():
    """Run the archive; return the exit code."""
    global __file__, __loader__, __spec__
    problem = unsupported()
    if problem is not None:
        sys.stderr.write("minihub: " + problem + "\n")
        return 1

    open_standard_streams()
    if sys.argv[1:] == ["--version"]:  # needs nothing more: neither a path nor a cache
        from minihub import __version__

        sys.stdout.write(__version__ + "\n")
        return 0

    try:
        os.getcwd()
    except OSError:
        sys.stderr.write("minihub: the working directory is gone; change to the hub's own\n")
        return 1

    from minihub import bundle

    archive = os.path.dirname(os.path.abspath(__file__))
    problem = bundle.enter(archive, sys.argv[1:])
    if problem:
        sys.stderr.write("minihub: " + problem + "\n")
        return 1

    # From here on minihub is another copy than the one imported above.
    import minihub.__main__ as copy

    __file__ = copy.__file__
    __loader__ = __spec__ = None
    return copy.main(sys.argv[1:])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
