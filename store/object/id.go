package object

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"
)

// IDLength is the number of characters of an id: ceil(128 / log2(36)).
const IDLength = 25

// NewID returns a fresh id with 128 random bits.
func NewID() string {
	var random [16]byte
	rand.Read(random[:]) // never fails, see crypto/rand
	return encodeID(binary.BigEndian.Uint64(random[:8]), binary.BigEndian.Uint64(random[8:]))
}

// encodeID writes a number of 128 bits, of which hi are the upper ones, in base 36.
func encodeID(hi, lo uint64) string {
	const digits = "0123456789abcdefghijklmnopqrstuvwxyz"
	var id [IDLength]byte
	for i := IDLength - 1; i >= 0; i-- {
		var digit uint64
		hi, digit = hi/36, hi%36
		lo, digit = bits.Div64(digit, lo, 36)
		id[i] = digits[digit]
	}
	return string(id[:])
}

// SequenceID returns a number in the form of an id: ids are in the order of their numbers.
func SequenceID(n uint64) string { return encodeID(0, n) }

// ValidID reports whether id has the form of an id: anything else is refused before it reaches the log.
func ValidID(id string) bool {
	if len(id) != IDLength {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}
