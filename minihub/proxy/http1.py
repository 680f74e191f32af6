"""HTTP/1.1 as bytes: what a head says, how a body is framed, which fields may travel on.

Rules of this file: it knows no socket, no clock and no route; bytes in, facts out. Everything
ambiguous is refused with ProtocolError, never guessed at, because two programs that read the
same bytes differently are how requests get smuggled. A pattern may match a text in one way only,
so that a hostile head costs no more than its length.

Threads: any; the functions are pure, a ChunkedReader belongs to one connection.

Sources: RFC 9110 (fields 5.1-5.6, hop-by-hop 7.6.1, Upgrade 7.8), RFC 9112 (request line 3,
field lines 5, message body length 6.3, chunked 7.1).
"""

from __future__ import annotations

import mmap
import re

from minihub.errors import ProtocolError

#: The most a request or response head may weigh, and the most of one line of it.
MAX_HEAD_BYTES = 65536
MAX_LINE_BYTES = 32768
#: The most fields in one head or trailer section. Node allows 2,000, Apache 100.
MAX_FIELDS = 200
#: The most of one chunk-size line with its extensions; nobody sends any.
MAX_CHUNK_LINE_BYTES = 1024
#: A chunk is large from here on. Reading much of small chunks at once would hold a loop up.
BULK_CHUNK_BYTES = 65536
#: The most of a trailer section.
MAX_TRAILER_BYTES = 16384

# token = 1*tchar                                                   RFC 9110 5.6.2
TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# field-line = field-name ":" OWS field-value OWS CRLF              RFC 9112 5
# The value may hold VCHAR, SP, HTAB and obs-text, which is what RFC 9110 5.5 leaves of it.
_FIELDS = re.compile(rb"(?:" + TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*")
# request-line = method SP request-target SP HTTP-version CRLF      RFC 9112 3
# A target is visible ASCII; "#" never belongs into one, so nobody can disagree on its end.
REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([!\"$-~]+) HTTP/1\.([01])\r\n")
_LATER_VERSION = re.compile(rb"[^\r\n]* HTTP/(?!1\.[01])[0-9]\.[0-9]\r\n")
# status-line = HTTP-version SP status-code SP [ reason ] CRLF      RFC 9112 4
# The space before an absent reason is forgotten by many servers.
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n")
# Host = uri-host [ ":" port ]                                      RFC 9110 7.2
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+;=-]+)(?::[0-9]{0,5})?")
# absolute-form = "http" "://" authority path-abempty [ "?" query ]  RFC 9112 3.2.2
_ABSOLUTE = re.compile(rb"[Hh][Tt][Tt][Pp][Ss]?://([^/?]*)(.*)")
# chunk = chunk-size [ chunk-ext ] CRLF                             RFC 9112 7.1
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[\t ]*(;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_DIGITS = re.compile(rb"[0-9]{1,18}")
_BARE_LF = re.compile(rb"(?<!\r)\n")
# What no head begins with. One of TLS, which begins with \x14 to \x17, may never have a line end.
_NO_HEAD = re.compile(rb"[\x00-\x0c\x0e-\x20\x7f]")

# The fields that steer this hop, found in one scan of the lowered block. Names are matched with
# "_" for "-" too where a CGI-like application behind us would take the two for one.
_REQUEST_SPECIALS = re.compile(
    rb"\n(connection|content[-_]length|expect|host|http2-settings|keep-alive|proxy(?:-[^:\r]*)?|te"
    rb"|transfer[-_]encoding|upgrade|x[-_]forwarded[-_](?:for|port|proto|host)):([^\r]*)"
)
_RESPONSE_SPECIALS = re.compile(
    rb"\n(connection|content-length|date|keep-alive|proxy-[^:\r]*|te|transfer-encoding|upgrade)"
    rb":([^\r]*)"
)
#: Fields that stay although a Connection field names them: dropping them would let a client
#: strip what the next program decides by.
_NEVER_DROPPED = frozenset(
    b"authorization content-encoding content-length content-type cookie date forwarded host"
    b" set-cookie transfer-encoding www-authenticate x-forwarded-for x-forwarded-host"
    b" x-forwarded-port x-forwarded-proto x-real-ip x-scheme".split()
)
#: Fields that mean nothing, or too much, behind a body. RFC 9110 6.5.1
_NOT_IN_TRAILERS = _NEVER_DROPPED | frozenset(
    b"connection expect keep-alive proxy-authenticate proxy-authorization proxy-connection"
    b" te trailer upgrade".split()
)


class RequestFields:
    """What the field block of a request says; the same block always says the same.

    ``forward`` is the block without the fields of this hop and without X-Forwarded-*;
    ``length`` is the Content-Length or -1; ``host`` is None without a Host field; ``upgrade`` is
    the protocol wished for, empty unless Connection says so too.
    """

    __slots__ = (
        "forward",
        "length",
        "chunked",
        "close",
        "keep_alive",
        "upgrade",
        "host",
        "expects",
        "forwarded_for",
        "forwarded_port",
        "forwarded_proto",
        "forwarded_host",
    )

    def __init__(self) -> None:
        self.length = -1
        self.chunked = self.close = self.keep_alive = self.expects = False
        self.host: bytes | None = None
        self.forward = self.upgrade = b""
        self.forwarded_for = self.forwarded_port = b""
        self.forwarded_proto = self.forwarded_host = b""


class ResponseHead:
    """What the head of a response says; the same head always says the same.

    ``forward`` is the field block without the fields of this hop and without Transfer-Encoding;
    ``start`` is the status line for the client with that block behind it; ``length`` is the
    Content-Length or -1.
    """

    __slots__ = (
        "status",
        "reason",
        "start",
        "has_date",
        "is_http11",
        "forward",
        "length",
        "chunked",
        "close",
        "keep_alive",
        "upgrade",
    )


# -- heads ---------------------------------------------------------------------------------


def check_partial_head(data: bytes, start: int, limit: int = MAX_HEAD_BYTES) -> None:
    """Judge a head that has not ended yet. Raises ProtocolError when it never can end well.

    ``start`` is how much of ``data`` an earlier call has seen.
    """
    if len(data) > limit:
        raise ProtocolError("head too large", 431)
    if _BARE_LF.search(data, max(0, start - 1)):
        raise ProtocolError("line ends without CR")
    if not start and _NO_HEAD.match(data):
        # Both sides would wait for the other until a timeout.
        raise ProtocolError("not HTTP (TLS on a port without?)")


def bad_request_line(data: bytes, max_line: int = MAX_LINE_BYTES) -> ProtocolError:
    """Return why REQUEST_LINE did not match at the start of ``data``."""
    end = data.find(b"\r\n")
    if end < 0 or end > max_line:
        return ProtocolError("request line too long", 431)
    if _LATER_VERSION.match(data):
        return ProtocolError("HTTP version not supported", 505)
    return ProtocolError("malformed request line")


def _check_block(block: bytes, max_line: int) -> None:
    if len(block) > max_line or block.count(b"\n") > MAX_FIELDS:
        lines = block.split(b"\r\n")
        if len(lines) > MAX_FIELDS or max(map(len, lines)) > max_line:
            raise ProtocolError("field too long or too many fields", 431)
    if _FIELDS.fullmatch(block) is None:
        raise ProtocolError("malformed header field")


def read_request_fields(block: bytes, max_line: int = MAX_LINE_BYTES) -> RequestFields:
    """Read the field lines of a request, each with its CRLF, without the empty last line.

    Raises ProtocolError when a line breaks the grammar or the framing is open to doubt.
    """
    _check_block(block, max_line)
    fields = RequestFields()
    kept = []
    done = 0
    upgrade = b""
    named: list[bytes] = []
    has_te = False
    for match in _REQUEST_SPECIALS.finditer(b"\n" + block.lower()):
        name, value = match.groups()
        # The scanned text has one byte more in front: its positions are line starts in block.
        begin = match.start()
        end = match.end() + 1
        value = value.strip(b"\t ")
        if name == b"host":
            if fields.host is not None:
                raise ProtocolError("more than one Host")
            fields.host = block[match.start(2) - 1 : match.end() - 1].strip(b"\t ")
            if _HOST.fullmatch(fields.host) is None:
                raise ProtocolError("malformed Host")
            continue
        if name == b"content-length":
            if fields.length >= 0:
                raise ProtocolError("more than one Content-Length")
            fields.length = _read_length(value)
            continue
        if name == b"transfer-encoding":
            if has_te or value != b"chunked":
                raise ProtocolError("Transfer-Encoding is not chunked")
            has_te = fields.chunked = True
            continue
        if name == b"expect":
            if value != b"100-continue":
                raise ProtocolError("unknown expectation", 417)
            fields.expects = True
            continue
        if done < begin:
            kept.append(block[done:begin])
        done = end
        if name == b"connection":
            for token in value.split(b","):
                token = token.strip(b"\t ")
                if token == b"close":
                    fields.close = True
                elif token == b"keep-alive":
                    fields.keep_alive = True
                elif token:
                    named.append(token)
        elif name == b"upgrade":
            upgrade = block[match.start(2) - 1 : match.end() - 1].strip(b"\t ")
        elif name.startswith(b"x-forwarded-"):
            raw = block[match.start(2) - 1 : match.end() - 1].strip(b"\t ")
            attribute = "forwarded_" + name[12:].decode()
            before = getattr(fields, attribute)
            setattr(fields, attribute, before + b", " + raw if before else raw)
    fields.forward = b"".join(kept) + block[done:] if done else block
    if fields.chunked and fields.length >= 0:
        raise ProtocolError("both Content-Length and Transfer-Encoding")
    if named:
        if b"upgrade" in named:
            fields.upgrade = upgrade
        fields.forward = _drop_named(fields.forward, named)
    return fields


def _read_length(value: bytes) -> int:
    # Content-Length = 1*DIGIT                                      RFC 9110 8.6
    if _DIGITS.fullmatch(value) is None:
        raise ProtocolError("malformed Content-Length")
    return int(value)


def _drop_named(block: bytes, named: list[bytes]) -> bytes:
    """Return ``block`` without the fields that a Connection field named. RFC 9110 7.6.1"""
    doomed = set(named) - _NEVER_DROPPED
    if doomed <= {b"upgrade", b"te", b"http2-settings"}:
        return block
    return without_fields(block, doomed)


def without_fields(block: bytes, names: set[bytes]) -> bytes:
    """Return a field block without the fields of these lower-case names."""
    lines = block.split(b"\r\n")[:-1]
    return b"".join(
        line + b"\r\n" for line in lines if line.partition(b":")[0].lower() not in names
    )


def field_lines(block: bytes, names: tuple[bytes, ...]) -> bytes:
    """Return the lines of a block whose lower-case names these are."""
    lines = block.split(b"\r\n")[:-1]
    return b"".join(line + b"\r\n" for line in lines if line.partition(b":")[0].lower() in names)


def field_value(block: bytes, name: bytes) -> bytes:
    """Return the value of the first field of this lower-case name in a block, or nothing."""
    for line in block.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip(b"\t ")
    return b""


def split_target(target: bytes, host: bytes | None) -> bytes:
    """Return the path and query of a request target in any of its forms.

    The authority of an absolute form must be the Host; ``*`` is returned as it is. Raises
    ProtocolError for anything else, CONNECT's authority form included. RFC 9112 3.2
    """
    if target[:1] == b"/":
        return target
    if target == b"*":
        return target
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise ProtocolError("malformed request target")
    authority, path = match.groups()
    if host is None or authority.lower() != host.lower():
        raise ProtocolError("request target and Host name different hosts")
    return path if path[:1] == b"/" else b"/" + path


def read_response_head(data: bytes, end: int) -> ResponseHead:
    """Read a response head: ``data[:end]``, where ``end`` lies before its last empty line.

    Raises ProtocolError when the head is malformed or its framing is open to doubt.
    """
    line = STATUS_LINE.match(data)
    if line is None:
        raise ProtocolError("malformed status line")
    head = ResponseHead()
    minor, status, reason = line.groups()
    head.status = int(status)
    head.reason = reason or b""
    head.is_http11 = minor == b"1"
    head.length = -1
    head.chunked = head.close = head.keep_alive = head.has_date = False
    head.upgrade = b""
    block = data[line.end() : end]
    _check_block(block, MAX_HEAD_BYTES)
    kept = []
    done = 0
    named: list[bytes] = []
    for match in _RESPONSE_SPECIALS.finditer(b"\n" + block.lower()):
        name, value = match.groups()
        begin = match.start()
        stop = match.end() + 1
        if name == b"content-length":
            if head.length >= 0:
                raise ProtocolError("more than one Content-Length")
            head.length = _read_length(value.strip(b"\t "))
            if head.status >= 200 and head.status != 204:
                continue
            # There is no body, and some client might wait for one. RFC 9110 8.6
        elif name == b"date":
            head.has_date = True
            continue
        if done < begin:
            kept.append(block[done:begin])
        done = stop
        if name == b"transfer-encoding":
            if head.chunked or value.strip(b"\t ") != b"chunked":
                raise ProtocolError("Transfer-Encoding is not chunked")
            head.chunked = True
        elif name == b"connection":
            for token in value.split(b","):
                token = token.strip(b"\t ")
                if token == b"close":
                    head.close = True
                elif token == b"keep-alive":
                    head.keep_alive = True
                elif token:
                    named.append(token)
        elif name == b"upgrade":
            head.upgrade = block[match.start(2) - 1 : match.end() - 1].strip(b"\t ")
    head.forward = b"".join(kept) + block[done:] if done else block
    if head.chunked and (head.length >= 0 or not head.is_http11):
        raise ProtocolError("Transfer-Encoding where it may not be")
    if named:
        head.forward = _drop_named(head.forward, named)
    head.start = b"HTTP/1.1 %d %b\r\n%b" % (head.status, head.reason, head.forward)
    return head


# -- bodies --------------------------------------------------------------------------------

_SIZE, _DATA, _DATA_END, _TRAILERS = range(4)


class ChunkedReader:
    """Finds the end of a chunked body and checks every byte of its framing.

    ``feed`` returns what may travel on: the same framing without extensions and without
    forbidden trailer fields, or with ``strip`` the bare content.
    """

    __slots__ = ("done", "_strip", "_state", "_left", "_held", "_trailers")

    def __init__(self, strip: bool = False) -> None:
        self.done = False
        self._strip = strip
        self._state = _SIZE
        self._left = 0
        self._held = b""
        self._trailers = b""

    @property
    def is_bulk(self) -> bool:
        """Return whether the chunk being read is large, so that large reads are worth while."""
        return self._left > BULK_CHUNK_BYTES

    def feed(self, data: bytes | mmap.mmap, end: int) -> tuple[int, list[bytes | memoryview]]:
        """Read ``data[:end]``; return how much of it was used and the pieces to pass on.

        Less than ``end`` is used only when the body ended (``done``). The pieces are views of
        ``data`` where nothing had to change. Raises ProtocolError on bad framing.
        """
        view = memoryview(data)
        pieces: list[bytes | memoryview] = []
        keep = not self._strip
        # data[run:pos] is framing and content that may pass as it stands.
        run = pos = 0
        while pos < end and not self.done:
            if self._state == _DATA:
                size = min(self._left, end - pos)
                if not keep:
                    pieces.append(view[pos : pos + size])
                pos += size
                self._left -= size
                if self._left:
                    break
                self._state = _DATA_END
            elif self._state == _DATA_END:
                pair = self._held + bytes(view[pos : min(end, pos + 2 - len(self._held))])
                if not b"\r\n".startswith(pair):
                    raise ProtocolError("chunk is longer than its size")
                pos += len(pair) - len(self._held)
                self._held = pair
                if len(pair) == 2:
                    self._held = b""
                    self._state = _SIZE
            else:
                newline = data.find(b"\n", pos, end)
                if newline < 0:
                    # An unfinished line waits here: it is not passed on before it is judged.
                    if keep and run < pos:
                        pieces.append(view[run:pos])
                    self._held += bytes(view[pos:end])
                    if len(self._held) > MAX_CHUNK_LINE_BYTES + (
                        MAX_TRAILER_BYTES if self._state == _TRAILERS else 0
                    ):
                        raise ProtocolError("chunk line too long")
                    run = pos = end
                    break
                line = bytes(view[pos : newline + 1])
                whole = self._held + line if self._held else line
                if self._state == _TRAILERS:
                    self._read_trailer(whole)
                    pos = newline + 1
                    self._held = b""
                    run = pos
                    continue
                match = _CHUNK_LINE.fullmatch(whole)
                if match is None or len(whole) > MAX_CHUNK_LINE_BYTES:
                    raise ProtocolError("malformed chunk size")
                digits, extension = match.groups()
                self._left = int(digits, 16)
                changed = self._held or extension is not None or not self._left
                if keep and changed:
                    if run < pos:
                        pieces.append(view[run:pos])
                    if self._left:
                        pieces.append(digits + b"\r\n")
                    run = newline + 1
                pos = newline + 1
                self._held = b""
                self._state = _DATA if self._left else _TRAILERS
        if keep:
            if run < pos:
                pieces.append(view[run:pos])
            if self.done:
                pieces.append(b"0\r\n" + self._trailers + b"\r\n")
        return pos, pieces

    def _read_trailer(self, line: bytes) -> None:
        if line == b"\r\n":
            self.done = True
            return
        if _FIELDS.fullmatch(line) is None:
            raise ProtocolError("malformed trailer field")
        if line.partition(b":")[0].lower() not in _NOT_IN_TRAILERS:
            self._trailers += line
            if len(self._trailers) > MAX_TRAILER_BYTES:
                raise ProtocolError("trailers too large")
