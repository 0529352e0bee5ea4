// The devices of each user: a device key is registered when a good token is first used
// with it, up to the user's number of devices. Kept in memory and told to a mirror, from
// which it is filled after a start. No I/O, the clock is a parameter. Not here: who may
// register (tokens.h), the mirror.
//
// At a user's limit a device that was not seen for CON_DEVICE_KEEP_S makes room;
// otherwise the new one is refused. CON_DEVICES_MAX devices in all, then new ones are
// refused.
#ifndef CON_DEVICES_H
#define CON_DEVICES_H

#include "lib/pass.h"

#define CON_DEVICE_KEEP_S (30 * 86400)
#define CON_DEVICE_TELL_S 86400 // the mirror hears of a device's use so often
#define CON_DEVICES_MAX   2000000

struct con_devices;

struct con_devices_mirror { // may be NULL
	void (*seen)(void *ctx, const char *user, const uint8_t *device, uint64_t now_s);
	void (*gone)(void *ctx, const char *user, const uint8_t *device);
};
// 0 and *ret; -ENOMEM.
int con_devices_new(const struct con_devices_mirror *mirror, void *ctx,
		    struct con_devices **ret) SP_MUST_CHECK;
void con_devices_free(struct con_devices *d); // NULL is fine

// `device`: SP_PASS_DEVICE_BYTES. 0: it is one of the user's, now if not before;
// SP_E_LIMIT: the user has `max` already; -ENOMEM.
int con_devices_admit(struct con_devices *d, const char *user, const uint8_t *device,
		      unsigned max, uint64_t now_s) SP_MUST_CHECK;
// From the mirror: not told back. 0; SP_E_LIMIT; -ENOMEM.
int con_devices_set(struct con_devices *d, const char *user, const uint8_t *device,
		    uint64_t seen_s) SP_MUST_CHECK;
// True: it was there.
bool con_devices_remove(struct con_devices *d, const char *user, const uint8_t *device);
size_t con_devices_count(const struct con_devices *d, const char *user); // NULL: of all
void con_devices_each(const struct con_devices *d, const char *user,
		      void (*each)(void *ctx, const uint8_t *device, uint64_t seen_s),
		      void *ctx);

#endif
