"""Tells what a process is like, as JSON in the file it is given; it is run cold and warm."""

import gc
import json
import locale
import os
import random
import resource
import signal
import sys
import tempfile
import threading
import time
import warnings


def status() -> dict:
    """Return what the kernel says of the process, but for ids, sizes and counts."""
    wanted = ("Uid", "Gid", "Groups", "Threads", "SigBlk", "SigIgn", "SigCgt", "CapInh")
    wanted += ("CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Name", "Umask")
    wanted += ("Cpus_allowed", "Mems_allowed", "FDSize", "THP_enabled", "untag_mask", "CoreDumping")
    with open("/proc/self/status") as file:
        lines = (line.split(":", 1) for line in file)
        return {name: value.split() for name, value in lines if name in wanted}


def read(path: str) -> str:
    with open(path, "rb") as file:
        return file.read().decode("latin-1")


def descriptors() -> dict:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = (os.readlink(f"/proc/self/fd/{name}"), os.get_inheritable(int(name)))
        except OSError:
            pass
    return found


def streams() -> dict:
    found = {}
    for name in ("stdin", "stdout", "stderr"):
        one = getattr(sys, name)
        found[name] = [
            type(one).__name__, type(one.buffer).__name__, one.name, one.mode, one.encoding,
            one.errors, one.newlines, one.line_buffering, one.write_through, one.isatty(),
        ]  # fmt: skip
    return found


def in_c() -> str:
    """Return the environment that a program started by C code gets."""
    with os.popen("env") as pipe:
        return pipe.read()


def main_module() -> dict:
    main = sys.modules["__main__"]
    texts = {k: repr(v) for k, v in vars(main).items() if k.startswith("__")}
    return texts | {"is the running one": vars(main) is globals()}


def facts() -> dict:
    stat = read("/proc/self/stat").rpartition(")")[2].split()
    frame = sys._getframe()
    depth = 0
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    return {
        "argv": sys.argv,
        "orig_argv": getattr(sys, "orig_argv", None),
        "executable": sys.executable,
        "prefixes": [sys.prefix, sys.exec_prefix, sys.base_prefix],
        "flags": repr(sys.flags),
        "warnoptions": sys.warnoptions,
        "xoptions": sys._xoptions,
        "warnings": [repr(one) for one in warnings.filters],
        "path": sys.path,
        "meta path": [getattr(one, "__name__", type(one).__name__) for one in sys.meta_path],
        "path hooks": len(sys.path_hooks),
        "main": main_module(),
        "depth of the stack": depth,
        "recursion limit": sys.getrecursionlimit(),
        "switch interval": sys.getswitchinterval(),
        "hooks": [repr(sys.excepthook), repr(sys.displayhook), repr(sys.gettrace())],
        "bytecode": [sys.dont_write_bytecode, sys.pycache_prefix],
        "streams": streams(),
        "environment": dict(os.environ),
        "environment in bytes": {k.hex(): v.hex() for k, v in os.environb.items()},
        "environment in C": in_c(),
        "cwd": os.getcwd(),
        "umask": [os.umask(0o22), os.umask(0o22)][0],
        "descriptors": descriptors(),
        "signals": {int(n): repr(signal.getsignal(n)) for n in signal.valid_signals()},
        "signal mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "timers": [signal.getitimer(n) for n in (signal.ITIMER_REAL, signal.ITIMER_PROF)],
        "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
        "leader": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
        "terminal": stat[4],
        "nice": os.nice(0),
        "scheduling": [os.sched_getscheduler(0), sorted(os.sched_getaffinity(0))],
        "limits": {
            name: resource.getrlimit(getattr(resource, name))
            for name in dir(resource)
            if name.startswith("RLIMIT_")
        },
        "locale": [locale.setlocale(n) for n in (locale.LC_CTYPE, locale.LC_ALL)],
        "encodings": [sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()],
        "time zone": [time.tzname, time.timezone, time.localtime(0).tm_hour],
        "threads": [threading.active_count(), len(os.listdir("/proc/self/task"))],
        "main thread": [
            threading.current_thread() is threading.main_thread(),
            threading.get_native_id() == os.getpid(),
            threading.main_thread().native_id == os.getpid(),
        ],
        "children": read(f"/proc/self/task/{os.getpid()}/children"),
        "collector": [gc.isenabled(), gc.get_threshold(), gc.get_debug()],
        "temporary": tempfile.gettempdir(),
        "processor time": time.process_time() < 5,
        "status": status(),
        "command line": read("/proc/self/cmdline"),
        "environment seen by others": sorted(read("/proc/self/environ").split("\0")),
        "group": read("/proc/self/cgroup"),
        "kernel": [read("/proc/self/oom_score_adj"), read("/proc/self/personality")],
        "root": os.readlink("/proc/self/root"),
        "program": os.readlink("/proc/self/exe"),
        "hash seed is random": sys.flags.hash_randomization,
        # -- never the same, so not compared but told
        "#pid": os.getpid(),
        "#random": [random.getrandbits(64), random.Random().getrandbits(64)],
        "#name": next(tempfile._get_candidate_names()),
        "#hash": hash("a text"),
        "#modules": sorted(sys.modules),
        "#module files": {
            name: getattr(module, "__file__", None)
            for name, module in sorted(sys.modules.items())
            if name != "__main__"
        },
    }


if __name__ == "__main__":
    told = facts()
    if "multiprocessing" in sys.modules:
        import multiprocessing

        told["#authkey"] = bytes(multiprocessing.current_process().authkey).hex()
    if "numpy" in sys.modules:
        import numpy

        told["#numpy"] = int(numpy.random.randint(2**31))
    with open(sys.argv[1], "w") as file:
        json.dump(told, file)
    if len(sys.argv) > 2:
        exec(sys.argv[2])
