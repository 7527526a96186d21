# SPDX-License-Identifier: Apache-2.0
# Plain Makefile of the suite. `make help` lists the targets. BUILD=dir builds elsewhere; SANITIZE=1 adds ASan and UBSan.

BUILD ?= build
CC ?= gcc
SANITIZE ?= 0
ASAN_BUILD = $(BUILD)/asan

WARN = -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wimplicit-fallthrough -Wvla \
       -Wformat=2 -Wundef -Wpointer-arith -Wwrite-strings -Werror
BASE = -std=gnu11 -D_GNU_SOURCE -I. -g -O2 -fno-strict-aliasing -fstack-protector-strong $(WARN)
ifeq ($(SANITIZE),1)
BASE += -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
BUILD := $(BUILD)/asan
else
BASE += -D_FORTIFY_SOURCE=2 -fPIE
LINK = -pie -Wl,-z,relro,-z,now
endif
PKGS = libzmq libczmq libevent_core libevent_openssl jansson sqlite3 libcrypto libssl libcurl
# Looked up only when a compiler runs, so that `make install` works before the libraries are there.
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS))
PKG_LIBS = $(shell pkg-config --libs $(PKGS)) -lhttp_parser -lm
DEPFLAGS = -MMD -MP

# ---- what is built from what: every folder by wildcard, so nobody edits a list ----
FREE_SRC = common/mem.c common/err.c common/buf.c common/text.c common/clock.c $(filter-out proto/proto_json.c,$(wildcard proto/*.c))
COMMON_SRC = $(wildcard common/*.c) $(wildcard proto/*.c)
KIT_SRC = $(wildcard common/provider/*.c)
GATEWAY_SRC = $(wildcard services/gateway/*.c services/gateway/http/*.c)
GVISORD_SRC = $(wildcard services/gvisord/*.c)
AGENT_SRC = $(wildcard agent/*.c)
CLI_SRC = $(wildcard cli/*.c)
obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))

DAEMONS = $(BUILD)/bin/gateway $(BUILD)/bin/gvisord
PROGRAMS = $(DAEMONS) $(BUILD)/bin/emergent $(BUILD)/bin/ew-agent

all: $(PROGRAMS)

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(BASE) $(PKG_CFLAGS) $(DEPFLAGS) -c $< -o $@

# The agent's objects: freestanding, small, static. Never sanitised: it is linked without a dynamic loader.
AGENT_CC = $(CC) -std=gnu11 -D_GNU_SOURCE -I. -g -Os -fno-strict-aliasing -fstack-protector-strong -D_FORTIFY_SOURCE=2 \
           -ffunction-sections -fdata-sections $(WARN)
$(BUILD)/agent/%.o: %.c
	@mkdir -p $(@D)
	$(AGENT_CC) $(DEPFLAGS) -c $< -o $@
$(BUILD)/bin/ew-agent: $(patsubst %.c,$(BUILD)/agent/%.o,$(AGENT_SRC) $(FREE_SRC))
	@mkdir -p $(@D)
	$(CC) -static -Wl,--gc-sections -o $@.debug $^ -lpcre2-8 -lmd
	objcopy --strip-all $@.debug $@

$(BUILD)/libcommon.a: $(call obj,$(COMMON_SRC))
	@rm -f $@
	ar rcs $@ $^
$(BUILD)/libkit.a: $(call obj,$(KIT_SRC))
	@rm -f $@
	ar rcs $@ $^

link = @mkdir -p $(@D); $(CC) $(BASE) $(LINK) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(PKG_LIBS)
$(BUILD)/bin/gateway: $(call obj,$(GATEWAY_SRC)) $(BUILD)/libcommon.a
	$(link)
$(BUILD)/bin/gvisord: $(call obj,$(GVISORD_SRC)) $(BUILD)/libkit.a $(BUILD)/libcommon.a
	$(link)
$(BUILD)/bin/emergent: $(call obj,$(CLI_SRC)) $(BUILD)/libcommon.a
	$(link)

# ---- unit tests: one program per tests/unit/test_*.c; a test names more sources in a line `// LINK: file.c …` ----
UNIT_SRC = $(wildcard tests/unit/test_*.c)
UNIT_BIN = $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(UNIT_SRC))
link_of = $(call obj,$(shell sed -n 's|^// LINK:||p' $(1)))
.SECONDEXPANSION:
$(BUILD)/unit/%: $(BUILD)/obj/tests/unit/%.o $$(call link_of,tests/unit/%.c) $(BUILD)/libkit.a $(BUILD)/libcommon.a
	@mkdir -p $(@D)
	$(CC) $(BASE) $(LINK) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(PKG_LIBS) -lcriterion -lpcre2-8 -lmd
unit: $(UNIT_BIN)

# ---- fuzz targets: one program per tests/fuzz/fuzz_*.c (libFuzzer, clang), corpus beside it ----
FUZZ_SRC = $(wildcard tests/fuzz/fuzz_*.c)
FUZZ_BIN = $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(FUZZ_SRC))
$(BUILD)/fuzz/%: tests/fuzz/%.c $(FREE_SRC)
	@mkdir -p $(@D)
	clang -std=gnu11 -D_GNU_SOURCE -I. -g -O1 $(shell pkg-config --cflags $(PKGS)) \
	  -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -o $@ $< $(shell sed -n 's|^// LINK:||p' $<) $(PKG_LIBS) -lpcre2-8 -lmd
fuzz-build: $(FUZZ_BIN)

clean:
	rm -rf $(BUILD)

.PHONY: all unit fuzz-build clean
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
