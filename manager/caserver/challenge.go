package caserver

import (
	"crypto/rand"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/simplelru"
)

const (
	// nonceSize in bytes: nobody meets one by chance.
	nonceSize = 32
	// nonceLife is how long a nonce counts: the time of a slow network, not of a person.
	nonceLife = time.Minute
	// maxNonces bounds the memory for nonces that were not used. The oldest is forgotten first.
	maxNonces = 4096
)

// challenges are the nonces that were given out (S4). They are this leader's: with another one, a node begins anew.
type challenges struct {
	mu    sync.Mutex
	given *simplelru.LRU // guarded by mu: time.Time by nonce
}

func newChallenges() (*challenges, error) {
	given, err := simplelru.NewLRU(maxNonces, nil)
	return &challenges{given: given}, err
}

// give returns a fresh nonce.
func (c *challenges) give(now time.Time) []byte {
	nonce := make([]byte, nonceSize)
	rand.Read(nonce) // never fails, see crypto/rand
	c.mu.Lock()
	defer c.mu.Unlock()
	c.given.Add(string(nonce), now)
	return nonce
}

// take reports whether a nonce was given out and counts. It counts no second time.
func (c *challenges) take(now time.Time, nonce []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	given, ok := c.given.Peek(string(nonce))
	if !ok {
		return false
	}
	c.given.Remove(string(nonce))
	age := now.Sub(given.(time.Time))
	return age >= 0 && age <= nonceLife
}
