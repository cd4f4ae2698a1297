# What is done with scheduler while it is made. `make help` lists it.

LUAS    := lua5.1 lua5.2 lua5.3 lua5.4 lua5.5 luajit
LUA     ?= lua5.4
# Built from their sources: what Debian does not have, and newer releases of what it has.
BUILT   := lua5.5
NEWEST  := lua5.4 luajit
# The oldest and a new one, for what takes long.
CHECKED := lua5.1 lua5.4
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
  deep loom miri tsan valgrind asan programs soak setup-deep fuzz-lua5.4 \
  $(LUAS:%=test-%) $(LUAS:%=gc-%) $(NEWEST:%=newest-%) $(LUAS:%=rock-%) \
  $(CHECKED:%=valgrind-%) $(CHECKED:%=asan-%) $(CHECKED:%=programs-%)

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

# How long soak, random programs and broken messages last, each, in minutes. With more than one, valgrind and
# AddressSanitizer are given all specs.
MINUTES ?= 1
SECONDS_OF_EACH = $$(($(MINUTES) * 60))
VALGRINDED := parallel pool select embed error coroutine regress/collected
SANITIZED  := parallel pool channel shared_buffer shared_table shared_mutex transfer transfer_code transfer_function \
  interrupt close program regress/exit regress/states
# Of limits, system calls and sheer numbers, which are others under a tool; and of what is not the library.
UNCHECKED  := $(patsubst %,spec/%_spec.lua,regress/limits regress/memory regress/memory_limit regress/quiet stress \
  parallel_stress channel transfer transfer_fuzz site guide example command)
ALL_SPECS  := $(filter-out $(UNCHECKED),$(wildcard spec/*_spec.lua spec/regress/*_spec.lua))
spec_files  = $(if $(filter 1,$(MINUTES)),$(1:%=spec/%_spec.lua),$(ALL_SPECS))

deep: ## what finds faults that tests do not: some minutes, or an hour and more (MINUTES=60)
	@$(MAKE) --no-print-directory loom miri tsan valgrind asan programs fuzz-lua5.4 soak

setup-deep: setup
	@.ci/setup deep

loom: ## tries the orders in which threads can interleave
	env RUSTFLAGS="--cfg scheduler_loom" cargo test --locked --quiet --profile checks --lib --target-dir target/checks/loom \
	  interleavings

# Without those of a great many steps, each of which miri takes thousands for, and those for what it does not know:
# signals, descriptors, threads that are parked in the kernel.
miri: setup-deep ## looks at each access to memory in tests of engine, queues and what is shared
	env MIRIFLAGS="-Zmiri-disable-isolation" cargo +nightly miri test --locked --quiet --lib \
	  --features system_allocator --target-dir target/checks/miri -- engine:: runtime::completion worker:: \
	  --skip without_end --skip unique_over --skip far_timers --skip flood --skip pool:: --skip however_deep \
	  --skip without_a_stack --skip many_threads --skip one_at_a_time --skip whole_elements

# The standard library is built for it too: else its locks would not be seen.
tsan: setup-deep ## the tests of the Rust code with ThreadSanitizer
	env RUSTFLAGS="-Zsanitizer=thread" cargo +nightly test --locked --quiet --lib -Zbuild-std \
	  --target $$(rustc -vV | sed -n 's/^host: //p') --features system_allocator --target-dir target/checks/tsan

valgrind: $(CHECKED:%=valgrind-%) ## specs under valgrind: no error, no leak

$(CHECKED:%=valgrind-%): valgrind-%: setup-deep build/checks/valgrind/%/scheduler.so build/host
	@spec/deep/valgrind.sh $* $(call spec_files,$(VALGRINDED))

asan: $(CHECKED:%=asan-%) ## specs with AddressSanitizer

# Without forks: a lock of AddressSanitizer's own allocator, held by another thread at that moment, stays locked in the
# child for ever.
$(CHECKED:%=asan-%): asan-%: setup-deep build/checks/asan/%/scheduler.so build/host
	@spec/deep/asan.sh $* $(filter-out spec/regress/fork_spec.lua,$(call spec_files,$(SANITIZED)))

programs: $(CHECKED:%=programs-%) ## programs that call anything with anything

$(CHECKED:%=programs-%): programs-%: setup build/%/scheduler.so
	@echo "== random programs in $*"
	@PROGRAM_SECONDS=$(SECONDS_OF_EACH) $(call with_module,$*) $* spec/run.lua spec/program_spec.lua

fuzz-lua5.4:
	@$(MAKE) --no-print-directory fuzz LUA=lua5.4 TRANSFER_SECONDS=$$(($(SECONDS_OF_EACH) / 2))

soak: setup build/$(LUA)/scheduler.so build/host ## does everything again and again: what it takes of memory stays flat
	@echo "== soak in $(LUA)"
	@SOAK_MINUTES=$(MINUTES) $(call with_module,$(LUA)) build/host $(call library,$(LUA)) spec/deep/soak.lua 1 1

# As fast as the other, but with the allocator that valgrind knows, and lines.
build/checks/valgrind/%/scheduler.so: $(SOURCES)
	cargo build --locked --quiet --profile checks --features $(call feature,$*),system_allocator \
	  --target-dir target/checks/$*
	@mkdir -p $(@D)
	@cp target/checks/$*/checks/libscheduler.so $@.new && mv $@.new $@

# Named as a target, or the compiler's own plugins would be built so as well.
build/checks/asan/%/scheduler.so: $(SOURCES)
	host=$$(rustc -vV | sed -n 's/^host: //p') && env RUSTFLAGS="-Zsanitizer=address" cargo +nightly build --locked \
	  --quiet --profile checks --features $(call feature,$*),system_allocator --target $$host \
	  --target-dir target/checks/asan/$* && mkdir -p $(@D) && \
	  cp target/checks/asan/$*/$$host/checks/libscheduler.so $@.new && mv $@.new $@

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
	cargo clippy --locked --quiet --features luajit --target-dir target/clippy -- -D warnings
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
