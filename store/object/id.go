package object

import (
	"crypto/rand"
	"math/big"
)

// IDLength is the number of characters of an id: ceil(128 / log2(36)).
const IDLength = 25

// NewID returns a fresh id with 128 random bits.
func NewID() string {
	var random [16]byte
	rand.Read(random[:]) // never fails, see crypto/rand
	text := new(big.Int).SetBytes(random[:]).Text(36)
	id := make([]byte, IDLength)
	for i := range id {
		id[i] = '0'
	}
	copy(id[IDLength-len(text):], text)
	return string(id)
}

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
