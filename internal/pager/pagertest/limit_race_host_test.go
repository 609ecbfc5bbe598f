//go:build hosttest && race

package pagertest_test

// memoryLimit is what the race detector needs, most of it.
const memoryLimit = 64 << 20
