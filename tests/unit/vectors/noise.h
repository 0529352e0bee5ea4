// Published test vectors for the two handshakes we use; data only, as hex.
// Source: the cacophony library, vectors/cacophony.txt (github.com/haskell-cryptography/
// cacophony; also github.com/mcginty/snow, tests/vectors), entries
// Noise_IK_25519_ChaChaPoly_SHA256 and Noise_NNpsk0_25519_ChaChaPoly_SHA256. An early
// version of that file has the same messages but other handshake hashes, which are wrong.
// Messages 0 and 1 are the handshake; 2 to 5 are transport messages, initiator first, in
// turns, under the keys of Split().
#ifndef SP_TEST_VECTORS_NOISE_H
#define SP_TEST_VECTORS_NOISE_H

#include "lib/noise.h"

struct noise_vector {
	enum sp_noise_pattern pattern;
	const char *prologue, *psk, *init_static, *init_ephemeral;
	const char *resp_static, *resp_static_public, *resp_ephemeral, *hash;
	struct {
		const char *payload, *ciphertext;
	} message[6];
};

static const struct noise_vector noise_vectors[] = {
	{
		.pattern = SP_NOISE_IK,
		.prologue = "4a6f686e2047616c74",
		.init_static = "e61ef9919cde45dd5f82166404bd08e3"
			       "8bceb5dfdfded0a34c8df7ed542214d1",
		.init_ephemeral = "893e28b9dc6ca8d611ab664754b8ceb7"
				  "bac5117349a4439a6b0569da977c464a",
		.resp_static = "4a3acbfdb163dec651dfa3194dece676"
			       "d437029c62a408b4c5ea9114246e4893",
		.resp_static_public = "31e0303fd6418d2f8c0e78b91f22e8ca"
				      "ed0fbe48656dcf4767e4834f701b8f62",
		.resp_ephemeral = "bbdb4cdbd309f1a1f2e1456967fe288c"
				  "add6f712d65dc7b7793d5e63da6b375b",
		.hash = "0b0f68fb0c27e03ce9b97565995ed483"
			"8cc0581b762ef72b062f6a546419fad7",
		.message =
			{
				{"4c756477696720766f6e204d69736573",
				 "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3"
				 "afa4c7944"
				 "718da798efbcd91528520204f904b9bd6c7413dccdc214d951e1525"
				 "3e39987f1"
				 "8146e8cd0873654207148333479d4d16c289f0294b29960a72f48e0"
				 "b7bba2e89"
				 "083169825e59642148d492020664ccf7"},
				{"4d757272617920526f746862617264",
				 "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f"
				 "144808843"
				 "5361e70b2ed446e6c9ec387d1d6b3b840f194e373979d241b203c4a"
				 "cafccf5"},
				{"462e20412e20486179656b", "050e9f3c8fac16b68dbce8f8c4bfb"
							   "f6617c897f9ada4aa29aa19c8"},
				{"4361726c204d656e676572", "344233a6cabb7141d80f3da2fedc3"
							   "11d9646bbb0f505afe403a667"},
				{"4a65616e2d426170746973746520536179",
				 "62cdeeb172ad7ade7aa7d9e069da5790f12331bfa00177787a1d081"
				 "0c67dc3b2"
				 "b4"},
				{"457567656e2042f6686d20766f6e2042617765726b",
				 "029bead1b40992327044d409d9a1f3ad8f36c3c452775d557e18bbe"
				 "b2e8dfcea"
				 "d32d514024"},
			},
	},
	{
		.pattern = SP_NOISE_NNPSK0,
		.prologue = "4a6f686e2047616c74",
		.psk = "54686973206973206d7920417573747269616e20706572737065637469766521",
		.init_ephemeral = "893e28b9dc6ca8d611ab664754b8ceb7"
				  "bac5117349a4439a6b0569da977c464a",
		.resp_ephemeral = "bbdb4cdbd309f1a1f2e1456967fe288c"
				  "add6f712d65dc7b7793d5e63da6b375b",
		.hash = "f4d03dc34495c95729ea6de9e1b59004"
			"b59733102488b3e24bc441e0be208eaf",
		.message =
			{
				{"4c756477696720766f6e204d69736573",
				 "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3"
				 "afa4c7944"
				 "79b962b8aff8485742ac32f905ba45369e2465fb59e138a93d67a0d"
				 "1266b6a54"},
				{"4d757272617920526f746862617264",
				 "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f"
				 "144808843"
				 "d6062704d5a9c422a8e834423f8c1feada7e8d0d910a1a2cd030fb5"
				 "84221e3"},
				{"462e20412e20486179656b", "e632c3763d7669067383433197a3b"
							   "addf146e9e70ad4b4e9e59e0f"},
				{"4361726c204d656e676572", "64c6bee32ea91c8474bb4c21d7a70"
							   "0109ad45af77b29764ba5eb1e"},
				{"4a65616e2d426170746973746520536179",
				 "e2fa0bed0603b62d3ccac2ecabbf3fe33f3e86514909b3233616262"
				 "66cb2471c"
				 "c8"},
				{"457567656e2042f6686d20766f6e2042617765726b",
				 "0c01dc9cec1fe4ddd692e8dd32188aa351088dc91183639a53b57aa"
				 "4692b5ebd"
				 "ef8b8ca111"},
			},
	},
};

#endif
