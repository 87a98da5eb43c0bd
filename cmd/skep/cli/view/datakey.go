package view

import (
	"time"

	"github.com/skep-io/skep/api"
)

// DataKey is the key that seals a manager's copy of the cluster store.
type DataKey struct {
	ID       string
	Hostname string
	// Generation is the number of the last rotation on demand that the manager followed.
	Generation uint64
	// ChangedAt is nil when it is unknown.
	ChangedAt *time.Time `json:",omitempty"`
}

// NewDataKey shows what is known of a manager's data key.
func NewDataKey(n *api.Node) DataKey {
	out := DataKey{ID: n.GetId(), Hostname: n.GetDescription().GetHostname(), Generation: n.GetDataKey().GetGeneration()}
	if at := n.GetDataKey().GetChangedAt(); at != nil {
		changed := timeOf(at)
		out.ChangedAt = &changed
	}
	return out
}
