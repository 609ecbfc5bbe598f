//go:build hosttest && !race

package pagertest_test

// memoryLimit is the private memory that a pager may have at rest.
const memoryLimit = 4 << 20
