#include "lib/err.h"

#include <string.h>

const char *sp_strerror(int err)
{
	switch (err) {
	case SP_E_TRUNCATED:
		return "input ends too early";
	case SP_E_MALFORMED:
		return "malformed input";
	case SP_E_VERSION:
		return "no version in common";
	case SP_E_AUTH:
		return "authentication failed";
	case SP_E_SIGNATURE:
		return "the signature does not verify";
	case SP_E_EXPIRED:
		return "outside its period of validity";
	case SP_E_REPLAY:
		return "seen before";
	case SP_E_STALE:
		return "epoch or revision does not rise";
	case SP_E_LIMIT:
		return "limit reached";
	case SP_E_PROTOCOL:
		return "protocol violation";
	case SP_E_CONFIG:
		return "invalid configuration";
	case SP_E_CLOSED:
		return "closed by the other side";
	case SP_E_CRYPTO:
		return "cryptographic library failed";
	case SP_E_AGAIN:
		return "more input is needed";
	case SP_E_KEY:
		return "signed by a key that is not trusted here";
	default:
		return strerror(err < 0 ? -err : err);
	}
}
