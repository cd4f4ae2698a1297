# What is done with scheduler while it is made. `make help` lists it.

LUAS    := lua5.1 lua5.2 lua5.3 lua5.4 lua5.5 luajit
LUA     ?= lua5.4
# Built from their sources: what Debian does not have, and newer releases of what it has.
BUILT   := lua5.5
NEWEST  := lua5.4 luajit
TREE    := $(CURDIR)
SOURCES := $(shell find src lua -type f ! -name '*.md') src/README.md Cargo.toml Cargo.lock build.rs

# What cargo calls the library. Here it is scheduler.so on each system, as Lua looks for it on all but Windows.
library_of = $(1)/release/$(if $(filter Windows_NT,$(OS)),scheduler.dll,libscheduler.$(if $(filter Darwin,$(shell uname)),dylib,so))

feature = $(subst .,,$(1))
module  = build/$(1)/scheduler.so
# The interpreters find the module of build/$(1) in front of any that is installed.
with_module = env -u LUA_CPATH_5_2 -u LUA_CPATH_5_3 -u LUA_CPATH_5_4 LUA_CPATH="$(TREE)/build/$(1)/?.so;;" \
  $(if $(filter $(BUILT),$(notdir $(1))),$(call with_built,lua,lua5.4))
# Those that are built, in a folder of build/, take what busted consists of from an interpreter that is installed.
with_built  = LD_LIBRARY_PATH="$(TREE)/build/$(1)" LUA_PATH="$$($(2) -e 'io.write(package.path)')"
command     = $(if $(filter $(BUILT),$(1)),$(TREE)/build/lua/$(1),$(1))

# A new cycle begins as soon as one has ended, also in the processes that specs start.
aggressive_gc = if _VERSION == 'Lua 5.5' then collectgarbage('param', 'pause', 0) else collectgarbage('setpause', 0) end

.PHONY: help demo test test-rust test-gc fuzz build lint bench docs types clean setup test-newest rock test-rock notices \
  $(LUAS:%=test-%) $(LUAS:%=gc-%) $(NEWEST:%=newest-%) $(LUAS:%=rock-%)

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile | expand -t 20
	@echo "Interpreters: $(LUAS). With LUA=luajit, say, demo, build, test and bench take that one."

demo: setup $(call module,$(LUA)) $(filter build/lua/$(LUA),$(BUILT:%=build/lua/%)) ## builds, and runs the examples on real files (LUA=..., FOLDER=...)
	@$(call with_module,$(LUA)) $(call command,$(LUA)) examples/analyse.lua $(FOLDER)
	@echo
	@$(call with_module,$(LUA)) $(call command,$(LUA)) examples/build.lua
	@echo
	@$(call with_module,$(LUA)) $(call command,$(LUA)) examples/pipeline.lua
	@echo
	@$(call with_module,$(LUA)) $(call command,$(LUA)) examples/check.lua
	@echo
	@$(call with_module,$(LUA)) $(call command,$(LUA)) examples/mandelbrot.lua
	@echo
	@$(call with_module,$(LUA)) $(call command,$(LUA)) examples/stages.lua

test: setup test-rust ## all tests in all interpreters (LUA=... for one)
ifeq ($(origin LUA),file)
	@$(MAKE) --no-print-directory $(LUAS:%=test-%)
else
	@$(MAKE) --no-print-directory test-$(LUA)
endif

test-rust: ## the tests of the Rust code, which need no Lua
	cargo test --locked --quiet

$(LUAS:%=test-%): test-%: build/%/scheduler.so build/host
	@echo "== $*"
	@$(call with_module,$*) $(call command,$*) spec/run.lua $(BUSTED)

$(BUILT:%=test-%) $(BUILT:%=gc-%): $(BUILT:%=build/lua/%)

test-newest: setup $(NEWEST:%=newest-%) ## all specs in the newest releases of these interpreters

$(NEWEST:%=newest-%): newest-%: build/%/scheduler.so build/newest/% build/host
	@echo "== $*, newest release"
	@env LUA_CPATH="$(TREE)/build/$*/?.so;$$($* -e 'io.write(package.cpath)')" $(call with_built,newest,$*) \
	  $(TREE)/build/newest/$* spec/run.lua $(BUSTED)

test-gc: setup $(LUAS:%=gc-%) ## all specs with the collector at its most aggressive

$(LUAS:%=gc-%): gc-%: build/gc/%/scheduler.so build/host
	@echo "== $*, aggressive collector"
	@$(call with_module,gc/$*) LUA_INIT="$(aggressive_gc)" $(call command,$*) spec/run.lua $(BUSTED)

# Into a folder of its own: no user gets a module whose decoder can be called.
fuzz: setup ## feeds broken messages to the decoder (LUA=..., TRANSFER_SECONDS=...)
	cargo build --locked --quiet --release --features $(call feature,$(LUA)),fuzz --target-dir target/$(LUA)
	@mkdir -p build/fuzz/$(LUA)
	@cp $(call library_of,target/$(LUA)) build/fuzz/$(LUA)/scheduler.so
	@$(call with_module,fuzz/$(LUA)) TRANSFER_FUZZ=1 $(call command,$(LUA)) spec/run.lua spec/transfer_fuzz_spec.lua

build: $(call module,$(LUA)) ## the module for one interpreter, into build/$(LUA)

build/%/scheduler.so: $(SOURCES)
	cargo build --locked --quiet --release --features $(call feature,$*) --target-dir target/$*
	@mkdir -p $(@D)
	@cp $(call library_of,target/$*) $@.new && mv $@.new $@

# Workers know nothing of LUA_INIT: their collector's pace is built in.
build/gc/%/scheduler.so: $(SOURCES)
	cargo build --locked --quiet --release --features $(call feature,$*),aggressive_gc --target-dir target/gc/$*
	@mkdir -p $(@D)
	@cp $(call library_of,target/gc/$*) $@.new && mv $@.new $@

rock: setup ## a source rock of the last commit, into build/rock
	@rockspec/pack

test-rock: ## packs a rock, and installs and uses it in an empty tree for each interpreter (LUA=... for one)
ifeq ($(origin LUA),file)
	@$(MAKE) --no-print-directory $(LUAS:%=rock-%)
else
	@$(MAKE) --no-print-directory rock-$(LUA)
endif

$(LUAS:%=rock-%): rock-%: rock
	@rockspec/try $(call command,$*)

$(BUILT:%=rock-%): rock-%: build/lua/%

notices: ## THIRD-PARTY.md: whose work is linked in
	@$(LUA) rockspec/notices.lua >THIRD-PARTY.md.new && mv THIRD-PARTY.md.new THIRD-PARTY.md

# An interpreter, and beside it the library for the host, which knows it by this name.
library = lib$(if $(filter luajit,$(1)),luajit-5.1.so.2,$(1).so.0)
define build_interpreter
	@mkdir -p $(@D)
	cargo build --locked --quiet --release --manifest-path spec/interpreter/Cargo.toml --target-dir target/interpreter
	host=$$(rustc -vV | sed -n 's/^host: //p') && env HOST=$$host TARGET=$$host OPT_LEVEL=2 \
	  CARGO_CFG_TARGET_POINTER_WIDTH=64 target/interpreter/release/build-lua $* build/sources/$* >build/$*.log 2>&1
	cc -shared -o $(@D)/$(call library,$*) -Wl,--whole-archive build/sources/$*/lib/*.a -Wl,--no-whole-archive -lm -ldl
	cc -O2 -Wall -Wextra -Ibuild/sources/$*/include -o $@ spec/interpreter/*.c \
	  -Wl,-E -Wl,--whole-archive build/sources/$*/lib/*.a -Wl,--no-whole-archive -lm -ldl
endef

INTERPRETER_SOURCES := $(addprefix spec/interpreter/,build_lua.rs Cargo.toml Cargo.lock interpreter.c modules.c)
$(BUILT:%=build/lua/%): build/lua/%: $(INTERPRETER_SOURCES)
	$(build_interpreter)
$(NEWEST:%=build/newest/%): build/newest/%: $(INTERPRETER_SOURCES)
	$(build_interpreter)

# It exports its symbols, as it takes the place of the C library's clocks.
build/host: $(wildcard spec/host/*.c) spec/host/lua.h
	@mkdir -p $(@D)
	cc -O1 -Wall -Wextra -rdynamic -o $@ $(filter %.c,$^) -ldl -lpthread

lint: ## rustfmt, clippy, luacheck, and whether THIRD-PARTY.md is up to date
	@.ci/setup lint
	cargo fmt --check
	cargo fmt --check --manifest-path bench/crossbeam/Cargo.toml
	cargo fmt --check --manifest-path docs/markdown/Cargo.toml
	cargo fmt --check --manifest-path spec/interpreter/Cargo.toml
	cargo clippy --locked --quiet --tests -- -D warnings
	cargo clippy --locked --quiet --features lua54 --target-dir target/clippy -- -D warnings
	luacheck --quiet . bin/scheduler
	@$(LUA) rockspec/notices.lua | cmp -s - THIRD-PARTY.md || { echo "THIRD-PARTY.md is old: make notices" >&2; exit 1; }

bench: setup $(filter-out $(BUILT:%=build/%/scheduler.so),$(LUAS:%=build/%/scheduler.so)) build/bench/crossbeam ## speed beside that of the peers, into bench/RESULTS.md
	@.ci/setup bench
	@$(call with_module,lua5.4) lua5.4 bench/run.lua

build/bench/crossbeam: bench/crossbeam/main.rs bench/crossbeam/Cargo.toml bench/crossbeam/Cargo.lock
	cargo build --locked --quiet --release --manifest-path bench/crossbeam/Cargo.toml --target-dir target/bench
	@mkdir -p $(@D)
	@cp target/bench/release/crossbeam $@

# The program for Markdown is a crate of its own, which the module knows nothing of.
docs: ## the site, into docs/site
	cargo build --locked --quiet --release --manifest-path docs/markdown/Cargo.toml --target-dir target/docs
	@$(LUA) bench/chart.lua
	@$(LUA) docs/generate.lua target/docs/release/markdown

types: ## checks the types for editors, and uses of them (cargo install emmylua_check)
	@command -v emmylua_check >/dev/null || { echo "Not found: emmylua_check; cargo install emmylua_check" >&2; exit 1; }
	emmylua_check --warnings-as-errors types spec/types

setup:
	@.ci/setup

clean: ## removes what was built
	rm -rf build target
