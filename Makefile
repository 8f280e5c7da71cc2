# The user's words. CMake does the work; each preset builds in build/PRESET.
#
#   make            the release build: build/release/chronos
#   make run        a local cluster with a guided tour (ONCE=1: only the tour)
#   make test       everything that must hold; ends with "N passed, N failed"
#   make bench      the benchmark (ARGS='--quick')
#   make mutants    known bugs, one at a time: each must be caught (ONLY=17, ONLY=M12, ONLY=lease)
#   make soak       the simulator with fresh seeds (SECONDS=600; else without end); keeps what fails
#                   (PART=schedules: schedules on real processes, leaders killed)
#   make chaos      real processes under faults of network, disks, clocks (FULL=1: hours; ONLY=NAME)
#   make fuzz       each fuzz target for SECONDS=60 (TARGET=wal)
#   make coverage   lines and branches that the tests reach of raft, storage, fsm and sched
#   make model      the models of the protocol, searched by spin (FULL=1: larger bounds)
#   make valgrind   the unit tests of the pure folders under memcheck
#   make format     clang-format over the sources
#   make lint       formatting, clang-tidy, cppcheck
#   make install    DESTDIR and PREFIX are honoured

PREFIX ?= /usr/local
DESTDIR ?=
SECONDS ?=
ONLY ?=
TARGET ?=
FULL ?=
JOBS ?= $(shell nproc)
ARGS ?=
PART ?= sim
BUILD = build/release

.PHONY: all release packages run test bench mutants soak chaos fuzz coverage model valgrind format lint install clean
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

mutants: packages
	@tools/mutate.sh --jobs $(JOBS) $(foreach name,$(ONLY),--only '$(name)')

soak: packages
	@$(MAKE) --no-print-directory release
	@SECONDS_MAX='$(SECONDS)' tools/soak.sh $(BUILD)/chronos-sim '$(PART)'

chaos: packages
	@$(MAKE) --no-print-directory release
	@tools/chaos.sh $(BUILD)/chronos $(if $(FULL),--full) $(if $(ONLY),--only '$(ONLY)')

fuzz: packages
	@JOBS=$(JOBS) tools/fuzz.sh $(or $(SECONDS),60) $(TARGET)

coverage: packages
	@tools/coverage.sh

model: packages
	@model/run.sh $(if $(FULL),--full)

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
