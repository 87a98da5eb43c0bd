package cli_test

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

const nextRoot = "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n"

// RotateRootCA begins a rotation that goes on a node at a time, each time that somebody looks.
func (f *fake) RotateRootCA(_ context.Context, r *api.RotateRootCARequest) (*api.RotateRootCAResponse, error) {
	if err := f.ready(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p := &api.RootRotationProgress{Id: f.id("rotation"), Certificate: []byte(nextRoot), Nodes: uint32(len(f.nodes))}
	switch {
	case r.GetAbort() && f.rotation == nil:
		return nil, fault.New(fault.Precondition, "no rotation of the root CA is under way that could be aborted")
	case r.GetAbort():
		p.Certificate, p.Aborted = f.cluster.GetRootCa().GetCertificate(), true
	case len(r.GetCertificate()) > 0:
		p.Certificate = r.GetCertificate()
	}
	for _, n := range f.nodes {
		p.Waiting = append(p.Waiting, &api.WaitedForNode{
			NodeId: n.GetId(), Hostname: n.GetDescription().GetHostname(), State: n.GetStatus().GetState(),
		})
	}
	slices.SortFunc(p.Waiting, func(a, b *api.WaitedForNode) int { return len(a.GetHostname()) - len(b.GetHostname()) })
	f.rotation = p
	return &api.RotateRootCAResponse{RotationId: p.GetId(), Certificate: p.GetCertificate()}, nil
}

func (f *fake) GetRootCA(context.Context, *api.GetRootCARequest) (*api.GetRootCAResponse, error) {
	if err := f.ready(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rotation != nil && len(f.rotation.GetWaiting()) == 0 {
		f.cluster.RootCa.Certificate, f.rotation = f.rotation.GetCertificate(), nil
	}
	answer := &api.GetRootCAResponse{Certificate: f.cluster.GetRootCa().GetCertificate(), Rotation: proto.CloneOf(f.rotation)}
	if f.rotation != nil && f.rotation.GetWaiting()[0].GetNodeId() != f.slowManager {
		f.rotation.Waiting = f.rotation.GetWaiting()[1:]
		f.rotation.Issued++
		f.rotation.Trusting++
	}
	return answer, nil
}
