package secret

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"sync"
)

const redacted = "[redacted]"

// Value is the data of one secret. Its zero value is empty.
type Value struct {
	// reveal is nil in the zero value. The data are behind a function because fmt prints what it finds in the unexported
	// fields of a struct without asking its methods (S1).
	reveal  func() []byte
	version uint64
}

func newValue(version uint64, data []byte) Value {
	return Value{reveal: func() []byte { return data }, version: version}
}

// Version returns the number of the version.
func (v Value) Version() uint64 { return v.version }

// Reveal returns the data, or nil. The caller owns them, and clears them after use.
func (v Value) Reveal() []byte {
	if v.reveal == nil {
		return nil
	}
	return v.reveal()
}

// Clear overwrites the data with zeros.
func (v Value) Clear() { clear(v.Reveal()) }

// String returns a placeholder.
func (v Value) String() string { return redacted }

// GoString returns a placeholder.
func (v Value) GoString() string { return redacted }

// Format writes a placeholder under every verb.
func (v Value) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalJSON returns a placeholder.
func (v Value) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText returns a placeholder.
func (v Value) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue returns a placeholder.
func (v Value) LogValue() slog.Value { return slog.StringValue(redacted) }

// Holder keeps secrets by id. The zero value is an empty holder.
type Holder struct {
	mu sync.Mutex
	// values is guarded by mu, and nil until the first Put.
	values map[string]Value
}

// Put holds a copy of data, a version of a secret, under an id, in place of what was there.
func (h *Holder) Put(id string, version uint64, data []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.values == nil {
		h.values = map[string]Value{}
	}
	h.values[id].Clear() // S2
	h.values[id] = newValue(version, bytes.Clone(data))
}

// Get returns a copy of the secret with an id, and whether it is here.
func (h *Holder) Get(id string) (Value, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, ok := h.values[id]
	if !ok {
		return Value{}, false
	}
	return newValue(v.version, bytes.Clone(v.Reveal())), true
}

// versions returns the version that each of the secrets has, or nil when one of them isn't here.
func (h *Holder) versions(ids []string) map[string]uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]uint64{}
	for _, id := range ids {
		v, ok := h.values[id]
		if !ok {
			return nil
		}
		out[id] = v.version
	}
	return out
}

// Remove forgets the secret with an id, if it is here.
func (h *Holder) Remove(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.values[id].Clear() // S2
	delete(h.values, id)
}

// Retain forgets every secret for which keep says no.
func (h *Holder) Retain(keep func(id string) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, v := range h.values {
		if !keep(id) {
			v.Clear() // S2
			delete(h.values, id)
		}
	}
}

// Clear forgets everything.
func (h *Holder) Clear() { h.Retain(func(string) bool { return false }) }

// Len returns the number of secrets held.
func (h *Holder) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.values)
}
