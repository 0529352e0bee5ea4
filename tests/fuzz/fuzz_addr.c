// Targets: from the wire and from text; what is accepted goes there and back unchanged.
#include <stdlib.h>
#include <string.h>

#include "lib/addr.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void through_text(const struct sp_target *t)
{
	char text[SP_TARGET_TEXT_MAX];
	struct sp_target again;

	if (sp_target_parse(sp_target_format(t, text, sizeof(text)), &again) == 0 &&
	    !sp_target_equal(t, &again))
		abort();
}

static void through_wire(const struct sp_target *t)
{
	uint8_t buf[SP_TARGET_TEXT_MAX];
	struct sp_target again;
	struct sp_writer w;
	struct sp_reader r;

	sp_writer_init(&w, buf, sizeof(buf));
	sp_target_put(&w, t);
	sp_reader_init(&r, buf, sp_writer_len(&w));
	sp_target_get(&r, &again);
	if (w.err || sp_reader_finish(&r) || !sp_target_equal(t, &again))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sockaddr_storage ss;
	struct sp_target t, back;
	struct sp_reader r;
	char text[512];
	socklen_t len;

	sp_reader_init(&r, data, size);
	sp_target_get(&r, &t);
	if (!r.err) {
		through_wire(&t);
		through_text(&t);
		if (sp_target_to_sockaddr(&t, &ss, &len) == 0)
			sp_target_from_sockaddr((struct sockaddr *)&ss, &back);
	}
	if (size < sizeof(text)) {
		memcpy(text, data, size);
		text[size] = '\0';
		if (sp_target_parse(text, &t) == 0) {
			through_wire(&t);
			through_text(&t);
		}
	}
	return 0;
}
