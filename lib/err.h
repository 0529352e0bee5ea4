// Error codes: one int domain for the whole project, and their texts.
// 0 is success; -1..-999 are negated errno values; -1000 and below are ours.
#ifndef SP_ERR_H
#define SP_ERR_H

enum sp_err {
	SP_E_TRUNCATED = -1000, // input ended before the value did
	SP_E_MALFORMED = -1001, // input that no correct peer or tool would write
	SP_E_VERSION = -1002,   // no version in common
	SP_E_AUTH = -1003,      // a tag, MAC or proof did not verify
	SP_E_SIGNATURE =
		-1004, // an Ed25519 signature did not verify, or its key is unknown
	SP_E_EXPIRED = -1005,  // outside its period of validity
	SP_E_REPLAY = -1006,   // seen before
	SP_E_STALE = -1007,    // an epoch or revision that does not rise
	SP_E_LIMIT = -1008,    // a stated limit is reached
	SP_E_PROTOCOL = -1009, // a well-formed message where it may not stand
	SP_E_CONFIG = -1010,   // a config file that does not hold
	SP_E_CLOSED = -1011,   // the other side ended it
	SP_E_CRYPTO = -1012,   // the cryptographic library failed
	SP_E_AGAIN = -1013,    // more input is needed
	SP_E_KEY = -1014,      // signed by a key that is not trusted here
};

// Text for `err`, never NULL; a static string or strerror's.
const char *sp_strerror(int err);

#define SP_MUST_CHECK __attribute__((warn_unused_result))

#endif
