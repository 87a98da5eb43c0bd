package view

import (
	"time"

	"github.com/skep-io/skep/api"
)

// ServiceRevision is a spec that a service has or had.
type ServiceRevision struct {
	Revision  uint64
	CreatedAt time.Time
	ChangedBy string `json:",omitempty"`
	// Restored is the revision that was gone back to, or 0.
	Restored uint64 `json:",omitempty"`
	Spec     ServiceSpec
}

// NewServiceRevision shows a revision.
func NewServiceRevision(r *api.ServiceRevision) ServiceRevision {
	return ServiceRevision{
		Revision: r.GetNumber(), CreatedAt: timeOf(r.GetMeta().GetCreatedAt()), ChangedBy: r.GetChangedBy(), Restored: r.GetRestored(),
		Spec: newServiceSpec(r.GetSpec()),
	}
}
