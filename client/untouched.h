// What an application wrote on a stream on which nothing has come back yet, kept as long
// as the dial could be redone at another exit without anybody noticing: when it wrote
// nothing, or one TLS ClientHello without early data, which asks for nothing and changes
// nothing. Pure but for the memory of the bytes. Not here: when a dial is redone
// (client/app_stream.h).
#ifndef CLI_UNTOUCHED_H
#define CLI_UNTOUCHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define CLI_UNTOUCHED_MAX 16384 // bytes of one stream; a longer hello is not kept

struct cli_untouched_budget { // of all streams
	size_t bytes, max;
	uint64_t refused; // streams that were not kept for want of it
};

struct cli_untouched { // embed, zeroed
	uint8_t *bytes;
	uint32_t len;
	bool touched; // for good: the dial cannot be redone
};

// The application wrote `n` bytes, which lie in the first segments of `iov`. Beyond
// CLI_UNTOUCHED_MAX, the budget or memory, or if they cannot begin a ClientHello, the
// stream is touched.
void cli_untouched_write(struct cli_untouched *k, struct cli_untouched_budget *budget,
			 const struct iovec *iov, size_t n);
// Something came back, or the application ended its direction; or the stream is over.
void cli_untouched_touch(struct cli_untouched *k, struct cli_untouched_budget *budget);
// Nothing was written, or one whole ClientHello and nothing else.
bool cli_untouched_may_redo(const struct cli_untouched *k);

// Whether `buf` is exactly one TLS record that holds exactly one ClientHello (RFC 8446,
// sections 5.1 and 4.1.2; of TLS 1.0 and later) without the extension early_data. A hello
// in several records is none.
bool cli_untouched_is_hello(const uint8_t *buf, size_t len);

#endif
