#include "lib/record.h"

#include <string.h>

#define LEN_BYTES  2
#define CIPHER_MIN (SP_RECORD_PLAIN_MIN + SP_AEAD_TAG_BYTES)
#define CIPHER_MAX (SP_RECORD_MAX - LEN_BYTES)

_Static_assert(SP_RECORD_PLAIN_MAX + SP_RECORD_OVERHEAD == SP_RECORD_MAX,
	       "a full record is as large as a record may be");

int sp_record_tx_init(struct sp_record_tx *tx, enum sp_suite suite, const uint8_t *key,
		      uint64_t now_ms)
{
	*tx = (struct sp_record_tx){.key_since_ms = now_ms};
	return sp_aead_init(&tx->aead, suite, true, key);
}

void sp_record_tx_done(struct sp_record_tx *tx)
{
	sp_aead_done(&tx->aead);
	tx->dead = true;
}

int sp_record_tx_seal(struct sp_record_tx *tx, const struct iovec *iov, int iovcnt,
		      uint8_t *out, size_t cap)
{
	size_t sum = 0, len;
	int err;

	for (int i = 0; i < iovcnt; i++) {
		if (iov[i].iov_len > SP_RECORD_PLAIN_MAX)
			return SP_E_LIMIT;
		sum += iov[i].iov_len;
	}
	if (sum < SP_RECORD_PLAIN_MIN || sum > SP_RECORD_PLAIN_MAX ||
	    sum + SP_RECORD_OVERHEAD > cap)
		return SP_E_LIMIT;
	if (tx->dead || tx->n >= SP_RECORD_STOP)
		return SP_E_CLOSED;
	len = sum + SP_AEAD_TAG_BYTES;
	out[0] = (uint8_t)(len >> 8);
	out[1] = (uint8_t)len;
	err = sp_aead_seal(&tx->aead, tx->n, out, LEN_BYTES, iov, iovcnt,
			   out + LEN_BYTES);
	if (err) {
		tx->dead = true;
		return err;
	}
	tx->n++;
	tx->bytes += sum;
	tx->key_bytes += sum;
	return (int)(LEN_BYTES + len);
}

bool sp_record_tx_rekey_due(const struct sp_record_tx *tx, uint64_t now_ms)
{
	return tx->key_bytes >= SP_RECORD_REKEY_BYTES ||
	       (now_ms > tx->key_since_ms &&
		now_ms - tx->key_since_ms >= SP_RECORD_REKEY_MS);
}

int sp_record_tx_rekey(struct sp_record_tx *tx, uint64_t now_ms)
{
	if (tx->dead || sp_aead_rekey(&tx->aead)) {
		tx->dead = true;
		return SP_E_CRYPTO;
	}
	tx->key_bytes = 0;
	tx->key_since_ms = now_ms;
	tx->rekeys++;
	return 0;
}

int sp_record_rx_init(struct sp_record_rx *rx, enum sp_suite suite, const uint8_t *key)
{
	*rx = (struct sp_record_rx){0};
	return sp_aead_init(&rx->aead, suite, false, key);
}

void sp_record_rx_done(struct sp_record_rx *rx)
{
	sp_aead_done(&rx->aead);
	rx->dead = true;
}

int sp_record_peek(const uint8_t *buf, size_t len)
{
	size_t cipher;

	if (len < LEN_BYTES)
		return SP_E_AGAIN;
	cipher = (size_t)buf[0] << 8 | buf[1];
	if (cipher < CIPHER_MIN || cipher > CIPHER_MAX)
		return SP_E_MALFORMED;
	return len < LEN_BYTES + cipher ? SP_E_AGAIN : (int)(LEN_BYTES + cipher);
}

int sp_record_rx_open(struct sp_record_rx *rx, uint8_t *record, size_t size,
		      uint8_t **ret_plain, size_t *ret_len)
{
	int err;

	if (rx->dead || rx->n >= SP_RECORD_STOP)
		return SP_E_CLOSED;
	if (sp_record_peek(record, size) != (int)size) {
		rx->dead = true;
		return SP_E_MALFORMED;
	}
	err = sp_aead_open(&rx->aead, rx->n, record, LEN_BYTES, record + LEN_BYTES,
			   size - LEN_BYTES);
	if (err) {
		rx->dead = true;
		return err;
	}
	rx->n++;
	*ret_plain = record + LEN_BYTES;
	*ret_len = size - SP_RECORD_OVERHEAD;
	rx->bytes += *ret_len;
	return 0;
}

int sp_record_rx_rekey(struct sp_record_rx *rx)
{
	if (rx->dead || sp_aead_rekey(&rx->aead)) {
		rx->dead = true;
		return SP_E_CRYPTO;
	}
	rx->rekeys++;
	return 0;
}
