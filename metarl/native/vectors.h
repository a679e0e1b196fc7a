// Vectors of floats of the width that the compiler targets, and matrix products on them.
//
// GCC's and Clang's vector extensions: one source for AVX-512, AVX2 and anything else (NEON, SSE).
// All functions keep NaN: comparisons put the value that may be NaN where "false" selects it.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define TILE_ROWS 12
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#define TILE_ROWS 6
#else
#define VECTOR_BYTES 16
#define TILE_ROWS 6
#endif

namespace {

constexpr int WIDTH = VECTOR_BYTES / 4;  // floats of a vector
constexpr int PANEL = 2 * WIDTH;         // columns of a packed panel

typedef float Vector __attribute__((vector_size(VECTOR_BYTES)));
typedef float Unaligned __attribute__((vector_size(VECTOR_BYTES), aligned(4)));
typedef int32_t Integers __attribute__((vector_size(VECTOR_BYTES)));

inline Vector load(const float* from) { return *(const Unaligned*)from; }
inline void store(float* to, Vector value) { *(Unaligned*)to = value; }
inline Vector all(float value) { return value - Vector{}; }

// e^x by the reduction x = n log 2 + r and a polynomial in r (Cephes' expf); 1e-7 relative.
inline Vector exponential(Vector x) {
  x = x < all(-87.0f) ? all(-87.0f) : x;
  x = x > all(88.0f) ? all(88.0f) : x;
  const Vector magic = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to whole numbers
  const Vector shifted = x * 1.44269504f + magic;
  const Integers n = (Integers)shifted - (Integers)magic;
  const Vector whole = shifted - magic;
  const Vector r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  Vector p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * (Vector)((n + 127) << 23);
}

inline Vector sigmoid(Vector x) { return 1.0f / (1.0f + exponential(-x)); }
inline Vector hyperbolic_tangent(Vector x) { return 2.0f / (1.0f + exponential(-2.0f * x)) - 1.0f; }
inline Vector relu(Vector x) { return x < Vector{} ? Vector{} : x; }

inline int rounded_up(int value, int multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// A [M, K] with element (i, k) at i * row + k * column.
struct Matrix {
  const float* at;
  long row, column;
};

enum class Into { Assign, Add };

// C[M, V vectors] = or += A B + bias in registers.
template <int M, int V>
inline void tile(int inner, Matrix a, const float* b, long ldb, float* c, long ldc, Into into,
                 const float* bias) {
  Vector sum[M][V];
  for (int i = 0; i < M; i++)
    for (int j = 0; j < V; j++) {
      const float* start = into == Into::Add ? c + i * ldc + j * WIDTH : bias + j * WIDTH;
      sum[i][j] = into == Into::Add || bias ? load(start) : Vector{};
    }
  for (int k = 0; k < inner; k++) {
    Vector right[V];
    for (int j = 0; j < V; j++) right[j] = load(b + k * ldb + j * WIDTH);
    for (int i = 0; i < M; i++) {
      const Vector left = all(a.at[i * a.row + k * a.column]);
      for (int j = 0; j < V; j++) sum[i][j] += left * right[j];
    }
  }
  for (int i = 0; i < M; i++)
    for (int j = 0; j < V; j++) store(c + i * ldc + j * WIDTH, sum[i][j]);
}

template <int V>
inline void all_rows(int rows, int inner, Matrix a, const float* b, long ldb, float* c, long ldc,
                     Into into, const float* bias) {
  int i = 0;
  const auto from = [&] { return Matrix{a.at + i * a.row, a.row, a.column}; };
  for (; i + TILE_ROWS <= rows; i += TILE_ROWS)
    tile<TILE_ROWS, V>(inner, from(), b, ldb, c + i * ldc, ldc, into, bias);
  for (; i + 4 <= rows; i += 4) tile<4, V>(inner, from(), b, ldb, c + i * ldc, ldc, into, bias);
  for (; i < rows; i++) tile<1, V>(inner, from(), b, ldb, c + i * ldc, ldc, into, bias);
}

// C [M, N] = or += A [M, K] B + bias [N], where B [K, N] is packed; N is a multiple of WIDTH.
inline void multiply(int rows, int columns, int inner, Matrix a, const float* packed, float* c,
                     long ldc, Into into, const float* bias = nullptr) {
  int j = 0;
  for (; j + PANEL <= columns; j += PANEL)
    all_rows<2>(rows, inner, a, packed + (long)j * inner, PANEL, c + j, ldc, into,
                bias ? bias + j : nullptr);
  if (j < columns)
    all_rows<1>(rows, inner, a, packed + (long)j * inner, WIDTH, c + j, ldc, into,
                bias ? bias + j : nullptr);
}

// C [M, N] += A^T B, with A [R, M] and B [R, N]; N is a multiple of WIDTH.
inline void add_transposed_product(int rows, int columns, int inner, const float* a, long lda,
                                   const float* b, long ldb, float* c, long ldc) {
  const Matrix transposed{a, 1, lda};
  int j = 0;
  for (; j + PANEL <= columns; j += PANEL)
    all_rows<2>(rows, inner, transposed, b + j, ldb, c + j, ldc, Into::Add, nullptr);
  if (j < columns)
    all_rows<1>(rows, inner, transposed, b + j, ldb, c + j, ldc, Into::Add, nullptr);
}

// A packed matrix [K, N]: panels of PANEL columns, the last may be WIDTH wide, each [K, width].
inline float* packed_column(float* packed, int inner, int columns, int n, int& width) {
  const int panel = n / PANEL * PANEL;
  width = panel + PANEL <= columns ? PANEL : WIDTH;
  return packed + (long)panel * inner + (n - panel);
}

// Packs the transpose of `weight` [rows, K] as columns first, ..., first + padded - 1 of [K, N].
inline void pack_transposed(const float* weight, int rows, int inner, float* packed, int columns,
                            int first, int padded) {
  for (int n = 0; n < padded; n++) {
    int width;
    float* column = packed_column(packed, inner, columns, first + n, width);
    const float* row = weight + (long)n * inner;
    for (int k = 0; k < inner; k++) column[(long)k * width] = n < rows ? row[k] : 0.0f;
  }
}

// Packs `weight` [rows, columns] as rows first, ..., first + padded - 1 of a matrix [K, N], where
// N is `columns` rounded up to whole vectors.
inline void pack_rows(const float* weight, int rows, int columns, float* packed, int inner,
                      int first, int padded) {
  const int wide = rounded_up(columns, WIDTH);
  for (int j = 0; j < wide;) {
    const int width = j + PANEL <= wide ? PANEL : WIDTH;
    for (int k = 0; k < padded; k++)
      for (int n = 0; n < width; n++)
        packed[(long)j * inner + (long)(first + k) * width + n] =
            k < rows && j + n < columns ? weight[(long)k * columns + j + n] : 0.0f;
    j += width;
  }
}

// sum [N] += column sums of A [R, N]; N is a multiple of WIDTH.
inline void add_column_sums(int rows, int columns, const float* a, long lda, float* sum) {
  for (int j = 0; j < columns; j += WIDTH) {
    Vector total = load(sum + j);
    for (int i = 0; i < rows; i++) total += load(a + i * lda + j);
    store(sum + j, total);
  }
}

// Gradients behind a ReLU: zero where its output is.
inline void mask(float* grads, const float* outputs, long count) {
  for (long i = 0; i < count; i += WIDTH)
    store(grads + i, load(outputs + i) > Vector{} ? load(grads + i) : Vector{});
}

inline void relu_in_place(float* values, long count) {
  for (long i = 0; i < count; i += WIDTH) store(values + i, relu(load(values + i)));
}

// Parts of one buffer, given out in order; with no buffer it only counts.
struct Parts {
  float* base;
  long used = 0;
  float* take(long count) {
    float* part = base ? base + used : nullptr;
    used += (count + 15) / 16 * 16;
    return part;
  }
};

}  // namespace
