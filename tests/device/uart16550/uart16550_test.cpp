#include "device/uart16550/uart16550.h"

#include "device/fdt_view.h"
#include "device/test_env.h"

namespace doppel::test {
namespace {

enum : std::uint64_t { kData, kIer, kIir, kLcr, kMcr, kLsr, kMsr, kScratch };
constexpr std::uint64_t kFcr = kIir;

constexpr std::uint64_t kDataReady = 0x01;
constexpr std::uint64_t kOverrun = 0x02;
constexpr std::uint64_t kIdle = 0x60;  // THRE and TEMT

struct UartTest : testing::Test {
  TestEnv env;
  FakeConsole console;
  std::unique_ptr<Uart16550> uart = std::make_unique<Uart16550>(env.env(), console);

  std::uint64_t get(std::uint64_t offset) { return read(*uart, offset, Width::k1); }
  void set(std::uint64_t offset, std::uint64_t value) { write(*uart, offset, Width::k1, value); }
  void print(std::string_view text) {
    for (const char c : text) set(kData, static_cast<std::uint8_t>(c));
  }
  // As a driver's interrupt handler does: while there is data, take it.
  std::string receive_all() {
    std::string text;
    while ((get(kLsr) & kDataReady) != 0) text += static_cast<char>(get(kData));
    return text;
  }
};

TEST_F(UartTest, PolledOutput) {
  for (const char c : std::string_view("hello\n")) {
    ASSERT_EQ(get(kLsr), kIdle);
    set(kData, static_cast<std::uint8_t>(c));
  }
  EXPECT_EQ(console.output, "hello\n");
  EXPECT_FALSE(env.irq.level);
}

TEST_F(UartTest, PolledInput) {
  EXPECT_EQ(get(kLsr), kIdle);
  console.type("abc");
  EXPECT_EQ(receive_all(), "abc");
  EXPECT_EQ(get(kLsr), kIdle);
  EXPECT_EQ(get(kData), 0u);
}

TEST_F(UartTest, LongPasteArrivesWholeByInterrupt) {
  set(kFcr, 0xc1);
  set(kIer, 0x01);
  std::string paste;
  for (int i = 0; i < 1000; ++i) paste += static_cast<char>('a' + i % 26);
  console.type(paste);
  EXPECT_TRUE(env.irq.level);
  EXPECT_EQ(console.input.size(), paste.size() - 16) << "the rest waits where it was";
  EXPECT_EQ(receive_all(), paste);
  EXPECT_FALSE(env.irq.level);
}

TEST_F(UartTest, LongPasteArrivesWholeByPolling) {
  const std::string paste(1000, 'x');
  console.type(paste);
  EXPECT_EQ(receive_all(), paste);
}

TEST_F(UartTest, InputTypedBeforeTheDriverStartsSurvivesItsFifoClears) {
  console.type("uname -a\n");
  set(kFcr, 0x01);
  set(kFcr, 0x07);
  set(kFcr, 0x00);
  set(kFcr, 0x07);
  set(kIer, 0x01);
  EXPECT_TRUE(env.irq.level);
  set(kFcr, 0x07);
  EXPECT_EQ(receive_all(), "uname -a\n");
}

TEST_F(UartTest, ReceiveInterruptIdTellsTriggerLevelFromTimeout) {
  set(kFcr, 0x81);  // trigger level 8
  set(kIer, 0x01);
  console.type("1234567");
  EXPECT_EQ(get(kIir), 0xccu);
  for (int i = 0; i < 7; ++i) get(kData);
  EXPECT_EQ(get(kIir), 0xc1u);
  console.type("12345678");
  EXPECT_EQ(get(kIir), 0xc4u);
  get(kData);
  EXPECT_EQ(get(kIir), 0xccu);
}

TEST_F(UartTest, WithoutFifosOneByteIsHeld) {
  set(kIer, 0x01);
  console.type("ab");
  EXPECT_EQ(console.input, "b");
  EXPECT_EQ(get(kIir), 0x04u);
  EXPECT_EQ(get(kData), 'a');
  EXPECT_TRUE(env.irq.level);
  EXPECT_EQ(get(kData), 'b');
  EXPECT_FALSE(env.irq.level);
}

TEST_F(UartTest, TransmitInterruptIsRaisedByEnablingAndBySendingAndAcknowledgedByReadingItsId) {
  set(kIer, 0x02);
  EXPECT_TRUE(env.irq.level);
  EXPECT_EQ(get(kIir), 0x02u);
  EXPECT_FALSE(env.irq.level);
  EXPECT_EQ(get(kIir), 0x01u);
  set(kData, 'x');
  EXPECT_TRUE(env.irq.level);
  // A driver turns it off and on again to restart; the acknowledged condition comes back.
  EXPECT_EQ(get(kIir), 0x02u);
  set(kIer, 0x00);
  EXPECT_FALSE(env.irq.level);
  set(kIer, 0x02);
  EXPECT_EQ(get(kIir), 0x02u);
}

TEST_F(UartTest, ReadingAnotherInterruptsIdDoesNotAcknowledgeTheTransmitter) {
  set(kIer, 0x03);
  console.type("a");
  EXPECT_EQ(get(kIir), 0x04u);
  get(kData);
  EXPECT_EQ(get(kIir), 0x02u);
}

TEST_F(UartTest, FullConsoleKeepsTheTransmitterBusyAndLosesNothing) {
  set(kFcr, 0x01);
  set(kIer, 0x02);
  get(kIir);
  console.room = 2;
  print("abcde");
  EXPECT_EQ(console.output, "ab");
  EXPECT_EQ(get(kLsr) & kIdle, 0u);
  EXPECT_FALSE(env.irq.level);
  console.room = 1;
  console.listener();
  EXPECT_EQ(get(kLsr) & kIdle, 0u);
  console.room = 100;
  console.listener();
  EXPECT_EQ(console.output, "abcde");
  EXPECT_EQ(get(kLsr), kIdle);
  EXPECT_TRUE(env.irq.level);
}

TEST_F(UartTest, GuestThatOverrunsItsTransmitterLosesTheExcess) {
  set(kFcr, 0x01);
  console.room = 0;
  print("0123456789abcdefXYZ");
  console.room = 100;
  console.listener();
  EXPECT_EQ(console.output, "0123456789abcdef");
}

TEST_F(UartTest, ClearingTheTransmitFifoDropsWhatWaits) {
  set(kFcr, 0x01);
  console.room = 0;
  print("abc");
  set(kFcr, 0x05);
  EXPECT_EQ(get(kLsr), kIdle);
  console.room = 100;
  console.listener();
  EXPECT_EQ(console.output, "");
}

TEST_F(UartTest, DivisorLatchHidesDataAndEnable) {
  set(kLcr, 0x83);
  set(kData, 0x34);
  set(kIer, 0x12);
  EXPECT_EQ(get(kData), 0x34u);
  EXPECT_EQ(get(kIer), 0x12u);
  set(kLcr, 0x03);
  EXPECT_EQ(get(kLcr), 0x03u);
  EXPECT_EQ(get(kIer), 0u);
  EXPECT_EQ(console.output, "");
}

TEST_F(UartTest, RegistersKeepTheirBits) {
  set(kScratch, 0xa5);
  EXPECT_EQ(get(kScratch), 0xa5u);
  set(kIer, 0xff);
  EXPECT_EQ(get(kIer), 0x0fu);
  set(kMcr, 0xff);
  EXPECT_EQ(get(kMcr), 0x1fu);
  set(kFcr, 0x00);
  EXPECT_EQ(get(kIir) & 0xc0, 0u);
  set(kFcr, 0x01);
  EXPECT_EQ(get(kIir) & 0xc0, 0xc0u);
  set(kLsr, 0xff);
  set(kMsr, 0xff);
  EXPECT_EQ(get(kLsr), kIdle);
}

TEST_F(UartTest, ModemStatusShowsAConnectedTerminal) { EXPECT_EQ(get(kMsr), 0xb0u); }

// What a driver's probe does: OUT2 and RTS come back as DCD and CTS.
TEST_F(UartTest, LoopbackReturnsModemOutputsAndData) {
  set(kMcr, 0x1a);
  EXPECT_EQ(get(kMsr) & 0xf0, 0x90u);
  set(kData, 0x5a);
  EXPECT_EQ(get(kLsr) & kDataReady, kDataReady);
  EXPECT_EQ(get(kData), 0x5au);
  EXPECT_EQ(console.output, "");
}

TEST_F(UartTest, LoopbackHoldsSixteenBytesAndThenOverruns) {
  set(kFcr, 0x01);
  set(kMcr, 0x10);
  set(kIer, 0x04);
  print("0123456789abcdef");
  EXPECT_FALSE(env.irq.level);
  print("X");
  EXPECT_EQ(get(kIir), 0xc6u);
  EXPECT_EQ(get(kLsr), kIdle | kDataReady | kOverrun);
  EXPECT_FALSE(env.irq.level) << "reading the status acknowledges it";
  EXPECT_EQ(receive_all(), "0123456789abcdef");
}

TEST_F(UartTest, LoopbackAndInputDoNotMix) {
  set(kFcr, 0x01);
  set(kIer, 0x01);
  console.type("input");
  set(kMcr, 0x10);
  EXPECT_EQ(receive_all(), "");
  print("loop");
  set(kMcr, 0x00);
  EXPECT_EQ(receive_all(), "input");
}

TEST_F(UartTest, ModemChangesAreReportedOnceAndInterrupt) {
  get(kMsr);
  set(kMcr, 0x10);  // DCD, DSR and CTS fall
  EXPECT_EQ(get(kMsr), 0x0bu);
  EXPECT_EQ(get(kMsr), 0x00u);
  set(kIer, 0x08);
  set(kMcr, 0x14);  // RI rises: not reported
  EXPECT_FALSE(env.irq.level);
  set(kMcr, 0x10);  // and falls
  EXPECT_TRUE(env.irq.level);
  EXPECT_EQ(get(kIir), 0x00u);
  EXPECT_EQ(get(kMsr), 0x04u);
  EXPECT_FALSE(env.irq.level);
}

TEST_F(UartTest, InterruptsComeInOrderOfPriority) {
  get(kMsr);
  set(kMcr, 0x10);
  set(kFcr, 0x01);
  set(kIer, 0x0f);
  print("0123456789abcdefX");
  EXPECT_EQ(get(kIir) & 0x0f, 0x06u);
  get(kLsr);
  EXPECT_EQ(get(kIir) & 0x0f, 0x04u);
  receive_all();
  EXPECT_EQ(get(kIir) & 0x0f, 0x02u);
  EXPECT_EQ(get(kIir) & 0x0f, 0x00u);
  get(kMsr);
  EXPECT_EQ(get(kIir) & 0x0f, 0x01u);
}

TEST_F(UartTest, OtherWidthsAndOffsetsAreInert) {
  write(*uart, kData, Width::k4, 'x');
  write(*uart, 0x80, Width::k1, 'x');
  EXPECT_EQ(read(*uart, 0x4, Width::k4), 0u);
  EXPECT_EQ(get(0x80), 0u);
  EXPECT_EQ(console.output, "");
}

TEST_F(UartTest, ResetKeepsInputForTheNextDriver) {
  set(kFcr, 0x01);
  set(kIer, 0x0f);
  console.type("abc");
  ASSERT_TRUE(env.irq.level);
  {
    const std::lock_guard lock(uart->monitor());
    uart->reset();
  }
  EXPECT_FALSE(env.irq.level);
  EXPECT_EQ(get(kIer), 0u);
  EXPECT_EQ(receive_all(), "abc");
}

TEST_F(UartTest, RestoredDeviceGoesOnWhereTheSavedOneWas) {
  set(kFcr, 0xc1);
  set(kIer, 0x01);
  set(kLcr, 0x03);
  set(kScratch, 0x77);
  console.type("abc");
  console.room = 0;
  print("out");
  const StateNode state = save(*uart);
  uart.reset();
  env.irq.level = false;
  console.room = 100;

  auto restored = Uart16550::restore(env.env(), console, StateReader(state, "uart"));
  ASSERT_TRUE(restored) << restored.error().message;
  uart = std::move(*restored);
  EXPECT_TRUE(env.irq.level);
  EXPECT_EQ(console.output, "out");
  EXPECT_EQ(get(kScratch), 0x77u);
  EXPECT_EQ(get(kIir), 0xccu);
  EXPECT_EQ(receive_all(), "abc");
}

TEST_F(UartTest, RestoreRefusesWhatDoesNotFit) {
  StateNode state = save(*uart);
  state.values["received"] = std::vector<std::byte>(17);
  EXPECT_FALSE(Uart16550::restore(env.env(), console, StateReader(state, "uart")));
  state = save(*uart);
  state.values["scratch"] = std::uint64_t{256};
  EXPECT_FALSE(Uart16550::restore(env.env(), console, StateReader(state, "uart")));
}

TEST_F(UartTest, SurvivesRandomAccess) {
  console.input.assign(100'000, 'i');
  access_at_random(*uart, 8, 100'000, 7);
  console.room = 3;
  access_at_random(*uart, Uart16550::kSizeBytes, 100'000, 8);
  console.listener();
}

TEST_F(UartTest, DescribesItself) {
  const FdtView fdt = describe(
      *uart, {.range = {{0x1000'0000}, Uart16550::kSizeBytes}, .irq = 10, .interrupt_parent = 5});
  EXPECT_EQ(fdt.texts("/serial@10000000", "compatible"), "ns16550a");
  EXPECT_EQ(fdt.cells("/serial@10000000", "reg"), (Cells{0, 0x1000'0000, 0, 0x100}));
  EXPECT_EQ(fdt.cells("/serial@10000000", "clock-frequency"), Cells{3'686'400});
  EXPECT_EQ(fdt.cells("/serial@10000000", "interrupts"), Cells{10});
}

}  // namespace
}  // namespace doppel::test
