/* The upstream behind the proxies and the load in front of them, where wrk and nginx do not do:
 * WebSockets and big bodies. One thread, epoll, Linux; loopback only.
 *
 *   load serve                                    an upstream; prints "port N" once it listens
 *   load ws PORT PATH CONNECTIONS SECONDS SIZE    messages of SIZE bytes sent and awaited back
 *   load hold PORT PATH CONNECTIONS               silent WebSockets until standard input ends;
 *                                                 prints "ready" once all are open
 *   load get PORT PATH CONNECTIONS SECONDS        downloads, one after the other
 *   load put PORT PATH CONNECTIONS SECONDS BYTES  uploads of BYTES, one after the other
 *
 * The upstream echoes WebSocket messages, answers GET .../bytes/N with N bytes and everything else,
 * after the whole of its body, with a small text.
 *
 * ws, get and put begin nothing new after SECONDS, wait for what is under way and print one line
 * of JSON. Whatever goes wrong is said on standard error and ends the program with 1: a benchmark
 * that counts failures as work is worth nothing.
 *
 * Bodies are thrown away inside the kernel (MSG_TRUNC), so that this program is never the
 * bottleneck. Its WebSockets use the example key of RFC 6455, whose answer is known.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEAD_MAX 16384       /* of a request or response head, and of one WebSocket message */
#define BLOCK (1 << 20)      /* sent or thrown away at once */
#define EVENTS 256
#define SLOT_US 10           /* resolution of latencies */
#define SLOTS 500000         /* 5 s */
#define PATIENCE 30.0        /* seconds that work under way may take after the end */

#define WS_KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define WS_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

enum state { HEAD, BODY_IN, BODY_OUT, SOCKET };

struct conn {
    int fd;
    enum state state;
    int close_after;         /* the other side wants no keep-alive */
    int wants_out;           /* registered for writability */
    int64_t left;            /* of the body that is coming or going */
    double began;            /* when the current message or request was sent */
    size_t used;             /* of buf */
    char *buf;               /* HEAD_MAX bytes, zero-terminated */
};

static int poller;
static char *block;
static uint32_t *slots;
static uint64_t done_count, done_bytes;

static void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void *allocate(size_t size) {
    void *memory = calloc(1, size);
    if (!memory) die("out of memory");
    return memory;
}

static struct conn *new_conn(int fd) {
    int one = 1;
    struct conn *c = allocate(sizeof *c);
    c->fd = fd;
    c->buf = allocate(HEAD_MAX + 1);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return c;
}

static void watch(struct conn *c, int wants_out, int how) {
    struct epoll_event event = {.events = EPOLLIN | (wants_out ? EPOLLOUT : 0), .data.ptr = c};
    c->wants_out = wants_out;
    if (epoll_ctl(poller, how, c->fd, &event)) die("epoll_ctl: %s", strerror(errno));
}

static void want_out(struct conn *c, int wants_out) {
    if (c->wants_out != wants_out) watch(c, wants_out, EPOLL_CTL_MOD);
}

static void drop(struct conn *c) {
    close(c->fd);
    free(c->buf);
    free(c);
}

/* Read into the buffer. Returns what came: 0 at the end, -1 for nothing now, -2 for an error. */
static ssize_t fill(struct conn *c) {
    if (c->used == HEAD_MAX) return -2;
    ssize_t n = recv(c->fd, c->buf + c->used, HEAD_MAX - c->used, 0);
    if (n < 0) return errno == EAGAIN ? -1 : -2;
    c->used += n;
    c->buf[c->used] = 0;
    return n;
}

static void consume(struct conn *c, size_t size) {
    c->used -= size;
    memmove(c->buf, c->buf + size, c->used);
    c->buf[c->used] = 0;
}

/* Throw away what is there of a body. Returns as fill() does; 1 for anything thrown away. */
static ssize_t discard(struct conn *c) {
    if (c->used) {
        size_t n = (int64_t)c->used < c->left ? c->used : (size_t)c->left;
        consume(c, n);
        c->left -= n;
        if (!c->left) return 1;
    }
    ssize_t n = recv(c->fd, block, c->left < BLOCK ? c->left : BLOCK, MSG_TRUNC);
    if (n < 0) return errno == EAGAIN ? -1 : -2;
    c->left -= n;
    return n ? 1 : 0;
}

/* Send of a body what goes. Returns 0 when the connection is broken. */
static int pump(struct conn *c) {
    while (c->left > 0) {
        ssize_t n = send(c->fd, block, c->left < BLOCK ? c->left : BLOCK, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) break;
        if (n < 0) return 0;
        c->left -= n;
    }
    want_out(c, c->left > 0);
    return 1;
}

/* Send something that always fits into an idle connection's buffer. */
static int send_all(struct conn *c, const void *data, size_t size) {
    return send(c->fd, data, size, MSG_NOSIGNAL) == (ssize_t)size;
}

/* Return the value of a header field in a complete head, or NULL. */
static const char *field(const char *head, const char *name) {
    size_t size = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n"))
        if (!strncasecmp(line + 2, name, size) && line[2 + size] == ':') {
            line += 3 + size;
            return line + strspn(line, " ");
        }
    return NULL;
}

/* Return the length of the WebSocket message that begins the buffer with its head, or 0. */
static size_t frame_size(struct conn *c, size_t *head, size_t *payload) {
    const unsigned char *b = (const unsigned char *)c->buf;
    if (c->used < 2) return 0;
    *head = 2 + (b[1] & 0x80 ? 4 : 0);
    *payload = b[1] & 0x7f;
    if (*payload == 126) {
        if (c->used < 4) return 0;
        *payload = b[2] << 8 | b[3];
        *head += 2;
    }
    if (*payload == 127 || *head + *payload > HEAD_MAX) die("a message larger than %d", HEAD_MAX);
    return c->used < *head + *payload ? 0 : *head + *payload;
}

/* Write the head of a final binary message; returns its length. */
static size_t frame_head(unsigned char *out, size_t payload, int masked) {
    out[0] = 0x82;
    if (payload < 126) {
        out[1] = payload | (masked ? 0x80 : 0);
        return 2;
    }
    out[1] = 126 | (masked ? 0x80 : 0);
    out[2] = payload >> 8;
    out[3] = payload & 0xff;
    return 4;
}

/* -- the upstream ------------------------------------------------------------------------- */

/* Echo every whole message in the buffer. Returns 0 when the connection is to be closed. */
static int echo(struct conn *c) {
    unsigned char out[HEAD_MAX + 4];
    size_t head, payload, size;
    while ((size = frame_size(c, &head, &payload))) {
        unsigned char *data = (unsigned char *)c->buf + head, *mask = data - 4;
        int opcode = c->buf[0] & 15;
        if (opcode != 1 && opcode != 2) return 0; /* close; nobody here sends anything else */
        size_t start = frame_head(out, payload, 0);
        for (size_t i = 0; i < payload; i++) out[start + i] = data[i] ^ mask[i & 3];
        consume(c, size);
        if (!send_all(c, out, start + payload)) return 0;
    }
    return 1;
}

/* Take the request whose head of that size is complete. Returns 0 to close. */
static int take_request(struct conn *c, size_t head_size) {
    char out[256];
    const char *first_line = strstr(c->buf, "\r\n"), *bytes = strstr(c->buf, "/bytes/");
    const char *connection = field(c->buf, "Connection"), *length = field(c->buf, "Content-Length");
    int is_upgrade = field(c->buf, "Upgrade") != NULL, n = 0;
    if (first_line - c->buf < 14 || field(c->buf, "Transfer-Encoding")) return 0;
    c->close_after = !memcmp(first_line - 8, "HTTP/1.0", 8) ||
                     (connection && !strncasecmp(connection, "close", 5));
    c->left = length ? atoll(length) : 0;
    c->state = BODY_IN;
    if (bytes && bytes < first_line) {
        c->state = BODY_OUT;
        c->left = atoll(bytes + 7);
        n = snprintf(out, sizeof out, "HTTP/1.1 200 OK\r\nContent-Length: %lld\r\n%s\r\n",
                     (long long)c->left, c->close_after ? "Connection: close\r\n" : "");
    } else if (is_upgrade) {
        c->state = SOCKET;
        n = snprintf(out, sizeof out, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", WS_ACCEPT);
    }
    consume(c, head_size);
    return c->state == BODY_IN || send_all(c, out, n);
}

/* Do what can be done on an upstream connection. Returns 0 to close. */
static int serve_event(struct conn *c) {
    char out[128], *end;
    ssize_t n;
    for (;;) {
        switch (c->state) {
        case HEAD:
            if ((end = strstr(c->buf, "\r\n\r\n"))) {
                if (!take_request(c, end + 4 - c->buf)) return 0;
                continue;
            }
            if ((n = fill(c)) <= 0) return n == -1;
            continue;
        case BODY_IN:
            if (c->left) {
                if ((n = discard(c)) <= 0) return n == -1;
                continue;
            }
            n = snprintf(out, sizeof out, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%s\r\nok",
                         c->close_after ? "Connection: close\r\n" : "");
            if (!send_all(c, out, n)) return 0;
            break;
        case BODY_OUT:
            if (!pump(c)) return 0;
            if (c->left) return 1;
            break;
        case SOCKET:
            if (!c->used && (n = fill(c)) <= 0) return n == -1;
            return echo(c);
        }
        if (c->close_after) return 0;
        c->state = HEAD;
        if (!c->used) return 1;
    }
}

static void serve(void) {
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof place;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(listener, (struct sockaddr *)&place, size) || listen(listener, 4096) ||
        getsockname(listener, (struct sockaddr *)&place, &size))
        die("cannot listen: %s", strerror(errno));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    printf("port %d\n", ntohs(place.sin_port));
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct conn *c = events[i].data.ptr;
            if (c) {
                if (!serve_event(c)) drop(c);
                continue;
            }
            int fd;
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0)
                watch(new_conn(fd), 0, EPOLL_CTL_ADD);
        }
    }
}

/* -- the load ----------------------------------------------------------------------------- */

static int port;
static const char *path;
static unsigned char message[HEAD_MAX];
static size_t message_size, reply_size; /* with their heads */
static int64_t upload_size = -1;        /* -1: downloads */
static double last_done;

/* Connect; the socket blocks, for a while, until the caller makes it stop. */
static struct conn *dial(void) {
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons(port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = (time_t)PATIENCE};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&place, sizeof place))
        die("port %d: %s", port, strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return new_conn(fd);
}

static void unblock(struct conn *c) {
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK)) die("fcntl: %s", strerror(errno));
}

static struct conn *open_websocket(void) {
    char out[2048];
    struct conn *c = dial();
    int n = snprintf(out, sizeof out, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
                     "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Key: %s\r\n\r\n", path, port, WS_KEY);
    if (!send_all(c, out, n)) die("port %d takes no request", port);
    while (!strstr(c->buf, "\r\n\r\n"))
        if (fill(c) <= 0) die("no answer to a handshake: %s", strerror(errno));
    if (strncmp(c->buf, "HTTP/1.1 101 ", 13) || !strstr(c->buf, WS_ACCEPT))
        die("no WebSocket: %.60s", c->buf);
    unblock(c);
    c->used = 0;
    c->state = SOCKET;
    return c;
}

static void count_done(struct conn *c, uint64_t bytes) {
    last_done = now();
    uint64_t slot = (last_done - c->began) * 1e6 / SLOT_US;
    slots[slot < SLOTS ? slot : SLOTS - 1]++;
    done_count++;
    done_bytes += bytes;
}

/* Begin the next message or transfer. */
static void begin(struct conn *c) {
    char out[2048];
    c->began = now();
    if (c->state == SOCKET) {
        if (!send_all(c, message, message_size)) die("a message cannot be sent");
        return;
    }
    int n = upload_size < 0
        ? snprintf(out, sizeof out, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", path, port)
        : snprintf(out, sizeof out, "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
                   "Content-Length: %lld\r\n\r\n", path, port, (long long)upload_size);
    if (!send_all(c, out, n)) die("a request cannot be sent");
    c->state = HEAD;
    if (upload_size > 0) {
        c->state = BODY_OUT;
        c->left = upload_size;
        if (!pump(c)) die("a body cannot be sent: %s", strerror(errno));
    }
}

/* Take what has come. Returns whether the current message or transfer is complete. */
static int load_event(struct conn *c) {
    size_t head, payload;
    const char *end, *length;
    if (c->state == BODY_OUT) {
        if (!pump(c)) die("a body cannot be sent: %s", strerror(errno));
        if (c->left) return 0;
        c->state = HEAD;
    }
    if (c->state == BODY_IN) {
        ssize_t n = discard(c);
        if (n == 0 || n == -2) die("closed in the middle of a body");
    } else {
        ssize_t n = fill(c);
        if (n == -1) return 0;
        if (n <= 0) die("closed where an answer was due");
    }
    if (c->state == SOCKET) {
        if (!frame_size(c, &head, &payload)) return 0;
        if (c->used != reply_size || c->buf[head] != 'x' || c->buf[c->used - 1] != 'x')
            die("the echo is not what was sent");
        c->used = 0;
        count_done(c, payload);
        return 1;
    }
    if (c->state == HEAD) {
        if (!(end = strstr(c->buf, "\r\n\r\n"))) return 0;
        if (strncmp(c->buf, "HTTP/1.1 200 ", 13)) die("answered: %.60s", c->buf);
        if (!(length = field(c->buf, "Content-Length"))) die("an answer without its length");
        c->left = atoll(length);
        c->close_after = 0;
        if (upload_size < 0) done_bytes += c->left;
        consume(c, end + 4 - c->buf);
        c->state = BODY_IN;
        while (c->left && c->used) discard(c);
    }
    if (c->left) return 0;
    count_done(c, upload_size < 0 ? 0 : upload_size);
    return 1;
}

/* The latency that this share of all stayed below, in microseconds. */
static double percentile(double share) {
    uint64_t wanted = done_count * share, seen = 0;
    for (int i = 0; i < SLOTS; i++)
        if ((seen += slots[i]) > wanted) return (i + 0.5) * SLOT_US;
    return SLOTS * (double)SLOT_US;
}

static void drive(struct conn **conns, int count, double seconds) {
    struct epoll_event events[EVENTS];
    double began = now(), end = began + seconds;
    int busy = count;
    for (int i = 0; i < count; i++) {
        watch(conns[i], 0, EPOLL_CTL_ADD);
        begin(conns[i]);
    }
    while (busy) {
        int ready = epoll_wait(poller, events, EVENTS, 1000);
        for (int i = 0; i < ready; i++) {
            struct conn *c = events[i].data.ptr;
            if (!load_event(c)) continue;
            if (last_done < end) begin(c);
            else busy--;
        }
        if (now() > end + PATIENCE) die("nothing came for %g s", PATIENCE);
    }
    printf("{\"count\": %llu, \"bytes\": %llu, \"seconds\": %.6f, \"p50_us\": %.0f, \"p99_us\": %.0f}\n",
           (unsigned long long)done_count, (unsigned long long)done_bytes, last_done - began,
           percentile(0.50), percentile(0.99));
}

int main(int argc, char **argv) {
    const char *verb = argc > 1 ? argv[1] : "";
    struct rlimit files;
    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    poller = epoll_create1(0);
    block = allocate(BLOCK);
    slots = allocate(SLOTS * sizeof *slots);
    if (!strcmp(verb, "serve") && argc == 2) serve();
    int wanted = !strcmp(verb, "hold") ? 5 : !strcmp(verb, "get") ? 6
               : !strcmp(verb, "ws") || !strcmp(verb, "put") ? 7 : 0;
    if (argc != wanted) die("usage: see the head of load.c");
    port = atoi(argv[2]);
    path = argv[3];
    int count = atoi(argv[4]), is_socket = verb[0] == 'w' || verb[0] == 'h';
    if (verb[0] == 'p') upload_size = atoll(argv[6]);
    if (verb[0] == 'w') {
        size_t payload = atoll(argv[6]);
        if (!payload || payload > HEAD_MAX / 2) die("messages have 1 to %d bytes", HEAD_MAX / 2);
        message_size = frame_head(message, payload, 1);
        reply_size = message_size + payload;
        memcpy(message + message_size, "mask", 4);
        message_size += 4;
        for (size_t i = 0; i < payload; i++) message[message_size++] = 'x' ^ "mask"[i & 3];
    }
    struct conn **conns = allocate(count * sizeof *conns);
    for (int i = 0; i < count; i++) {
        conns[i] = is_socket ? open_websocket() : dial();
        if (!is_socket) unblock(conns[i]);
    }
    if (verb[0] == 'h') {
        char c;
        puts("ready");
        fflush(stdout);
        while (read(0, &c, 1) > 0) continue;
        return 0;
    }
    drive(conns, count, atof(argv[5]));
    return 0;
}
