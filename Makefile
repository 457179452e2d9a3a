# The commands of a day's work; CMake and ninja do the building, guest/build the images.
#
#   make                    build/doppel
#   make demo               everything up to a shell in a RISC-V Debian, on a new machine too
#   make test               builds and runs all tests
#   make check-sanitizers   the tests again under ASan and UBSan, those with threads under TSan
#   make fuzz               each fuzz target for FUZZ_SECONDS, the TLB, and the engines in lockstep
#   make guest, rootfs      the images that the default guest, or a whole Debian, boots from
#
# Installed are only packages that are missing (tools/packages.txt).

SHELL := /bin/bash
BUILD := build
BUILD_TYPE := RelWithDebInfo
# Where the sanitizers' own address layout collides with a randomized one, TSan gives up at start.
FIXED_LAYOUT := $(shell setarch $$(uname -m) -R true 2>/dev/null && echo setarch $$(uname -m) -R)
CTEST := ctest --output-on-failure --no-tests=error -j$(shell nproc)
FUZZ_SECONDS := 60

.PHONY: all
all: $(BUILD)/build.ninja
	ninja -C $(BUILD)

.PHONY: doppel
doppel: $(BUILD)/build.ninja
	ninja -C $(BUILD) doppel

%/build.ninja: | deps
	cmake -S . -B $* -G Ninja -DCMAKE_BUILD_TYPE=$(BUILD_TYPE) $(CMAKE_FLAGS)

.PHONY: deps
deps:
	@tools/install-packages build

.PHONY: guest rootfs
guest: deps
	@tools/install-packages guest
	@guest/build

# Its second stage runs in Doppel.
rootfs: guest doppel
	@DOPPEL=$(BUILD)/doppel guest/build rootfs

# Without a terminal the guest shows what it is and powers off.
.PHONY: demo
demo: doppel guest
	@if [ -t 0 ] && [ -t 1 ]; then \
	    exec $(BUILD)/doppel boot; \
	else \
	    exec $(BUILD)/doppel boot --timeout 170 \
	        --append 'console=ttyS0 quiet doppel.run="uname -a; cat /etc/os-release"' </dev/null; \
	fi

.PHONY: test
test: test-deps all guest rootfs
	cd $(BUILD) && $(CTEST)

.PHONY: test-deps
test-deps: deps
	@tools/install-packages test

# Unit tests only: a whole Debian under a sanitizer would take an hour.
.PHONY: check-sanitizers check-asan check-tsan
check-sanitizers: check-asan check-tsan

check-asan: test-deps
	$(MAKE) $(BUILD)-asan/build.ninja CMAKE_FLAGS=-DDOPPEL_SANITIZE=address,undefined
	ninja -C $(BUILD)-asan
	cd $(BUILD)-asan && $(CTEST) -LE end-to-end

THREADED := base device engine machine memory network storage translator
check-tsan: test-deps
	$(MAKE) $(BUILD)-tsan/build.ninja CMAKE_FLAGS=-DDOPPEL_SANITIZE=thread
	ninja -C $(BUILD)-tsan $(THREADED:=_test)
	cd $(BUILD)-tsan && $(FIXED_LAYOUT) $(CTEST) -LE end-to-end -R '^($(subst $() ,|,$(THREADED)))' \
	    -E base_host_features

.PHONY: fuzz
fuzz: deps
	@tools/install-packages fuzz
	CXX=clang++-19 CC=clang-19 $(MAKE) $(BUILD)-fuzz/build.ninja \
	    CMAKE_FLAGS='-DDOPPEL_FUZZ=ON -DDOPPEL_TESTS=OFF -DDOPPEL_SANITIZE=address,undefined'
	ninja -C $(BUILD)-fuzz
	@for target in $(BUILD)-fuzz/fuzz/fuzz_*; do \
	    corpus=fuzz/corpus/$${target##*/fuzz_}; \
	    found=$$target.corpus; mkdir -p $$found; \
	    echo "$$target for $(FUZZ_SECONDS) s"; \
	    $$target -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=$$target. $$found $$corpus || exit 1; \
	done
	$(BUILD)-fuzz/fuzz/tlb --seconds $(FUZZ_SECONDS)
	$(BUILD)-fuzz/fuzz/lockstep --seconds $(FUZZ_SECONDS)
	DOPPEL_HOST_FEATURES=base $(BUILD)-fuzz/fuzz/lockstep --seconds $(FUZZ_SECONDS)

.PHONY: clean
clean:
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-tsan $(BUILD)-fuzz
