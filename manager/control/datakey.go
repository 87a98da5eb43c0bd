package control

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/store"
)

// minDataKeyRotation keeps managers from sealing their stores anew all the time: each change writes the whole store.
const minDataKeyRotation = time.Hour

// dataKeyRotation checks how often data keys are changed.
func (p *problems) dataKeyRotation(spec *api.ClusterSpec) {
	const path = "data_key_rotation"
	p.duration(path, spec.GetDataKeyRotation())
	if d := spec.GetDataKeyRotation(); d.IsValid() && d.AsDuration() > 0 && d.AsDuration() < minDataKeyRotation {
		p.add(path, "minimum is %s, as each change writes the whole store; 0 turns it off", minDataKeyRotation)
	}
}

// RotateDataKeys asks every manager to change the data key of its store. The managers follow by themselves, also those that are
// down now; see package keymanager.
func (s *Server) RotateDataKeys(ctx context.Context, _ *api.RotateDataKeysRequest) (*api.RotateDataKeysResponse, error) {
	id, err := requestID(ctx, "RotateDataKeys")
	if err != nil {
		return nil, err
	}
	err = s.update(ctx, id, func(tx store.Tx) error {
		old, err := theCluster(tx)
		if err != nil {
			return err
		}
		cluster := proto.CloneOf(old)
		cluster.DataKeyGeneration++
		return tx.Update(cluster)
	})
	if err != nil {
		return nil, err
	}
	response := new(api.RotateDataKeysResponse)
	return response, s.view(ctx, func(tx store.ReadTx) error {
		cluster, err := theCluster(tx)
		response.Generation = cluster.GetDataKeyGeneration()
		return err
	})
}

// ReportDataKey notes what a manager says of its own data key; the leader's own call has no caller. Saying it again writes nothing.
func (s *Server) ReportDataKey(ctx context.Context, request *api.ReportDataKeyRequest) (*api.ReportDataKeyResponse, error) {
	id, err := requestID(ctx, "ReportDataKey")
	if err != nil {
		return nil, err
	}
	if caller := authz.FromContext(ctx).NodeID; caller != "" && caller != request.GetNodeId() {
		return nil, fault.New(fault.PermissionDenied, "node_id: manager %s can't speak for another one", caller)
	}
	if request.GetDataKey() == nil {
		return nil, fault.New(fault.Invalid, "data_key: the status of the data key is missing")
	}
	return &api.ReportDataKeyResponse{}, s.update(ctx, id, func(tx store.Tx) error {
		old, err := store.Get[*api.Node](tx, request.GetNodeId())
		if err != nil || proto.Equal(old.GetDataKey(), request.GetDataKey()) {
			return err
		}
		node := proto.CloneOf(old)
		node.DataKey = proto.CloneOf(request.GetDataKey())
		return tx.Update(node)
	})
}
