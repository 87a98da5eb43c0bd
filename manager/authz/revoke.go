package authz

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/store"
)

// Revoke makes a transaction that changes a node's role, or removes the node (then the role is unspecified), tell those who know
// nothing of the node but its certificates: until the last of them has expired. What is over at now is forgotten on the way.
func Revoke(tx store.Tx, now time.Time, nodeID string, role api.Role) error {
	old, err := store.TheCluster(tx)
	if err != nil || old == nil {
		return err
	}
	cluster := proto.CloneOf(old)
	cluster.Revocations = slices.DeleteFunc(cluster.GetRevocations(), func(r *api.Revocation) bool {
		return r.GetNodeId() == nodeID || !r.GetExpiresAt().AsTime().After(now)
	})
	if role != api.Role_ROLE_MANAGER { // which is all that a certificate can say
		life := max(cluster.GetSpec().GetCertExpiry().AsDuration(), cluster.GetLongestCertExpiry().AsDuration())
		cluster.Revocations = append(cluster.Revocations, &api.Revocation{
			NodeId: nodeID, Role: role, ExpiresAt: timestamppb.New(now.Add(life + ca.Backdate)),
		})
	}
	return tx.Update(cluster)
}
