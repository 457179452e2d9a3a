// The same tests, run by the translator.
#define DOPPEL_TEST_TRANSLATOR
#include "isa/riscv/csr_test.cpp"
