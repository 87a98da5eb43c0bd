package daemon

import "github.com/skep-io/skep/api"

// distrust makes this node refuse others that the managers took their role from, and ends its connections with them.
func (n *node) distrust(version uint64, revocations []*api.Revocation) {
	revoked := map[string]api.Role{}
	for _, r := range revocations {
		revoked[r.GetNodeId()] = r.GetRole()
	}
	n.identity.Distrust(version, revoked)
}

// revoked returns the role that is left to a node that the managers revoked, or false.
func (d *Daemon) revoked(nodeID string) (api.Role, bool) {
	n, err := d.node()
	if err != nil {
		return 0, false
	}
	return n.identity.Revoked(nodeID)
}
