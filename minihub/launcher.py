"""Becomes another program: the last steps before a server's own code runs, done in its process.

The hub is threaded, so nothing may run in a forked copy of it; it starts this small program
instead, which takes a description from an inherited socket, makes its own process what the
description asks for (signals, umask, limits, user, directory), and executes the command in place.
The process id is the server's from the beginning.

Rules of this file: the standard library only, and nothing of minihub, since it is run as a script
by ``python -I -S``. It reads the description from the descriptor whose number is its only
argument: secrets and environment never stand on a command line. With ``--serve`` before that number
it is a prepared one instead, and makes a copy of itself for each pair of descriptors that it gets.
It writes at most two JSON lines
back: ``{"cwd": …}`` right before the command is executed, and ``{"step": …, "path": …, "errno":
…, "text": …}`` if a step fails. The descriptor closes when the command is executed.

The description is one JSON object. ``argv`` (not empty), ``env``, ``cwd``, ``cwd_fallback``,
``umask`` (or null), ``nice``, ``rlimits`` (``{"RLIMIT_NOFILE": [soft, hard]}``), ``cpus`` (numbers
of processors, empty for all), ``cgroup`` (directory, empty to stay), ``user`` (name for the
supplementary groups, empty to stay who we are), ``uid``, ``gid``, ``no_new_privs``, ``sandbox``
(null, or what Landlock takes away: see ``description`` in minihub/landlock.py).
Texts travel as the Latin-1 reading of their bytes, so that every byte arrives as it was.

Threads: one.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import struct
import sys

PR_SET_NO_NEW_PRIVS = 38
CLONE_PARENT = 0x8000
#: openat2(2), the same number on every processor.
OPENAT2 = 437
AT_FDCWD = -100
RESOLVE_NO_SYMLINKS = 0x04
#: The number of clone(2), whose arguments all are 0 here but the first.
CLONE = {"x86_64": 56, "aarch64": 220}
#: prlimit64(2) as processors call it: what the kernel names the processor, and the call's number.
#: The second and the last are those of 32-bit programs on the one before.
PRLIMIT = ((0xC000003E, 302), (0x40000003, 340), (0xC00000B7, 261), (0x40000028, 369))
PR_SET_SECCOMP = 22
EXIT_CODE = 126


class StepFailed(Exception):
    """Raised when a step fails; ``path`` names what it failed on."""

    def __init__(self, path: bytes | str, error: Exception) -> None:
        super().__init__(str(error))
        self.path = path
        self.error = error


def read_description(descriptor: int) -> dict:
    """Return the description, read to its end; the descriptor will not reach the command."""
    os.set_inheritable(descriptor, False)
    pieces = []
    while piece := os.read(descriptor, 65536):
        pieces.append(piece)
    return json.loads(b"".join(pieces))


def answer(descriptor: int, **facts: object) -> None:
    """Write one JSON line; a hub that no longer listens does not matter."""
    try:
        os.write(descriptor, json.dumps(facts).encode() + b"\n")
    except OSError:
        pass


def reset_signals(spec: dict) -> None:
    """Give every signal its default meaning: Python ignores SIGPIPE, nohup SIGHUP, ``&`` SIGINT."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            pass  # reserved by the C library
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def join_group(spec: dict) -> None:
    """Enter the control group, while we are still who may move processes there."""
    if spec["cgroup"]:
        path = os.path.join(spec["cgroup"].encode("latin-1"), b"cgroup.procs")
        try:
            with open(path, "wb", buffering=0) as file:
                file.write(b"0")
        except OSError as error:
            raise StepFailed(path, error) from error


def set_limits(spec: dict) -> None:
    """Apply umask, niceness, processors and resource limits, while we may still raise them."""
    if spec["umask"] is not None:
        os.umask(spec["umask"])
    if spec["nice"]:
        try:
            os.nice(spec["nice"])
        except OSError as error:
            raise StepFailed(f"nice {spec['nice']}", error) from error
    if spec["cpus"]:
        try:
            os.sched_setaffinity(0, spec["cpus"])
        except OSError as error:
            numbers = ", ".join(str(number) for number in spec["cpus"])
            raise StepFailed(f"processors {numbers}", error) from error
    if spec["rlimits"]:
        import resource

        for name, limits in spec["rlimits"].items():
            try:
                resource.setrlimit(getattr(resource, name), tuple(limits))
            except (AttributeError, OSError, ValueError) as error:
                raise StepFailed(name, error) from error


def call(what: str, function: str, *arguments: object) -> int:
    """Call a function of the C library; ``what`` names it in a failure."""
    import ctypes

    try:
        result = getattr(ctypes.CDLL(None, use_errno=True), function)(
            *(ctypes.c_long(one) if isinstance(one, int) else one for one in arguments)
        )
    except AttributeError as error:
        raise StepFailed(what, error) from error
    if result < 0:
        number = ctypes.get_errno()
        raise StepFailed(what, OSError(number, os.strerror(number)))
    return result


def become_user(spec: dict) -> None:
    """Forbid regaining privileges if asked, and take on the user's ids and groups for good.

    Nothing may be imported after this: the user need not be able to read this interpreter.
    """
    if spec["no_new_privs"] or spec["sandbox"]:
        call("no_new_privs", "prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if spec["user"]:
        name = spec["user"].encode("latin-1")
        try:
            os.setgid(spec["gid"])
            os.initgroups(name, spec["gid"])
            os.setuid(spec["uid"])
        except OSError as error:
            raise StepFailed(name, error) from error


def enter_directory(spec: dict) -> None:
    """Change to ``cwd``; with ``cwd_fallback`` to its nearest usable parent below the root.

    Where there is none either, to a new temporary directory. ``cwd`` then says where we are.
    Runs as the user, whose right to be there is what counts.
    """
    path = wanted = spec["cwd"].encode("latin-1")
    while path.strip(b"/") or not spec["cwd_fallback"]:
        try:
            os.chdir(path)
            break
        except OSError as error:
            if not spec["cwd_fallback"]:
                raise StepFailed(wanted, error) from error
        path = os.path.dirname(path.rstrip(b"/"))
    else:
        path = f"/tmp/minihub-home-{os.urandom(8).hex()}".encode("latin-1")
        os.mkdir(path, 0o700)
        os.chdir(path)
    spec["cwd"] = path.decode("latin-1")


def open_path(path: bytes) -> int:
    """Return a descriptor that stands for a path without any link in it. Raises OSError."""
    flags = os.O_PATH | os.O_CLOEXEC
    how = struct.pack("=QQQ", flags, 0, RESOLVE_NO_SYMLINKS)
    try:
        return call("path", "syscall", OPENAT2, AT_FDCWD, path, how, len(how))
    except StepFailed as failed:
        if failed.error.errno not in (errno.ENOSYS, errno.EPERM):
            raise failed.error from None
    # A container's filter of calls may not know that one.
    descriptor = os.open(path, flags | os.O_NOFOLLOW)
    if os.readlink(b"/proc/self/fd/%d" % descriptor) != path:
        os.close(descriptor)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return descriptor


def enter_sandbox(spec: dict) -> None:
    """Give up all access to files that no rule allows, for good and with all that comes of us.

    A path that is gone, or leads through a link now, is left out: links may lead anywhere.
    """
    sandbox = spec["sandbox"]
    if not sandbox:
        return
    attributes = struct.pack("=QQQ", sandbox["handled"], 0, sandbox["scoped"])[: sandbox["size"]]
    create, add, restrict = 444, 445, 446  # the same numbers on every processor
    ruleset = call("landlock", "syscall", create, attributes, len(attributes), 0)
    for name, rights in sandbox["rules"]:
        path = name.encode("latin-1")
        try:
            descriptor = open_path(path)
        except OSError:
            continue
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISDIR(mode):
            rights &= sandbox["file_rights"]
        if rights and not stat.S_ISLNK(mode):
            rule = struct.pack("=Qi", rights, descriptor)
            call(name, "syscall", add, ruleset, 1, rule, 0)
        os.close(descriptor)
    call("landlock", "syscall", restrict, ruleset, 0)
    os.close(ruleset)


def limits_filter() -> bytes:
    """Return a program for the kernel that refuses to change limits of processes by their ids.

    To the kernel all servers and the hub are one user's, who may set any limit of any of them, and
    a limit of no time ends a process. For itself (0) a program may go on setting limits.
    """
    load, equal, clear, end = 0x20, 0x15, 0x54, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | errno.EPERM
    number, processor, process, new_low, new_high = 0, 4, 16, 32, 36
    steps: list[tuple[int, int, int, int]] = [(load, 0, 0, processor)]
    for machine, call_number in PRLIMIT:
        # After "equal": how many steps to leave out if it is, and if not. Another processor's are
        # all left out; bit 30 marks calls of x32 programs.
        steps += [
            (equal, 0, 11, machine),
            (load, 0, 0, number),
            (clear, 0, 0, 0xBFFFFFFF),
            (equal, 0, 6, call_number),
            (load, 0, 0, process),
            (equal, 4, 0, 0),
            (load, 0, 0, new_low),
            (equal, 0, 3, 0),
            (load, 0, 0, new_high),
            (equal, 0, 1, 0),
            (end, 0, 0, allow),
            (end, 0, 0, refuse),
        ]
    steps.append((end, 0, 0, allow))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def refuse_limits(spec: dict) -> None:
    """Take away the right to set limits of other processes, where the kernel has such filters."""
    if not spec["sandbox"]:
        return
    import ctypes

    program = ctypes.create_string_buffer(limits_filter())
    size = len(program) - 1
    description = struct.pack("HP", size // 8, ctypes.addressof(program))
    try:
        call("seccomp", "prctl", PR_SET_SECCOMP, 2, description, 0, 0)
    except StepFailed as failed:
        if failed.error.errno != errno.EINVAL:  # a kernel without them
            raise


def execute(spec: dict) -> None:
    """Execute the command; a name without a slash is looked for on the PATH of its environment.

    Returns never.
    """
    argv = [text.encode("latin-1") for text in spec["argv"]]
    env = {k.encode("latin-1"): v.encode("latin-1") for k, v in spec["env"].items()}
    program = argv[0]
    if b"/" in program:
        candidates = [program]
    else:
        directories = env.get(b"PATH", os.defpath.encode()).split(b":")
        candidates = [os.path.join(one, program) for one in directories if one]
    failure: tuple[bytes, Exception] | None = None
    for candidate in candidates:
        try:
            os.execve(candidate, argv, env)
        except (FileNotFoundError, NotADirectoryError) as error:
            # A file that is there, yet "not found", names an interpreter that is not.
            if os.path.exists(candidate):
                error.errno = errno.ENOEXEC
                error.strerror = "the interpreter in its first line does not exist"
                failure = failure or (candidate, error)
        except (OSError, ValueError) as error:
            failure = failure or (candidate, error)
    missing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    raise StepFailed(*(failure or (program, missing)))


#: In this order: each takes away something that those before it need.
STEPS = (
    reset_signals, join_group, set_limits, become_user, enter_directory, enter_sandbox,
    refuse_limits,
)  # fmt: skip


def main(descriptor: int) -> int:
    """Do all steps; return the exit code after a failed one."""
    spec = read_description(descriptor)
    step = reset_signals
    try:
        for step in STEPS:
            step(spec)
        step = execute
        answer(descriptor, cwd=spec["cwd"])
        execute(spec)
    except Exception as error:  # everything must reach the hub, which tells it in words
        path, cause = (error.path, error.error) if isinstance(error, StepFailed) else ("", error)
        answer(
            descriptor,
            step=step.__name__,
            path=path.decode("latin-1") if isinstance(path, bytes) else path,
            errno=getattr(cause, "errno", None),
            text=getattr(cause, "strerror", None) or str(cause),
        )
    return EXIT_CODE


def serve(descriptor: int) -> int:
    """Make a launcher of each pair of descriptors that comes: of the conversation, of the output.

    Each gets the id of its process for an answer, a number below 0 where there is none. Returns
    when the hub has gone.
    """
    import ctypes
    import resource  # noqa: F401 -- what a copy needs is here already
    import socket

    functions = ctypes.PyDLL(None, use_errno=True)
    number = CLONE[os.uname().machine]
    hub = socket.socket(fileno=descriptor)
    hub.set_inheritable(False)
    while True:
        message, passed, _flags, _address = socket.recv_fds(hub, 1, 2)
        if not message:
            return 0
        # The interpreter's lock is kept: its one thread goes on in both. fork() would make a child
        # of this process, which nobody could wait for but this one.
        pid = functions.syscall(number, CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
        if pid == 0:
            begin(hub, *passed)
        for one in passed:
            os.close(one)
        hub.send(str(pid if pid > 0 else -ctypes.get_errno()).encode())


def begin(hub, conversation: int, output: int) -> None:
    """Be a launcher in a process of its own, as if started with these descriptors."""
    code = EXIT_CODE
    try:
        hub.close()
        os.setsid()
        for standard in (1, 2):
            os.dup2(output, standard)
        os.close(output)
        code = main(conversation)
    finally:
        os._exit(code)


if __name__ == "__main__":
    sys.exit(serve(int(sys.argv[2])) if sys.argv[1] == "--serve" else main(int(sys.argv[1])))
