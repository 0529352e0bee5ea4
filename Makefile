# make | check | lint | format | clean            (make help lists them all)
# Variants build side by side: make SAN=address,undefined check
comma      := ,
PREFIX     ?= /usr/local
DESTDIR    ?=
BINDIR     ?= $(PREFIX)/bin
PKG_CONFIG ?= pkg-config
CC         ?= cc
SAN        ?=
BUILD      ?= build/$(if $(SAN),$(subst $(comma),-,$(SAN)),release)
VERSION    := 0.1.0

PKGS := libevent_core libevent_extra libevent libsodium libssl libcrypto libcares \
        yaml-0.1 jansson libsystemd

CFLAGS   ?= -O2 -g
WARN     := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla \
            -Wformat=2 -Wpointer-arith -Wimplicit-fallthrough -Wundef -Wwrite-strings -Werror
HARDEN   := -fstack-protector-strong -fPIE $(if $(SAN),,-D_FORTIFY_SOURCE=2)
CPPFLAGS += -D_GNU_SOURCE -DSP_VERSION='"$(VERSION)"' -I. -I$(BUILD) \
            $(shell $(PKG_CONFIG) --cflags $(PKGS))
XCFLAGS   = -std=c11 $(WARN) $(HARDEN) -MMD -MP \
            $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all)
LDFLAGS  += -pie -Wl,-z,relro,-z,now $(if $(SAN),-fsanitize=$(SAN))
LDLIBS   += $(shell $(PKG_CONFIG) --libs $(PKGS))

# folder -> program
PROGS          := worker client ctl
NAME_worker    := sallyport-worker
NAME_client    := sallyport
NAME_ctl       := sallyportctl

# every .c of a folder is picked up, so adding a file needs no edit here
objs   = $(patsubst %.c,$(BUILD)/%.o,$(sort $(wildcard $(1)/*.c)))
LIB   := $(BUILD)/libsallyport.a
BINS  := $(foreach p,$(PROGS),$(if $(wildcard $(p)/main.c),$(BUILD)/bin/$(NAME_$(p))))
TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/test_*.c))

all: $(BINS)

$(LIB): $(call objs,lib)
	@rm -f $@; $(AR) rcs $@ $^

# A program is main.o plus one archive of the rest, so that tests can link the rest.
define program
$(BUILD)/$(1).a: $$(filter-out $(BUILD)/$(1)/main.o,$$(call objs,$(1)))
	@mkdir -p $$(@D); rm -f $$@; $$(AR) rcs $$@ $$^
$(BUILD)/bin/$(NAME_$(1)): $(BUILD)/$(1)/main.o $(BUILD)/$(1).a $(LIB)
	@mkdir -p $$(@D)
	$$(CC) $$(LDFLAGS) -o $$@ $$^ $$(LDLIBS)
endef
$(foreach p,$(PROGS),$(eval $(call program,$(p))))
ARCHIVES := $(patsubst %,$(BUILD)/%.a,$(PROGS)) $(LIB)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(XCFLAGS) $(CFLAGS) -c -o $@ $<

$(BUILD)/tests/%: $(BUILD)/tests/unit/%.o $(ARCHIVES)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) $(shell $(PKG_CONFIG) --libs cmocka)

check-unit: $(TESTS)
	@for t in $(TESTS); do echo "TEST $$t"; $$t || exit 1; done

# tests/bench/*.c: one program each, with benchlib; docs/bench.md says what is measured
BENCHES := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,\
             $(filter-out tests/bench/benchlib.c,$(wildcard tests/bench/*.c)))

$(BUILD)/bench/%: $(BUILD)/tests/bench/%.o $(BUILD)/tests/bench/benchlib.o $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# tests/tools/*.c: helpers of demo, bench and integration tests
TOOLS := $(patsubst tests/tools/%.c,$(BUILD)/tools/%,$(wildcard tests/tools/*.c))

$(BUILD)/tools/%: $(BUILD)/tests/tools/%.o
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^

tools: $(TOOLS)

bench: all $(BENCHES)
	/usr/bin/python3 tests/bench/bench.py --build $(BUILD) $(BENCH_ARGS)

clean:
	rm -rf build

.PHONY: all tools bench check-unit clean
.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
