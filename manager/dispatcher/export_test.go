package dispatcher

import (
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
)

// CheckUpdates is what UpdateTaskStatus lets through from a node.
func CheckUpdates(s *store.Store, nodeID string, updates []*api.TaskStatusUpdate) ([]*api.TaskStatusUpdate, error) {
	d, err := New(Config{Store: s})
	if err != nil {
		return nil, err
	}
	return d.checkUpdates(nodeID, updates)
}

// RelayFault is what a manager that relays reports is told for an error of the store.
var RelayFault = relayFault

// PartSize is how many bytes of assignments a message has before the next begins.
const PartSize = partSize
