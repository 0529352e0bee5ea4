// How a vantage follows the fleet's state: takes revisions and snapshots from
// controllers, verifies and keeps them, fetches what is missing; what is on disk is where
// it begins. Without sockets: what goes out goes through the callbacks. Not here: what
// the state means.
#ifndef HCK_FOLLOW_H
#define HCK_FOLLOW_H

#include "lib/loop.h"
#include "lib/replica.h"
#include "proto/fleet.pb-c.h"

struct hck_follow;
struct hck_follow_options {
	struct sp_loop *loop;
	const char *folder; // of the store
	struct sp_signed_keys keys;
	// To a controller. 0, or an error: nothing was sent.
	int (*send)(void *ctx, Sallyport__Fleet__ToController *m);
	// There is a newer state.
	void (*changed)(void *ctx);
	void *ctx;
};
// Takes what is on disk; `changed` is not called for that. 0 and *ret; -ENOMEM.
int hck_follow_new(const struct hck_follow_options *opt,
		   struct hck_follow **ret) SP_MUST_CHECK;
void hck_follow_free(struct hck_follow *f); // NULL is fine

void hck_follow_up(struct hck_follow *f, const Sallyport__Fleet__Position *head);
void hck_follow_down(struct hck_follow *f);
void hck_follow_published(struct hck_follow *f, char topic, const void *data, size_t len);
void hck_follow_revisions(struct hck_follow *f, const Sallyport__Fleet__Revisions *m);
void hck_follow_snapshot(struct hck_follow *f, const Sallyport__Fleet__Snapshot *m);

const struct sp_state *hck_follow_state(const struct hck_follow *f); // NULL: none
const struct sp_position *hck_follow_position(const struct hck_follow *f);
uint64_t hck_follow_refused(const struct hck_follow *f);
uint64_t hck_follow_disk_errors(const struct hck_follow *f);
// To a message that is sent while `p` lives.
void hck_position_put(const struct sp_position *p, Sallyport__Fleet__Position *ret);

#endif
