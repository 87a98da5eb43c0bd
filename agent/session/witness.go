package session

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/atomicfile"
)

// AuditHead is a place in the audit log of the swarm. The zero value is before its beginning.
type AuditHead struct {
	Sequence uint64 `json:"sequence"`
	Hash     []byte `json:"hash"`
	// RecoveredAt is when the swarm went on from an older state last, in nanoseconds since 1970, or 0.
	RecoveredAt int64 `json:"recovered_at,omitempty"`
}

func headOf(h *api.AuditHead) AuditHead {
	return AuditHead{Sequence: h.GetSequence(), Hash: h.GetHash(), RecoveredAt: h.GetRecoveredAt()}
}

// String shows enough of the hash to tell heads apart.
func (h AuditHead) String() string {
	if h.Sequence == 0 {
		return "no entry"
	}
	const shown = 6
	return fmt.Sprintf("entry %d (hash %x…)", h.Sequence, h.Hash[:min(shown, len(h.Hash))])
}

// Recovery is that the swarm went on, on purpose, without what this node saw.
type Recovery struct {
	// Before is what this node saw, After what it was shown instead.
	Before AuditHead `json:"before"`
	After  AuditHead `json:"after"`
}

// At is when the swarm went on from an older state.
func (r Recovery) At() time.Time { return time.Unix(0, r.After.RecoveredAt) }

// RollbackError is returned when a manager does not have what this node saw of the audit log: its data are older, or others.
type RollbackError struct {
	// Manager is the manager's address.
	Manager string
	// Seen is the last head that this node saw, and Shown the head of that manager.
	Seen, Shown AuditHead
}

// Error names the manager, both heads, and the next step.
func (e *RollbackError) Error() string {
	return fmt.Sprintf("manager %s was rolled back: this node saw %v of the audit log, and it has only another log, up to %v. This node takes "+
		"nothing from it. Bring its newer data back, or run `skep swarm rejoin --force` there if other managers have them; if the older state is wanted, "+
		"run `skep swarm init --force-new-cluster` there, which this and all other nodes will see and accept", e.Manager, e.Seen, e.Shown)
}

// witness is the core that remembers how far this node saw the audit log, and judges what managers show. The zero value saw nothing.
type witness struct {
	Seen AuditHead `json:"seen"`
	// Recovered is the last recovery that lost something that this node saw, or nil.
	Recovered *Recovery `json:"recovered,omitempty"`
}

// judge takes in what a manager shows to a node that named w.Seen.Sequence, and reports whether it changed what is remembered. It
// returns a *RollbackError, and remembers nothing, when that is not a continuation of what was seen, nor a recovery since.
func (w *witness) judge(manager string, proof *api.AuditProof) (changed bool, err error) {
	shown := headOf(proof.GetHead())
	switch {
	case proof == nil && w.Seen.Sequence == 0: // the swarm keeps no log yet
		return false, nil
	case w.continues(proof):
		changed = shown.Sequence != w.Seen.Sequence || shown.RecoveredAt != w.Seen.RecoveredAt
	case shown.RecoveredAt > w.Seen.RecoveredAt:
		w.Recovered = &Recovery{Before: w.Seen, After: shown}
		changed = true
	default:
		return false, &RollbackError{Manager: manager, Seen: w.Seen, Shown: shown}
	}
	w.Seen = shown
	return changed, nil
}

// continues reports whether a manager has the entry that was seen last, or dropped it as too old.
func (w *witness) continues(proof *api.AuditProof) bool {
	head := proof.GetHead()
	switch {
	case proof == nil || head.GetSequence() < w.Seen.Sequence || head.GetRecoveredAt() < w.Seen.RecoveredAt:
		return false
	case w.Seen.Sequence == 0 || bytes.Equal(proof.GetHash(), w.Seen.Hash):
		return true
	default:
		return len(proof.GetHash()) == 0 && w.Seen.Sequence+1 < proof.GetOldest()
	}
}

const (
	witnessFile    = "audit.json"
	witnessVersion = 1
	maxWitness     = 4 << 10 // the most bytes of the file that are read
)

// savedWitness is the file; see the package comment.
type savedWitness struct {
	Version int `json:"version"`
	witness
}

// loadWitness returns what the last run remembered.
func loadWitness(dir string) (witness, error) {
	data, err := atomicfile.Read(filepath.Join(dir, witnessFile), maxWitness)
	if errors.Is(err, fs.ErrNotExist) {
		return witness{}, nil
	}
	if err != nil {
		return witness{}, fmt.Errorf("read what was seen of the audit log: %w", err)
	}
	return parseWitness(data)
}

// parseWitness reads the contents of the file.
func parseWitness(data []byte) (witness, error) {
	var s savedWitness
	if err := json.Unmarshal(data, &s); err != nil {
		return witness{}, fmt.Errorf("read what was seen of the audit log: %w", err)
	}
	if s.Version != witnessVersion {
		return witness{}, fmt.Errorf("read what was seen of the audit log: version %d, want %d", s.Version, witnessVersion)
	}
	return s.witness, nil
}

// saveWitness replaces the file.
func saveWitness(dir string, w witness) error {
	data, err := json.Marshal(savedWitness{Version: witnessVersion, witness: w})
	if err != nil {
		return fmt.Errorf("save what was seen of the audit log: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(dir, witnessFile), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("save what was seen of the audit log: %w", err)
	}
	return nil
}

// AuditState is what this node knows of the audit log.
type AuditState struct {
	// Seen is the last head that a manager showed.
	Seen AuditHead
	// Recovered is the last recovery that lost something that this node saw, or nil.
	Recovered *Recovery
	// Refused is why the last session did not come about or ended, if a manager was rolled back, else nil.
	Refused *RollbackError
}

// Audit returns what this node knows of the audit log.
func (c *Client) Audit() AuditState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return AuditState{Seen: c.witness.Seen, Recovered: c.witness.Recovered, Refused: c.refused}
}

// sawAudit is the sequence number of the last head that this node saw.
func (c *Client) sawAudit() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.witness.Seen.Sequence
}

// witnessed takes in what a manager shows of the audit log. A *RollbackError ends the session.
func (c *Client) witnessed(manager string, proof *api.AuditProof) error {
	c.mu.Lock()
	before := c.witness.Recovered
	changed, err := c.witness.judge(manager, proof)
	r := c.witness.Recovered
	if changed {
		c.writeWitness = true
		signal(c.unsaved)
	}
	if c.refused = nil; err != nil {
		errors.As(err, &c.refused)
	}
	c.mu.Unlock()
	if r != before {
		c.log.Error("the swarm was put back to an older state on purpose, and this node goes along",
			"manager", manager, "saw", r.Before.String(), "shown", r.After.String(), "recovered_at", r.At())
	}
	return err
}
