# SPDX-License-Identifier: Apache-2.0
# Plain Makefile of the suite. `make help` lists the targets. BUILD=dir builds elsewhere; SANITIZE=1 adds ASan and UBSan.

BUILD ?= build
OUT = $(BUILD)
CC ?= gcc
JOBS ?= $(shell nproc)
# Only the outermost make says how many; the inner ones share its job server.
J = $(if $(filter 0,$(MAKELEVEL)),-j$(JOBS))
SANITIZE ?= 0

WARN = -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wimplicit-fallthrough -Wvla \
       -Wformat=2 -Wundef -Wpointer-arith -Wwrite-strings -Werror
BASE = -std=gnu11 -D_GNU_SOURCE -I. -g -O2 -fno-strict-aliasing -fstack-protector-strong $(WARN)
ifeq ($(SANITIZE),1)
BASE += -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
OUT = $(BUILD)/asan
else
BASE += -D_FORTIFY_SOURCE=2 -fPIE
LINK = -pie -Wl,-z,relro,-z,now -Wl,--as-needed
endif
PKGS = libzmq libczmq libevent_core libevent_openssl jansson sqlite3 libcrypto libssl libcurl libpq
# Looked up only when a compiler runs, so that `make install` works before the libraries are there.
PKG_CFLAGS = $(eval PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS)))$(PKG_CFLAGS)
PKG_LIBS = $(eval PKG_LIBS := $(shell pkg-config --libs $(PKGS)) -lhttp_parser -lm)$(PKG_LIBS)
DEPFLAGS = -MMD -MP
# V=1 shows the commands, otherwise one short line a file.
ifneq ($(V),1)
.SILENT:
endif
say = @printf '  %-5s %s\n' $(1) $@

# ---- what is built from what: every folder by wildcard, so nobody edits a list ----
FREE_SRC = common/mem.c common/err.c common/buf.c common/cobs.c common/text.c common/clock.c common/signals.c $(filter-out proto/proto_json.c,$(wildcard proto/*.c))
COMMON_SRC = $(wildcard common/*.c) $(wildcard proto/*.c)
KIT_SRC = $(wildcard common/provider/*.c)
GATEWAY_SRC = $(wildcard services/gateway/*.c services/gateway/http/*.c)
GVISORD_SRC = $(wildcard services/gvisord/*.c)
AGENT_SRC = $(wildcard agent/*.c)
CLI_SRC = $(wildcard cli/*.c)
obj = $(patsubst %.c,$(OUT)/obj/%.o,$(1))

DAEMONS = $(OUT)/bin/gateway $(OUT)/bin/gvisord
PROGRAMS = $(DAEMONS) $(OUT)/bin/emergent $(OUT)/bin/ew-agent $(OUT)/bin/ew-init

all: $(PROGRAMS)

$(OUT)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(CC) $(BASE) $(PKG_CFLAGS) $(DEPFLAGS) -c $< -o $@

# The agent's objects: freestanding, small, static. Never sanitised: it is linked without a dynamic loader.
AGENT_CC = $(CC) -std=gnu11 -D_GNU_SOURCE -I. -g -Os -fno-strict-aliasing -fstack-protector-strong -D_FORTIFY_SOURCE=2 \
           -ffunction-sections -fdata-sections $(WARN)
$(OUT)/agent/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(AGENT_CC) $(DEPFLAGS) -c $< -o $@
$(OUT)/bin/ew-agent: $(patsubst %.c,$(OUT)/agent/%.o,$(AGENT_SRC) $(FREE_SRC))
	@mkdir -p $(@D)
	$(CC) -static -Wl,--gc-sections -o $@.debug $^ -lpcre2-8 -lmd
	objcopy --strip-all $@.debug $@

$(OUT)/libcommon.a: $(call obj,$(COMMON_SRC))
	@rm -f $@
	ar rcs $@ $^
$(OUT)/libkit.a: $(call obj,$(KIT_SRC))
	@rm -f $@
	ar rcs $@ $^
# The store without the configuration, for tests: those that need it need not know its files.
$(OUT)/libstore.a: $(call obj,$(filter-out %/store_open.c,$(wildcard services/gateway/store*.c)))
	@rm -f $@
	ar rcs $@ $^

link = @printf '  %-5s %s\n' LINK $@; mkdir -p $(@D); $(CC) $(BASE) $(LINK) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(PKG_LIBS)
$(OUT)/bin/gateway: $(call obj,$(GATEWAY_SRC)) $(OUT)/libcommon.a
	$(link)
$(OUT)/bin/gvisord: $(call obj,$(GVISORD_SRC)) $(OUT)/libkit.a $(OUT)/libcommon.a
	$(link)
$(OUT)/bin/emergent: $(call obj,$(CLI_SRC)) $(OUT)/libcommon.a
	$(link)

$(OUT)/bin/ew-init: $(call obj,deploy/init/ew_init.c) $(OUT)/libcommon.a
	$(link)

# ---- unit tests: one program per tests/unit/test_*.c; a test names more sources in a line `// LINK: file.c …` ----
UNIT_SRC = $(wildcard tests/unit/test_*.c)
UNIT_BIN = $(patsubst tests/unit/%.c,$(OUT)/unit/%,$(UNIT_SRC))
link_of = $(call obj,$(shell sed -n 's|^// LINK:||p' $(1)))
.SECONDEXPANSION:
$(OUT)/unit/%: $(OUT)/obj/tests/unit/%.o $$(call link_of,tests/unit/%.c) $(OUT)/libstore.a $(OUT)/libkit.a $(OUT)/libcommon.a
	@mkdir -p $(@D)
	$(CC) $(BASE) $(LINK) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(PKG_LIBS) -lcriterion -lpcre2-8 -lmd
unit: $(UNIT_BIN)

# ---- fuzz targets: one program per tests/fuzz/fuzz_*.c (libFuzzer, clang), corpus beside it ----
FUZZ_SRC = $(wildcard tests/fuzz/fuzz_*.c)
FUZZ_BIN = $(patsubst tests/fuzz/%.c,$(OUT)/fuzz/%,$(FUZZ_SRC))
$(OUT)/fuzz/%: tests/fuzz/%.c $(FREE_SRC)
	@mkdir -p $(@D)
	clang -std=gnu11 -D_GNU_SOURCE -I. -g -O1 $(shell pkg-config --cflags $(PKGS)) \
	  -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -o $@ $< $(shell sed -n 's|^// LINK:||p' $<) $(PKG_LIBS) -lpcre2-8 -lmd
fuzz-build: $(FUZZ_BIN)

# ---- benches: tests/bench/*.c; bare_echo is PID 1 of a sandbox and therefore static ----
BENCH_BIN = $(patsubst tests/bench/%.c,$(OUT)/bench/%,$(filter-out tests/bench/bare_echo.c,$(wildcard tests/bench/*.c)))
$(OUT)/bench/%: $(OUT)/obj/tests/bench/%.o $(OUT)/libcommon.a
	$(link)
$(OUT)/bench/bare_echo: tests/bench/bare_echo.c
	@mkdir -p $(@D)
	$(CC) -static -O2 -Wall -Wextra -Werror -o $@ $<
bench-build: $(BENCH_BIN) $(OUT)/bench/bare_echo

# ---- the agent as an ordinary sanitised program, for its tests ----
$(OUT)/bin/ew-agent-sanitized: $(call obj,$(AGENT_SRC) $(FREE_SRC))
	@mkdir -p $(@D)
	$(CC) $(BASE) -o $@ $^ -lpcre2-8 -lmd

# ---- generated documents: committed, and `make check` fails when they are stale ----
$(OUT)/bin/proto_reference: $(call obj,tools/proto_reference.c) $(OUT)/libcommon.a
	$(link)
docs: $(OUT)/bin/proto_reference $(OUT)/bin/gateway
	$(OUT)/bin/proto_reference > docs/protocol.md
	$(OUT)/bin/gateway --config-reference > docs/configuration.md
	$(OUT)/bin/gateway --openapi > docs/openapi.json

# ---- what a user calls ----
help:
	@sed -n 's/^#: //p' Makefile
#: make run      install, build, start everything in the foreground and show a first workspace at work
#: make up       the same in the background (idempotent);  make down  stops the daemons, sandboxes live on
#: make test     install, build, run every test;           make check  the unit tests only
#: make lint     warnings, format, sizes, licences;        make fmt    clang-format
#: make asan     everything built with ASan and UBSan;     make fuzz   every fuzz target for FUZZ_SECONDS (60)
#: make bench    the tables of docs/performance.md;        make docs   the generated documents
#: make install  the Debian packages of deploy/packages.txt
#: make docker-runtime  adds gVisor to /etc/docker/daemon.json (DOCKER_CONFIG_FILE); what is there stays
install:
	@sh deploy/install.sh
# What only tests need (compilers for fuzzing, a database server) stays away from who only runs the suite.
install-run:
	@sh deploy/install.sh build run
run: install-run
	@$(MAKE) --no-print-directory $(J) all
	@BUILD=$(BUILD) sh deploy/dev/run.sh
up: install-run
	@$(MAKE) --no-print-directory $(J) all
	@BUILD=$(BUILD) sh deploy/dev/up.sh
down:
	@BUILD=$(BUILD) sh deploy/dev/down.sh
docker-runtime:
	@sh deploy/docker/runtime.sh $(or $(DOCKER_CONFIG_FILE),/etc/docker/daemon.json)
asan:
	@$(MAKE) --no-print-directory $(J) SANITIZE=1 all unit $(BUILD)/asan/bin/ew-agent-sanitized $(BUILD)/asan/bin/proto_reference
check:
	@$(MAKE) --no-print-directory $(J) all asan
	@BUILD=$(BUILD) sh tests/run.sh unit
test: install
	@$(MAKE) --no-print-directory $(J) all asan fuzz-build
	@BUILD=$(BUILD) sh tests/run.sh docs unit fuzz integration integration-postgres integration-docker chaos
fuzz: install
	@$(MAKE) --no-print-directory $(J) fuzz-build
	@BUILD=$(BUILD) FUZZ_SECONDS=$${FUZZ_SECONDS:-60} sh tests/run.sh fuzz
bench: install
	@$(MAKE) --no-print-directory $(J) all bench-build
	@BUILD=$(BUILD) sh tests/bench/run.sh
lint: install
	@sh deploy/lint/all.sh
fmt:
	@git ls-files '*.c' '*.h' | xargs clang-format -i

clean:
	rm -rf $(BUILD)

# Objects are kept: make would delete those that only pattern rules name.
.SECONDARY:
.PHONY: all unit bench-build fuzz-build docs help install install-run run up down docker-runtime asan check test fuzz bench lint fmt clean
-include $(shell find $(OUT) -name '*.d' 2>/dev/null)
