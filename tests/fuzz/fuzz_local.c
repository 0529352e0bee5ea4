// Packets between an exit and its agent, and a memfd beside them: any bytes over a real
// socket. What parses is written and parses again to the same bytes.
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/local.pb-c.h"
#include "worker/local.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void again(const ProtobufCMessageDescriptor *d, const uint8_t *data, size_t size)
{
	ProtobufCMessage *m = protobuf_c_message_unpack(d, NULL, size, data);
	if (!m)
		return;
	size_t n = protobuf_c_message_get_packed_size(m);
	uint8_t *one = malloc(n + 1), *two = malloc(n + 1);
	if (!one || !two || protobuf_c_message_pack(m, one) != n)
		abort();
	protobuf_c_message_free_unpacked(m, NULL);
	m = protobuf_c_message_unpack(d, NULL, n, one);
	// protobuf-c keeps unknown fields that it would not read itself.
	if (m && (protobuf_c_message_pack(m, two) != n || memcmp(one, two, n) != 0))
		abort();
	if (m)
		protobuf_c_message_free_unpacked(m, NULL);
	free(one);
	free(two);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t buf[WRK_LOCAL_PACKET_MAX];
	uint8_t *copy;
	size_t len;
	int s[2], came = -1;
	int fd = wrk_local_memfd("fuzz", data, size);
	if (size == 0 || size > WRK_LOCAL_PACKET_MAX ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, s))
		goto out;
	if (send(s[0], data, size, 0) != (ssize_t)size ||
	    wrk_local_receive(s[1], buf, &came) != (ssize_t)size || came != -1)
		abort();
	again(&sallyport__local__from_exit__descriptor, buf, size);
	again(&sallyport__local__from_agent__descriptor, buf, size);
	if (wrk_local_memfd_read(fd, size, &copy, &len) || len != size ||
	    memcmp(copy, data, len) != 0 ||
	    wrk_local_memfd_read(fd, size - 1, &copy, &len) != SP_E_LIMIT)
		abort();
	free(copy);
	close(s[0]);
	close(s[1]);
out:
	close(fd);
	return 0;
}
