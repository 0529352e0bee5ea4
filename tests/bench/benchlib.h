// What the bench's programs share: loopback sockets, a clock, the byte pattern that the
// origin sends and the load client checks. Not part of any program that is installed.
#ifndef BENCHLIB_H
#define BENCHLIB_H

#include <stddef.h>
#include <stdint.h>

// Fixed sizes of the bench's protocol; bench.py and docs/bench.md rely on them.
enum {
	BL_PATTERN_BYTES = 1 << 20, // the origin repeats a block of this size
	BL_REQUEST_BYTES = 100,     // a short flow's request
	BL_ANSWER_BYTES = 1024,     // and its answer
	BL_RECORD_BYTES = 16384,    // plaintext of one record of the raw loop
	BL_TAG_BYTES = 16,
};

// Fills buf[BL_PATTERN_BYTES] with the pattern: the same pseudo-random bytes each time.
void bl_pattern(uint8_t *buf);

// Monotonic time in ns.
uint64_t bl_now_ns(void);

// Raises the soft limit of descriptors to the hard one; returns it.
unsigned bl_raise_nofile(void);

// A socket listening on 127.0.0.1, non-blocking and close-on-exec. port 0: any free one.
// *ret_port: the port. Returns the descriptor; ends the program if it cannot.
int bl_listen(uint16_t port, uint16_t *ret_port);

// Waits for a connection; returns a blocking descriptor with TCP_NODELAY.
int bl_accept(int listen_fd);

// A TCP socket with TCP_NODELAY that connects to 127.0.0.1:port. With nonblock set, it is
// non-blocking and may still be connecting. Returns the descriptor or -errno.
int bl_connect(uint16_t port, int nonblock);

// Parses a decimal up to max; ends the program with a message naming what otherwise.
uint64_t bl_number(const char *text, uint64_t max, const char *what);

// Prints what and errno's text to stderr, and exits with 1.
_Noreturn void bl_die(const char *what);

// Big-endian 64-bit integer.
void bl_put64(uint8_t *to, uint64_t value);
uint64_t bl_get64(const uint8_t *from);

#endif
