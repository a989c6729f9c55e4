"""Three commands for gdb: who waits for what, where a user's thread is, what is in a user's outbox.

    gdb -q -p PID -ex 'source contrib/gdb/chatserver.py'
    (gdb) chat-threads          one line for each thread: what it waits for, and the innermost line of ours
    (gdb) chat-stack NAME       the stack of the thread with this name, without the frames of libraries
    (gdb) chat-outbox NAME      the user's outbox: bytes on their way, and the window; needs variables in the debug information

Line tables, which every build of `make` has, are enough for the first two; the Debian package has none. `cargo build` writes variables as well.
docs/debugging.md shows their output.
"""

import re

import gdb

# What is in the name or the file of the function in which a thread waits, and what it waits for. The first that is found counts.
WAITS = [
    ("lock_slow", "a lock"),
    ("lock_contended", "a lock"),
    ("condvar", "a condition"),
    ("recv", "bytes"),
    ("accept", "a connection"),
    ("poll", "its socket"),
    ("futex", "a condition"),
]

# Where the sources of the standard library and of other crates are.
FOREIGN = ("/rustc/", "/registry/src/", "/sysdeps/", "/nptl/")


def frames():
    frame = gdb.newest_frame()
    while frame is not None:
        yield frame
        frame = frame.older()


def place(frame):
    """File and line, or None for a frame that is not of this project."""
    found = frame.find_sal()
    if found.symtab is None or found.symtab.filename.startswith(("/", ".", "library/")):
        return None
    if any(part in found.symtab.fullname() for part in FOREIGN):
        return None
    return "%s:%d" % (found.symtab.filename, found.line)


def ours():
    return [frame for frame in frames() if place(frame) and place(frame).split(":")[0] != "src/threads.rs"]


def short(name):
    """A function without types and path: the same in builds with and without variables."""
    depth, out = 0, ""
    for index, char in enumerate(name or "?"):
        depth += char == "<"
        out += char if depth == 0 else ""
        depth -= char == ">" and name[index - 1] != "-"
    return out.rsplit("::", 1)[-1]


def wait():
    for frame in frames():
        symtab = frame.find_sal().symtab
        seen = "%s %s" % (frame.name(), symtab.filename if symtab else "")
        for part, what in WAITS:
            if part in seen.lower():
                return what
        if place(frame):
            break
    return "-"


def threads():
    """The server's threads, each of them selected in turn."""
    before = gdb.selected_thread()
    for thread in sorted(gdb.selected_inferior().threads(), key=lambda thread: thread.ptid[1]):
        thread.switch()
        yield thread
    before.switch()


def selected(name):
    """Selects the thread with this name: Linux keeps the first 15 bytes."""
    name = name.encode()[:15].decode(errors="ignore")
    for thread in gdb.selected_inferior().threads():
        if thread.name == name:
            return thread.switch()
    raise gdb.GdbError("no thread is named %s" % name)


class Threads(gdb.Command):
    """chat-threads: who waits for what, and where."""

    def __init__(self):
        super().__init__("chat-threads", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        print("%7s  %-15s  %-12s  %s" % ("LWP", "thread", "waits for", "where"))
        for thread in threads():
            own = ours()
            where = "%s at %s" % (short(own[0].name()), place(own[0])) if own else short(gdb.newest_frame().name())
            print("%7d  %-15s  %-12s  %s" % (thread.ptid[1], thread.name, wait(), where))


class Stack(gdb.Command):
    """chat-stack NAME: where the thread with this name is, in our own functions."""

    def __init__(self):
        super().__init__("chat-stack", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        selected(argument)
        for frame in ours():
            print("%-32s  %s" % (place(frame), short(frame.name())))


def pointee(arc):
    return arc["ptr"]["pointer"].dereference()["data"]


def guarded(mutex):
    return mutex["data"]["value"]


class Outbox(gdb.Command):
    """chat-outbox NAME: what is on its way to this user."""

    def __init__(self):
        super().__init__("chat-outbox", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        selected(argument)
        outbox = self.session(argument)["outbox"]
        state = guarded(outbox["state"])
        number = lambda name: int(state[name])
        print("socket          descriptor %s" % self.descriptor(outbox))
        print("limit           %d bytes" % int(outbox["limit_bytes"]))
        print("pushed          %d bytes since the login" % number("pushed_bytes"))
        print("written         %d bytes to the socket" % number("written_bytes"))
        print("in the outbox   %d bytes" % (number("pushed_bytes") - number("written_bytes")))
        print("who writes      %s" % str(state["owner"]).rsplit("::", 1)[-1])
        print("behind          %s" % state["behind"])

    def descriptor(self, outbox):
        return re.search("fd = .*?([0-9]+)[ }]", re.sub("__[0-9]", "", str(pointee(outbox["socket"])))).group(1)

    def session(self, name):
        for frame in frames():
            if (frame.name() or "").startswith("chatserver::server::connection::Connection::"):
                try:
                    return pointee(frame.read_var("self")["peer"]["session"]["Some"]["__0"])
                except (gdb.error, ValueError):
                    continue
        raise gdb.GdbError(
            "no variables: this build has line tables only, or they were optimised away. `cargo build` has them; "
            "`chatserver ctl session %s` tells without a debugger" % name
        )


Threads()
Stack()
Outbox()
