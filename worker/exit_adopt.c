// Streams and datagram flows whose sockets outlived the process that served them: what
// the records say, corrected by what the kernel knows (worker/offsets.h).
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/exit_internal.h"
#include "worker/offsets.h"

// A descriptor that was inherited and is nobody's yet.
static bool own_any(int fd, bool *owned, int n_owned)
{
	if (fd < 0 || fd >= n_owned || owned[fd])
		return false;
	owned[fd] = true;
	return true;
}

// The same, and a socket of this type.
static bool own(int fd, int type, bool *owned, int n_owned)
{
	int is = 0;
	socklen_t len = sizeof(is);
	if (!own_any(fd, owned, n_owned))
		return false;
	owned[fd] = !getsockopt(fd, SOL_SOCKET, SO_TYPE, &is, &len) && is == type;
	return owned[fd];
}

static void drop(int32_t *fd, bool *owned, int n_owned)
{
	struct sockaddr none = {.sa_family = AF_UNSPEC};
	int is = *fd;
	*fd = SP_STREAM_DESC_NONE;
	if (!own(is, SOCK_STREAM, owned, n_owned))
		return;
	// It stays marked: the number is ours to give again.
	(void)connect(is, &none, sizeof(none));
	close(is);
}

// Whether the destination reset it: told once, and perhaps told already.
static bool is_broken(const struct sp_stream_rec *r, const struct wrk_offsets *off)
{
	bool ended = (r->bits & SP_STREAM_RX_FIN) && r->taken == r->rx_final + 1;
	return off->error || (off->closed && !ended);
}

// What the kernel knows, as far as it is later than the record. False: it contradicts the
// record.
static bool correct(int fd, struct sp_stream_rec *r, struct sp_stream_found *ret)
{
	struct wrk_offsets off;
	bool fin = r->bits & SP_STREAM_RX_FIN;
	if (wrk_offsets_get(fd, &off))
		return false;
	if (is_broken(r, &off))
		r->bits |= SP_STREAM_BROKEN;
	// Of a FIN that went by unseen there is one byte of doubt; the record has none.
	bool doubt = off.closed && off.read + 1 == r->head;
	ret->head = doubt ? r->head : off.read;
	ret->taken = r->taken;
	if (off.closed)
		return ret->head >= r->head;
	if (off.written < r->taken - (fin && r->taken == r->rx_final + 1) ||
	    (fin && off.written > r->rx_final) || (off.sent_fin && !fin))
		return false;
	ret->taken = off.written;
	if (fin && off.written == r->rx_final) {
		if (!off.sent_fin)
			(void)shutdown(fd, SHUT_WR);
		ret->taken = r->rx_final + 1;
	}
	return ret->head >= r->head;
}

// 0.0.0.0:0 where the socket is gone.
static void bound_of(int fd, struct sp_target *ret)
{
	struct sockaddr_storage ss = {.ss_family = AF_UNSPEC};
	socklen_t len = sizeof(ss);
	(void)getsockname(fd, (struct sockaddr *)&ss, &len);
	sp_target_from_sockaddr((struct sockaddr *)&ss, ret);
}

static void count(struct wrk_exit_session *es, uint64_t down, uint64_t up)
{
	es->tally->bytes_to_client += down;
	es->tally->bytes_from_client += up;
	(*es->usage)->down += down;
	(*es->usage)->up += up;
}

static enum wrk_exit_taken adopt_open(struct wrk_exit_session *es,
				      struct sp_session *engine, uint32_t record,
				      bool *owned, int n_owned, uint64_t *repaired)
{
	struct sp_stream_rec *r = sp_arena_stream(es->x->opt.arena, record);
	struct sp_stream_found found = {.head = r->head, .taken = r->taken};
	uint64_t head = r->head, taken = r->taken;
	bool fin = r->bits & SP_STREAM_RX_FIN;
	struct sp_stream *st;
	int fd = r->fd[0];
	if (r->fd[1] != fd)
		drop(&r->fd[1], owned, n_owned);
	r->fd[1] = SP_STREAM_DESC_NONE;
	if (fd >= 0 && !own_any(fd, owned, n_owned)) {
		r->fd[0] = fd = SP_STREAM_DESC_NONE;
		found.head = head - 1; // what came of it nobody knows: not to be believed
	} else if (fd >= 0 && !correct(fd, r, &found)) {
		owned[fd] = false;
		drop(&r->fd[0], owned, n_owned);
		fd = SP_STREAM_DESC_NONE;
		found.head = head - 1;
	}
	if (r->acked == 0) // only then the client may not have been told
		bound_of(fd, &found.bound);
	if (sp_stream_adopt(engine, record, &found, NULL, &st)) {
		if (fd >= 0) {
			owned[fd] = false;
			drop(&r->fd[0], owned, n_owned);
		}
		return WRK_EXIT_LOST;
	}
	uint64_t up = r->taken - taken -
		      (fin && r->taken == r->rx_final + 1 && taken <= r->rx_final);
	*repaired += r->head - head + up;
	count(es, r->head - head, up);
	return exit_stream_take(es, st, fd) ? WRK_EXIT_LOST : WRK_EXIT_GOES_ON;
}

enum wrk_exit_taken wrk_exit_adopt_stream(struct wrk_exit_session *es,
					  struct sp_session *engine, uint32_t record,
					  bool *owned, int n_owned, uint64_t *repaired)
{
	struct sp_stream_rec *r = sp_arena_stream(es->x->opt.arena, record);
	struct sp_stream_found found = {.head = r->head, .taken = r->taken};
	struct sp_stream *st;
	if (r->state == SP_STREAM_OPEN)
		return adopt_open(es, engine, record, owned, n_owned, repaired);
	drop(&r->fd[0], owned, n_owned);
	drop(&r->fd[1], owned, n_owned);
	if (sp_stream_adopt(engine, record, &found, NULL, &st))
		return WRK_EXIT_LOST;
	return r->state == SP_STREAM_DIALLING ? WRK_EXIT_REDIAL : WRK_EXIT_GOES_ON;
}

enum wrk_exit_taken wrk_exit_adopt_flow(struct wrk_exit_session *es,
					struct sp_session *engine, uint32_t record,
					bool *owned, int n_owned)
{
	struct sp_arena *a = es->x->opt.arena;
	struct sp_flow_rec *r = sp_arena_flow(a, record);
	struct sp_target target = r->target;
	bool kept = own(r->fd, SOCK_DGRAM, owned, n_owned);
	if (!kept)
		r->fd = SP_STREAM_DESC_NONE;
	es->adopting = record;
	int err = sp_session_restore_flow(engine, r->id, &target);
	if (es->adopting == SP_ARENA_NONE && !err)
		return kept ? WRK_EXIT_GOES_ON : WRK_EXIT_REDIAL;
	// It was not asked for: too many, or there already.
	es->adopting = SP_ARENA_NONE;
	if (kept)
		owned[r->fd] = false;
	sp_arena_flow_release(a, record);
	return WRK_EXIT_LOST;
}
