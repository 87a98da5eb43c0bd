package daemon

import "github.com/skep-io/skep/api"

// followRoots takes in which roots the swarm trusts now, and whether a rotation of the root wants this node to renew its certificate.
func (n *node) followRoots(r *api.SessionResponse) {
	if err := n.renewer.Follow(r.GetRevocationsVersion(), r.GetRootCertificate(), r.GetNode().GetRenewal()); err != nil {
		n.logger.Error("the roots stay as they are", "error", err)
	}
}
