"""Start minihub from a directory: ``python -m minihub`` or ``python DIR/minihub/__main__.py``.

The directory is a checkout, an installation, or the unpacked copy of minihub.pyz. The archive
itself starts in ``_bootstrap.py`` and then calls :func:`main` here.

Rules of this file: it parses under every Python (see ``_bootstrap.py``), hence no annotations.
It imports nothing heavy: ``--version`` and ``proxy`` need the standard library only, and ``proxy``
is started with ``-I -S``, where there are no site-packages. The directory somebody happens to
stand in is taken off ``sys.path`` before anything of ours is imported.

Threads: the main thread, before any other exists.
"""

import os
import sys


def main(argv=None):
    """Run one command line (without the program's name); return the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # `minihub.pyz --help-all | head`: who read the output is gone. Python would complain
        # again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1


def _dispatch(args):
    if args == ["--version"]:
        import minihub

        print("minihub " + minihub.__version__)
        return 0
    if args[:1] == ["proxy"]:
        from minihub.proxy.main import main as proxy_main

        return proxy_main(args[1:])
    from minihub import runtime

    if not runtime.is_light(args):
        missing = runtime.missing_packages()
        if missing:
            sys.stderr.write("minihub: " + missing + "\n")
            return 1
    from minihub.cli import main as cli_main

    return cli_main(args)


def _settle():
    """Make this directory's ``minihub`` importable and the current directory not.

    Python has put one entry of its own in front: the current directory for ``-m``, this file's
    directory for a script (whose ``clock.py`` or ``store.py`` would hide other people's), none
    under ``-I`` or ``-P``.
    """
    package = os.path.dirname(os.path.abspath(__file__))
    parent = os.path.dirname(package)
    if not (getattr(sys.flags, "isolated", 0) or getattr(sys.flags, "safe_path", 0)):
        if __package__:
            try:
                own = os.getcwd()
            except OSError:  # it was removed: Python has put "" in front
                own = ""
        else:
            own = package
        if sys.path[0] in ("", own):
            del sys.path[0]
    if not __package__:
        sys.path.insert(0, parent)
    from minihub import _bootstrap

    problem = _bootstrap.unsupported()
    if problem is not None:
        sys.stderr.write("minihub: " + problem + "\n")
        return 1
    _bootstrap.open_standard_streams()

    from minihub import runtime

    runtime.drop_relative_path_entries()
    if runtime.form() == "cache":
        from minihub import bundle

        bundle.hold(parent)
    elif not __package__:
        # Once minihub is imported its modules are found through the package itself; what else
        # lies beside it in a checkout is nobody's dependency.
        sys.path.remove(parent)
    return None


if __name__ == "__main__":
    sys.exit(_settle() or main())
