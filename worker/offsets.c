#include "worker/offsets.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

// Linux, include/net/tcp_states.h.
enum {
	ESTABLISHED = 1,
	SYN_SENT,
	SYN_RECV,
	FIN_WAIT1,
	FIN_WAIT2,
	TIME_WAIT,
	CLOSED,
	CLOSE_WAIT,
	LAST_ACK,
	LISTEN,
	CLOSING,
};

static int get_info(int fd, struct tcp_info *ret)
{
	socklen_t len = sizeof(*ret);
	memset(ret, 0, sizeof(*ret));
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, ret, &len))
		return -errno;
	return len < offsetof(struct tcp_info, tcpi_bytes_retrans) + 8 ? -ENOSYS : 0;
}

// Counters and queue of the same moment: bytes may arrive between the calls. Nobody reads
// here, so a queue as long as before has got none; a FIN alone does not make it longer,
// and whether it came is told with the counters.
static int get_queue(int fd, struct tcp_info *info, int *ret_unread)
{
	int before, err;
	if (ioctl(fd, SIOCINQ, ret_unread))
		return -errno;
	do {
		before = *ret_unread;
		err = get_info(fd, info);
		if (!err && ioctl(fd, SIOCINQ, ret_unread))
			err = -errno;
	} while (!err && *ret_unread != before);
	return err;
}

static bool has_sent_fin(uint8_t state)
{
	return state == FIN_WAIT1 || state == FIN_WAIT2 || state == CLOSING ||
	       state == LAST_ACK || state == TIME_WAIT;
}

static bool has_got_fin(uint8_t state)
{
	return state == CLOSE_WAIT || state == LAST_ACK || state == CLOSING ||
	       state == TIME_WAIT;
}

int wrk_offsets_get(int fd, struct wrk_offsets *ret)
{
	struct tcp_info info;
	int unread = 0, error = 0;
	socklen_t len = sizeof(error);
	int err = get_queue(fd, &info, &unread);
	if (err)
		return err;
	uint8_t state = info.tcpi_state;
	if (state == SYN_SENT || state == SYN_RECV || state == LISTEN)
		return -ENOTCONN;
	if (state == CLOSED)
		(void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
	*ret = (struct wrk_offsets){
		.sent_fin = has_sent_fin(state),
		// A reset behind a FIN is told as EPIPE (tcp_reset in the kernel).
		.got_fin = has_got_fin(state) ||
			   (state == CLOSED && (error == 0 || error == EPIPE)),
		.closed = state == CLOSED,
		.error = error,
	};
	// A FIN that was not sent yet is counted in notsent.
	uint64_t fin_waits =
		(state == FIN_WAIT1 || state == CLOSING || state == LAST_ACK) &&
		info.tcpi_notsent_bytes > 0;
	ret->written = info.tcpi_bytes_sent - info.tcpi_bytes_retrans +
		       info.tcpi_notsent_bytes - fin_waits;
	ret->read = info.tcpi_bytes_received - (uint64_t)unread - ret->got_fin;
	return 0;
}
