// The same tests, run by the translator.
#define DOPPEL_TEST_TRANSLATOR
#include "isa/riscv/harts_test.cpp"
