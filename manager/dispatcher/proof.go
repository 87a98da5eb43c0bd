package dispatcher

import (
	"context"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
)

// prove shows what this manager has of the audit log that a node saw up to an entry. A manager that is behind the one that the node saw it
// at catches up first, so that it is not taken for one that was rolled back.
func (d *Dispatcher) prove(ctx context.Context, sequence uint64) (*api.AuditProof, error) {
	proof, err := d.proof(sequence)
	if err != nil || proof.GetHead().GetSequence() >= sequence {
		return proof, err
	}
	if err := d.cfg.Store.Barrier(ctx); err != nil {
		return nil, fault.New(fault.Unavailable, "this manager's audit log ends at entry %d, before %d, and it cannot catch up: %w",
			proof.GetHead().GetSequence(), sequence, err)
	}
	return d.proof(sequence)
}

func (d *Dispatcher) proof(sequence uint64) (proof *api.AuditProof, err error) {
	err = d.cfg.Store.View(func(tx store.ReadTx) (err error) {
		proof, err = store.AuditProof(tx, sequence)
		return err
	})
	return proof, err
}
