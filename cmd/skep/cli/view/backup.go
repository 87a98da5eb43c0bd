package view

import (
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/skep-io/skep/api"
)

// Backup is what the header of a backup file says.
type Backup struct {
	ClusterID string
	CreatedAt time.Time
	Index     uint64
	Version   string
	// SealedBy is "backup key" or "passphrase".
	SealedBy string
	// Genuine is false while there was no key to check the header with.
	Genuine bool
	// Objects are numbers by kind.
	Objects map[string]uint64
}

// NewBackup shows a header.
func NewBackup(h *api.BackupHeader, genuine bool) Backup {
	b := Backup{
		ClusterID: h.GetClusterId(), CreatedAt: timeOf(h.GetCreatedAt()), Index: h.GetIndex(), Version: h.GetVersion(),
		SealedBy: "backup key", Genuine: genuine, Objects: map[string]uint64{},
	}
	if h.GetPassphrase() != nil {
		b.SealedBy = "passphrase"
	}
	for _, n := range h.GetCounts() {
		b.Objects[kindName(n.GetKind())] = n.GetObjects()
	}
	return b
}

// kindName names a kind of object by the number of its field.
func kindName(kind uint32) string {
	fields := new(api.StoredObject).ProtoReflect().Descriptor().Fields()
	if field := fields.ByNumber(protoreflect.FieldNumber(kind)); field != nil {
		return string(field.Name())
	}
	return "unknown"
}
