//go:build invariants || race

package invariant

// Enabled says that a violated invariant panics.
const Enabled = true
