# The user's words. CMake does the work; each preset builds in build/PRESET.
#
#   make            the release build: build/release/chronos
#   make run        a local cluster with a guided tour (ONCE=1: only the tour)
#   make test       everything that must hold; ends with "N passed, N failed"
#   make bench      the benchmark (ARGS='--quick')
#   make fuzz       each fuzz target for FUZZ_SECONDS (60)
#   make valgrind  the unit tests of the pure folders under memcheck
#   make soak       the simulator without end, from a new seed each time
#                   (PART=schedules: schedules on real processes, leaders killed)
#   make format     clang-format over the sources
#   make lint       formatting, clang-tidy, cppcheck
#   make install    DESTDIR and PREFIX are honoured

PREFIX ?= /usr/local
DESTDIR ?=
FUZZ_SECONDS ?= 60
ARGS ?=
PART ?= sim
BUILD = build/release

.PHONY: all release packages run test bench fuzz soak valgrind format lint install clean
.DEFAULT_GOAL := all

all: release

# Configure once, then let ninja decide; the result is quiet when nothing changed.
release:
	@test -f $(BUILD)/build.ninja || cmake --preset release
	@cmake --build --preset release

packages:
	@tools/packages.sh

run: packages
	@$(MAKE) --no-print-directory release
	@ONCE='$(ONCE)' tools/tour.sh $(BUILD)/chronos

test: packages
	@tools/test.sh

bench: packages
	@$(MAKE) --no-print-directory release
	@$(BUILD)/chronos bench $(ARGS)

fuzz: packages
	@tools/fuzz.sh $(FUZZ_SECONDS)

soak: packages
	@$(MAKE) --no-print-directory release
	@tools/soak.sh $(BUILD)/chronos-sim '$(PART)'

valgrind: packages
	@tools/valgrind.sh

format:
	@tools/lint.sh format

lint: packages
	@tools/lint.sh all

install: release
	DESTDIR='$(DESTDIR)' cmake --install $(BUILD) --prefix '$(PREFIX)'

clean:
	rm -rf build
