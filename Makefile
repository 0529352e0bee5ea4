# Variants build side by side: make SAN=address,undefined check
comma      := ,
PREFIX     ?= /usr/local
DESTDIR    ?=
BINDIR     ?= $(PREFIX)/bin
MANDIR     ?= $(PREFIX)/share/man
UNITDIR    ?= $(PREFIX)/lib/systemd/system
EXAMPLEDIR ?= $(PREFIX)/share/doc/sallyport/examples
COMPLETIONDIR ?= $(PREFIX)/share/bash-completion/completions
PKG_CONFIG ?= pkg-config
CC         ?= cc
PYTHON     := /usr/bin/python3
SAN        ?=
BUILD      ?= build/$(if $(SAN),$(subst $(comma),-,$(SAN)),release)
VERSION    := 0.1.0
FUZZ_TIME  ?= 60

PKGS := libevent_core libevent_extra libevent libsodium libssl libcrypto libcares \
        yaml-0.1 jansson libsystemd libprotobuf-c libzmq hiredis libcurl libevent_openssl

# Asked once, at the first compilation and not before: in a fresh clone the packages come
# with `make check` or deploy/install-deps.
need = $(if $(shell $(PKG_CONFIG) --exists $(1) 2>/dev/null && echo y),,\
         $(error packages are missing: run deploy/install-deps (make check does)))
PKG_CFLAGS  = $(call need,$(PKGS))$(eval PKG_CFLAGS := \
                $(shell $(PKG_CONFIG) --cflags $(PKGS)))$(PKG_CFLAGS)
PKG_LIBS    = $(eval PKG_LIBS := $(shell $(PKG_CONFIG) --libs $(PKGS)))$(PKG_LIBS)
CMOCKA_LIBS = $(eval CMOCKA_LIBS := $(shell $(PKG_CONFIG) --libs cmocka))$(CMOCKA_LIBS)

CFLAGS   ?= -O2 -g
WARN     := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla \
            -Wformat=2 -Wpointer-arith -Wimplicit-fallthrough -Wundef -Wwrite-strings -Werror
HARDEN   := -fstack-protector-strong -fPIE $(if $(SAN),,-D_FORTIFY_SOURCE=2)
XCPPFLAGS = -D_GNU_SOURCE -I. -I$(BUILD) $(PKG_CFLAGS) $(CPPFLAGS)
XCFLAGS   = -std=c11 $(WARN) $(HARDEN) -MMD -MP \
            $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer \
              -fno-sanitize-recover=all -Wno-array-bounds) # gcc warns of its own checks
XLDFLAGS  = -pie -Wl,--as-needed,-z,relro,-z,now $(if $(SAN),-fsanitize=$(SAN)) $(LDFLAGS)
XLDLIBS   = $(PKG_LIBS) -lm $(LDLIBS)
say       = $(if $(V),,@printf '  %-4s %s\n' $(1) $(2);) # V=1 shows whole commands
link      = $(call say,LD,$@)$(CC) $(XLDFLAGS) -o $@ $(filter %.o %.a,$^) $(XLDLIBS)

# folder -> program
PROGS            := worker client ctl controller healthcheck
NAME_worker      := sallyport-worker
NAME_client      := sallyport
NAME_ctl         := sallyportctl
NAME_controller  := sallyport-controller
NAME_healthcheck := sallyport-healthcheck

# Every .c of a folder is picked up, so adding a file needs no edit here.
objs    = $(patsubst %.c,$(BUILD)/%.o,$(sort $(wildcard $(1)/*.c)))
LIB    := $(BUILD)/libsallyport.a
BINS   := $(foreach p,$(PROGS),$(if $(wildcard $(p)/main.c),$(BUILD)/bin/$(NAME_$(p))))
TESTS  := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/test_*.c))
FUZZ   := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
TOOLS  := $(patsubst tests/tools/%.c,$(BUILD)/tools/%,$(wildcard tests/tools/*.c)) \
          $(BUILD)/tools/linkemu \
          $(patsubst tests/tools/preload/%.c,$(BUILD)/tools/%.so,$(wildcard tests/tools/preload/*.c)) \
          $(patsubst tests/tools/worker/%.c,$(BUILD)/tools/worker-%,\
            $(wildcard tests/tools/worker/*.c))
BENCHES := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,\
             $(filter-out tests/bench/benchlib.c,$(wildcard tests/bench/*.c)))
SCALES := $(patsubst tests/scale/%.c,$(BUILD)/scale/%,$(wildcard tests/scale/*.c))
CHAOS  := $(patsubst %,$(BUILD)/chaos/%,app dest epochs)
CSRC   := $(wildcard $(addsuffix /*.[ch],lib $(PROGS)) tests/*/*.[ch] tests/tools/*/*.[ch])

all: $(BINS) ## build the programs (the default)

help: ## list the targets
	@sed -nE 's/^([a-z][a-z-]*):[^#]*## (.*)/  make \1\t\2/p' Makefile | expand -t 24
	@echo "Variables: SAN=address,undefined|thread FUZZ_TIME=60 FUZZ_ONLY=NAME V=1 PREFIX= DESTDIR="

# proto/NAME.proto becomes $(BUILD)/proto/NAME.pb-c.[ch]; generated before anything is
# compiled that could include it.
PROTOS  := $(sort $(wildcard proto/*.proto))
PROTO_C := $(PROTOS:%.proto=$(BUILD)/%.pb-c.c)
PROTO_O := $(PROTO_C:.c=.o)
$(BUILD)/proto/%.pb-c.c: proto/%.proto
	@mkdir -p $(@D)
	$(call say,GEN,$@)protoc-c --proto_path=proto --c_out=$(@D) $<
$(PROTO_O): $(BUILD)/proto/%.o: $(BUILD)/proto/%.c $(PROTO_C)
	$(call say,CC,$<)$(CC) $(XCPPFLAGS) $(XCFLAGS) $(CFLAGS) -c -o $@ $<

$(LIB): $(call objs,lib) $(PROTO_O)
	@rm -f $@; $(AR) rcs $@ $^

# A program is main.o plus one archive of the rest, so that tests can link the rest.
define program
$(BUILD)/$(1).a: $$(filter-out $(BUILD)/$(1)/main.o,$$(call objs,$(1)))
	@mkdir -p $$(@D); rm -f $$@; $$(AR) rcs $$@ $$^
$(BUILD)/bin/$(NAME_$(1)): $(BUILD)/$(1)/main.o $(BUILD)/$(1).a $(LIB)
	@mkdir -p $$(@D)
	$$(link)
endef
$(foreach p,$(PROGS),$(eval $(call program,$(p))))
ARCHIVES := $(patsubst %,$(BUILD)/%.a,$(PROGS)) $(LIB)

# The tests' link emulator: main.o plus one archive, as a program.
LINKEMU := $(BUILD)/tests/tools/linkemu
$(LINKEMU).a: $(filter-out $(LINKEMU)/main.o,$(call objs,tests/tools/linkemu))
	@mkdir -p $(@D); rm -f $@; $(AR) rcs $@ $^
$(BUILD)/tools/linkemu: $(LINKEMU)/main.o $(LINKEMU).a
	@mkdir -p $(@D)
	$(link)
$(BUILD)/tests/test_linkemu: $(LINKEMU).a

$(BUILD)/%.o: %.c | $(PROTO_C)
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(XCPPFLAGS) $(XCFLAGS) $(CFLAGS) -c -o $@ $<

# The version: with the commit in a clone, without in a tarball. The stamp changes only
# when the text does.
VERSION_TEXT := $(VERSION)$(if $(wildcard .git),$(addprefix +g,$(shell \
                  git rev-parse --short HEAD 2>/dev/null)))
STAMP := $(BUILD)/version.stamp
$(STAMP): FORCE
	@mkdir -p $(@D); echo '$(VERSION_TEXT)' | cmp -s - $@ || echo '$(VERSION_TEXT)' > $@
$(BUILD)/lib/version.o: $(STAMP)
$(BUILD)/lib/version.o: XCPPFLAGS += -DSP_VERSION_TEXT='"$(VERSION_TEXT)"'

$(BUILD)/tests/%: $(BUILD)/tests/unit/%.o $(ARCHIVES)
	@mkdir -p $(@D)
	$(link) $(CMOCKA_LIBS)

# A test that says when there is no memory.
$(BUILD)/tests/test_trunk_mux: private XLDFLAGS += -Wl,--wrap=malloc

# tests/tools/*.c: helpers of demo, bench and integration tests
$(BUILD)/tools/%: $(BUILD)/tests/tools/%.o $(LIB)
	@mkdir -p $(@D)
	$(link)

# tests/tools/preload/*.c: preloaded to programs in tests; never with a sanitizer of their own
$(BUILD)/tools/%.so: tests/tools/preload/%.c
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) -D_GNU_SOURCE -std=c11 $(WARN) $(CFLAGS) -fPIC -shared -o $@ $< -ldl

# Workers that fail an upgrade: with one function of another's making
$(BUILD)/tools/worker-%: $(BUILD)/tests/tools/worker/%.o $(BUILD)/worker/main.o \
  $(BUILD)/worker.a $(LIB)
	@mkdir -p $(@D)
	$(link) -Wl,--wrap=wrk_sessions_adopt

# Workers with an arena of other versions and another layout
ARENA_OF := lib/arena lib/arena_adopt lib/arena_convert
define other_arena
$(BUILD)/arena-$(1)/%.o: lib/%.c
	@mkdir -p $$(@D)
	$$(call say,CC,$$@)$$(CC) $$(XCPPFLAGS) -DSP_ARENA_VERSION=$(1) -DARENA_GAP=$(2) \
	  $$(XCFLAGS) $$(CFLAGS) -c -o $$@ $$<
$(BUILD)/tools/worker-arena-$(1): $(ARENA_OF:lib/%=$(BUILD)/arena-$(1)/%.o) \
  $(BUILD)/worker/main.o $(BUILD)/worker.a $(LIB)
	@mkdir -p $$(@D)
	$$(link)
TOOLS += $(BUILD)/tools/worker-arena-$(1)
endef
$(eval $(call other_arena,2,0))
$(eval $(call other_arena,4,65536))
$(eval $(call other_arena,5,0))

# Fuzz targets with a main that replays files; `make fuzz` has the fuzzer's own.
$(BUILD)/fuzz/%: $(BUILD)/tests/fuzz/%.o $(BUILD)/tests/fuzz/corpus_main.o $(ARCHIVES)
	@mkdir -p $(@D)
	$(link)

# tests/bench/*.c: one program each, with benchlib; docs/bench.md says what is measured
$(BUILD)/bench/%: $(BUILD)/tests/bench/%.o $(BUILD)/tests/bench/benchlib.o $(LIB)
	@mkdir -p $(@D)
	$(link)

# tests/scale/*.c: one program each; docs/scale.md says what is measured
$(BUILD)/scale/%: $(BUILD)/tests/scale/%.o $(BUILD)/tests/bench/benchlib.o $(LIB)
	@mkdir -p $(@D)
	$(link)

# tests/chaos/: the two ends of the streams of `make chaos`, and what they share
FLOWS := $(BUILD)/tests/chaos/flows
$(FLOWS).a: $(FLOWS).o $(BUILD)/tests/chaos/content.o
	@rm -f $@; $(AR) rcs $@ $^
$(BUILD)/chaos/%: $(BUILD)/tests/chaos/%.o $(FLOWS).a $(LIB)
	@mkdir -p $(@D)
	$(link)
$(BUILD)/tests/test_flows: $(FLOWS).a

# What needs packages first installs them, then starts over with them in place.
JOBS  = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))
again = +@deploy/install-deps build $(1) && $(MAKE) --no-print-directory $(JOBS) $(2)

check: ## set up, build, run all tests; the last line is "N passed, N failed"
	$(call again,test,check-built)
check-built: $(BINS) $(TESTS) $(FUZZ) $(TOOLS) $(SCALES) $(CHAOS)
	@SP_BUILD=$(abspath $(BUILD)) $(PYTHON) tests/check.py --build $(BUILD) $(CHECK_ARGS)
check-unit: $(TESTS) ## build and run the unit tests only
	@$(PYTHON) tests/check.py --build $(BUILD) --only unit

demo: ## set up, build, show that a download survives what cuts it
	$(call again,demo,all tools)
	@$(PYTHON) tests/demo/demo.py --build $(BUILD) $(DEMO_ARGS)
playground: ## as demo, but leave everything running
	$(call again,demo,all tools)
	@$(PYTHON) tests/demo/demo.py --build $(BUILD) --playground $(DEMO_ARGS)
bench: ## set up, build, measure beside the peers; table and build/bench/report.json
	$(call again,demo,all bench-built)
	@$(PYTHON) tests/bench/bench.py --build $(BUILD) $(BENCH_ARGS)
bench-crash: ## set up, build, measure what a crash costs; table and build/bench/crash.json
	$(call again,demo,all bench-built)
	@$(PYTHON) tests/bench/crash.py --build $(BUILD) $(BENCH_ARGS)
bench-built: $(BENCHES)
scale: ## set up, build, measure the control plane; table and build/scale/report.json
	$(call again,scale,all scale-built)
	@$(PYTHON) tests/scale/scale.py --build $(BUILD) $(SCALE_ARGS)
scale-built: $(SCALES)
detect: ## set up, build, measure how fast the dead and that no living are demoted (20 min)
	$(call again,test,all)
	@$(PYTHON) tests/integration/detect.py --build $(BUILD) $(DETECT_ARGS)
chaos: ## set up, build, break all that the promise names: SCENARIO=crash SECONDS=60 SEED=1
	$(call again,test,all chaos-built)
	@$(PYTHON) tests/chaos/chaos.py --build $(BUILD) $(SCENARIO) $(if $(SECONDS),--seconds $(SECONDS)) \
	  $(if $(SEED),--seed $(SEED)) $(CHAOS_ARGS)
chaos-built: $(CHAOS) $(TOOLS)
tools: $(TOOLS)

# Everything again with clang and the fuzzer's coverage, below build/libfuzzer.
fuzz: ## fuzz every target for FUZZ_TIME seconds; findings in build/libfuzzer/findings
	$(call again,test,BUILD=build/libfuzzer CC=clang CFLAGS="-O1 -g" \
	  SAN=address$(comma)undefined$(comma)fuzzer-no-link fuzz-built)
	@tests/fuzz/run build/libfuzzer $(FUZZ_TIME) $(FUZZ_ONLY)
fuzz-built: $(patsubst $(BUILD)/fuzz/%,$(BUILD)/libfuzzer/%,$(FUZZ))
$(BUILD)/libfuzzer/%: $(BUILD)/tests/fuzz/%.o $(ARCHIVES)
	@mkdir -p $(@D)
	$(link) -fsanitize=fuzzer

lint: ## format, static analysis, sizes, layers, man pages
	$(call again,test,lint-run)
lint-run:
	@tests/lint
format: ## clang-format in place
	clang-format -i $(CSRC)

MANPAGES := $(wildcard docs/man/*.[1-8])
# of the programs that are built: NAME.service, NAME@.service
UNITS    := $(foreach b,$(notdir $(BINS)),$(wildcard deploy/systemd/$(b)[.@]*))
EXAMPLES := $(wildcard deploy/examples/*)
COMPLETIONS := $(wildcard deploy/completion/*)
install: all ## to PREFIX below DESTDIR: programs, man pages, units, examples, completion
	install -d $(DESTDIR)$(BINDIR)
	install -m 0755 $(BINS) $(DESTDIR)$(BINDIR)
	@for m in $(MANPAGES); do d=$(DESTDIR)$(MANDIR)/man$${m##*.}; \
	  install -d $$d && install -m 0644 $$m $$d || exit 1; done
	@for u in $(UNITS); do install -d $(DESTDIR)$(UNITDIR) && \
	  sed 's|/usr/local/bin/|$(BINDIR)/|g' $$u > $(DESTDIR)$(UNITDIR)/$${u##*/} && \
	  chmod 0644 $(DESTDIR)$(UNITDIR)/$${u##*/} || exit 1; done
	@for e in $(EXAMPLES); do install -d $(DESTDIR)$(EXAMPLEDIR) && \
	  install -m 0644 $$e $(DESTDIR)$(EXAMPLEDIR) || exit 1; done
	@for c in $(COMPLETIONS); do install -d $(DESTDIR)$(COMPLETIONDIR) && \
	  install -m 0644 $$c $(DESTDIR)$(COMPLETIONDIR) || exit 1; done
uninstall: ## removes what install put there, and nothing else
	rm -f $(addprefix $(DESTDIR)$(BINDIR)/,$(notdir $(BINS)))
	rm -f $(foreach m,$(MANPAGES),$(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $(m)))/$(notdir $(m)))
	rm -f $(addprefix $(DESTDIR)$(UNITDIR)/,$(notdir $(UNITS)))
	rm -f $(addprefix $(DESTDIR)$(EXAMPLEDIR)/,$(notdir $(EXAMPLES)))
	rm -f $(addprefix $(DESTDIR)$(COMPLETIONDIR)/,$(notdir $(COMPLETIONS)))
	-rmdir $(DESTDIR)$(EXAMPLEDIR) $(dir $(DESTDIR)$(EXAMPLEDIR)) 2>/dev/null

clean: ## remove build/
	rm -rf build

FORCE:
.PHONY: FORCE all help check check-built check-unit demo playground bench bench-crash bench-built scale scale-built detect chaos chaos-built tools \
        fuzz fuzz-built lint lint-run format install uninstall clean
.SECONDARY:
.DELETE_ON_ERROR:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
