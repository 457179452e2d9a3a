// What collections of small benchmarks have, written anew: each program does fixed work on made-up data and prints a
// result, the same on every host. Built static for the guest and for the host from this same file.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t seed = 88172645463325252u;
static uint64_t draw(void) {
  seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
  return seed;
}

// Text of words, numbers, operators and brackets, somewhat like a program's.
static char* make_text(size_t bytes) {
  static const char* const kWords[] = {"if",   "else", "while", "return", "count", "index", "value_of", "x",
                                       "next", "size", "begin", "end",    "table", "node",  "buffer",   "y2"};
  static const char kMarks[] = "+-*/=<>(){}[];,  \n\n    ";
  char* text = malloc(bytes + 1);
  size_t at = 0;
  while (at < bytes) {
    char piece[16];
    uint64_t r = draw();
    if (r % 4 == 0) snprintf(piece, sizeof piece, "%u", (unsigned)(r >> 40));
    else if (r % 4 < 3) snprintf(piece, sizeof piece, "%s ", kWords[r >> 8 & (r & 16 ? 15 : 3)]);
    else snprintf(piece, sizeof piece, "%c", kMarks[(r >> 8) % (sizeof kMarks - 1)]);
    for (const char* p = piece; *p && at < bytes; p++) text[at++] = *p;
  }
  text[bytes] = 0;
  return text;
}

// Matrices of doubles that are whole numbers, so that sums are exact in any order.
static uint64_t matrix(void) {
  enum { kSize = 320 };
  static double a[kSize][kSize], b[kSize][kSize], c[kSize][kSize];
  for (int i = 0; i < kSize; i++)
    for (int j = 0; j < kSize; j++) a[i][j] = (double)(draw() % 100), b[i][j] = (double)(draw() % 100);
  for (int round = 0; round < 10; round++) {
    for (int i = 0; i < kSize; i++)
      for (int j = 0; j < kSize; j++) {
        double sum = 0;
        for (int k = 0; k < kSize; k++) sum += a[i][k] * b[k][j];
        c[i][j] = sum;
      }
    for (int i = 0; i < kSize; i++)
      for (int j = 0; j < kSize; j++) a[i][j] = (double)((long)c[i][j] % 100);
  }
  double sum = 0;
  for (int i = 0; i < kSize; i++)
    for (int j = 0; j < kSize; j++) sum += c[i][j];
  return (uint64_t)sum;
}

// The rounds of SHA-512 (FIPS 180-4), with constants that are made up: rotations, additions and logic of words.
static inline uint64_t rotate(uint64_t x, int by) { return x >> by | x << (64 - by); }
static void hash_block(uint64_t h[8], const uint64_t constants[80], const uint8_t* block) {
  uint64_t w[80];
  for (int i = 0; i < 16; i++) {
    w[i] = 0;
    for (int k = 0; k < 8; k++) w[i] = w[i] << 8 | block[i * 8 + k];
  }
  for (int i = 16; i < 80; i++) {
    uint64_t s0 = rotate(w[i - 15], 1) ^ rotate(w[i - 15], 8) ^ w[i - 15] >> 7;
    uint64_t s1 = rotate(w[i - 2], 19) ^ rotate(w[i - 2], 61) ^ w[i - 2] >> 6;
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  uint64_t v[8];
  memcpy(v, h, sizeof v);
  for (int i = 0; i < 80; i++) {
    uint64_t s1 = rotate(v[4], 14) ^ rotate(v[4], 18) ^ rotate(v[4], 41);
    uint64_t t1 = v[7] + s1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + constants[i] + w[i];
    uint64_t s0 = rotate(v[0], 28) ^ rotate(v[0], 34) ^ rotate(v[0], 39);
    uint64_t t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
    v[7] = v[6], v[6] = v[5], v[5] = v[4], v[4] = v[3] + t1;
    v[3] = v[2], v[2] = v[1], v[1] = v[0], v[0] = t1 + t2;
  }
  for (int i = 0; i < 8; i++) h[i] += v[i];
}
static uint64_t hash(void) {
  enum { kBytes = 1 << 20 };
  uint64_t h[8], constants[80];
  for (int i = 0; i < 80; i++) constants[i] = draw();
  for (int i = 0; i < 8; i++) h[i] = draw();
  uint8_t* text = (uint8_t*)make_text(kBytes);
  for (int round = 0; round < 50; round++)
    for (int at = 0; at < kBytes; at += 128) hash_block(h, constants, text + at);
  free(text);
  return h[0];
}

// The library's sort, of numbers and of strings, by functions that compare two.
static int compare_numbers(const void* a, const void* b) {
  uint64_t x = *(const uint64_t*)a, y = *(const uint64_t*)b;
  return (x > y) - (x < y);
}
static int compare_strings(const void* a, const void* b) { return strcmp(*(char* const*)a, *(char* const*)b); }
static uint64_t sort(void) {
  enum { kNumbers = 600000, kStrings = 200000 };
  uint64_t* numbers = malloc(kNumbers * sizeof *numbers);
  for (int i = 0; i < kNumbers; i++) numbers[i] = draw();
  qsort(numbers, kNumbers, sizeof *numbers, compare_numbers);
  char** strings = malloc(kStrings * sizeof *strings);
  for (int i = 0; i < kStrings; i++) {
    char text[32];
    snprintf(text, sizeof text, "key %u", (unsigned)(draw() >> 40));
    strings[i] = strdup(text);
  }
  qsort(strings, kStrings, sizeof *strings, compare_strings);
  uint64_t sum = 0;
  for (int i = 0; i < kNumbers; i++) sum = sum * 31 + numbers[i];
  for (int i = 0; i < kStrings; i++) sum = sum * 31 + strtoul(strings[i] + 4, 0, 10), free(strings[i]);
  free(numbers), free(strings);
  return sum;
}

// A tree of nodes of their own: searched, added to, walked by recursion, taken apart.
struct tree {
  struct tree *left, *right;
  uint64_t key, count;
};
static uint64_t walk(struct tree* at, int depth) {
  if (!at) return 0;
  uint64_t sum = walk(at->left, depth + 1) + at->key * at->count + (uint64_t)depth + walk(at->right, depth + 1);
  free(at);
  return sum;
}
static uint64_t tree(void) {
  struct tree* root = 0;
  for (int i = 0; i < 1200000; i++) {
    uint64_t key = draw() % 50000;
    struct tree** at = &root;
    while (*at && (*at)->key != key) at = key < (*at)->key ? &(*at)->left : &(*at)->right;
    if (!*at) {
      *at = calloc(1, sizeof **at);
      (*at)->key = key;
    }
    (*at)->count++;
  }
  return walk(root, 0);
}

// Finds repeated strings by a hash of three bytes, writes lengths and distances, and reads them back.
static uint64_t compress(void) {
  enum { kBytes = 1 << 20, kHashes = 1 << 14, kLongest = 255 };
  char* text = make_text(kBytes);
  uint8_t *packed = malloc(kBytes * 2), *copy = malloc(kBytes);
  int* latest = malloc(kHashes * sizeof *latest);
  uint64_t total = 0;
  for (int round = 0; round < 20; round++) {
    memset(latest, -1, kHashes * sizeof *latest);
    size_t out = 0;
    for (int at = 0; at < kBytes;) {
      int length = 0, from = -1;
      if (at + 3 < kBytes) {
        const uint8_t* p = (const uint8_t*)text + at;
        unsigned h = (p[0] * 2654435761u ^ p[1] * 40503u ^ p[2] * 97u) % kHashes;
        from = latest[h];
        latest[h] = at;
        if (from >= 0 && at - from < 65536)
          while (length < kLongest && at + length < kBytes && text[from + length] == text[at + length]) length++;
      }
      if (length > 3) {
        packed[out++] = (uint8_t)length;
        packed[out++] = (uint8_t)((at - from) >> 8), packed[out++] = (uint8_t)(at - from);
        at += length;
      } else {
        packed[out++] = 0, packed[out++] = (uint8_t)text[at++];
      }
    }
    size_t back = 0;
    for (size_t in = 0; in < out;) {
      int length = packed[in++];
      if (length) {
        size_t distance = (size_t)packed[in] << 8 | packed[in + 1];
        in += 2;
        for (int k = 0; k < length; k++, back++) copy[back] = copy[back - distance];
      } else {
        copy[back++] = packed[in++];
      }
    }
    if (back != kBytes || memcmp(copy, text, kBytes)) exit(1);
    total += out;
    text[round * 1000] ^= 1;
  }
  free(text), free(packed), free(copy), free(latest);
  return total;
}

// Splits text into names, numbers and marks by a table of states, and counts names in a table by their hash.
static uint64_t lexer(void) {
  enum { kBytes = 1 << 20, kNames = 1 << 10 };
  enum { kSpace, kName, kNumber, kMark, kStates };
  static uint8_t kinds[256];
  for (int c = 0; c < 256; c++) {
    int letter = (c | 32) >= 'a' && (c | 32) <= 'z';
    kinds[c] = letter || c == '_' ? kName : c >= '0' && c <= '9' ? kNumber : c == ' ' || c == '\n' ? kSpace : kMark;
  }
  static struct {
    char name[16];
    uint64_t count;
  } names[kNames];
  char* text = make_text(kBytes);
  uint64_t sum = 0, lines = 0;
  for (int round = 0; round < 45; round++) {
    const char* p = text;
    while (*p) {
      const char* begin = p;
      switch (kinds[(uint8_t)*p]) {
        case kSpace: lines += *p++ == '\n'; break;
        case kName: {
          unsigned h = 0;
          for (; kinds[(uint8_t)*p] == kName || kinds[(uint8_t)*p] == kNumber; p++) h = h * 31 + (uint8_t)*p;
          size_t length = (size_t)(p - begin) < 15 ? (size_t)(p - begin) : 15;
          h %= kNames;
          while (names[h].count && (strncmp(names[h].name, begin, length) || names[h].name[length])) h = (h + 1) % kNames;
          if (!names[h].count) memcpy(names[h].name, begin, length);
          if (++names[h].count > 1u << 30) exit(1);
          break;
        }
        case kNumber: {
          unsigned value = 0;
          for (; kinds[(uint8_t)*p] == kNumber; p++) value = value * 10 + (unsigned)(*p - '0');
          sum += value;
          break;
        }
        default:
          switch (*p++) {
            case '(': case '{': case '[': sum += 2; break;
            case ')': case '}': case ']': sum -= 1; break;
            case '=': sum += *p == '='; break;
            default: sum += 5;
          }
      }
    }
  }
  for (int h = 0; h < kNames; h++) sum = sum * 31 + names[h].count;
  free(text);
  return sum + lines;
}

static const struct {
  const char* name;
  uint64_t (*run)(void);
} kPrograms[] = {{"matrix", matrix}, {"hash", hash},         {"sort", sort},
                 {"tree", tree},     {"compress", compress}, {"lexer", lexer}};

int main(int argc, char** argv) {
  for (unsigned i = 0; i < sizeof kPrograms / sizeof *kPrograms; i++)
    if (argc == 2 && !strcmp(argv[1], kPrograms[i].name))
      return printf("%s %016llx\n", argv[1], (unsigned long long)kPrograms[i].run()) < 0;
  return 2;
}
