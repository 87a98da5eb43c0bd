package control

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/lookup"
	"github.com/skep-io/skep/store"
)

// maxWaiting bounds how many nodes GetRootCA names that a rotation waits for.
const maxWaiting = 100

// GetRootCA returns the root certificate, and how far a rotation is.
func (s *Server) GetRootCA(ctx context.Context, _ *api.GetRootCARequest) (*api.GetRootCAResponse, error) {
	response := new(api.GetRootCAResponse)
	return response, s.view(ctx, func(tx store.ReadTx) error {
		cluster, err := theCluster(tx)
		if err != nil {
			return err
		}
		root := cluster.GetRootCa()
		response.Certificate, response.External = root.GetCertificate(), root.GetExternal()
		if root.GetRotation() == nil {
			return nil
		}
		nodes, err := store.List[*api.Node](tx)
		if err == nil {
			response.Rotation, err = rotationProgress(root, nodes)
		}
		return err
	})
}

// rotationProgress counts how far the nodes are.
func rotationProgress(root *api.RootCA, nodes []*api.Node) (*api.RootRotationProgress, error) {
	target, err := ca.TargetOf(root)
	if err != nil {
		return nil, err
	}
	rotation := root.GetRotation()
	p := &api.RootRotationProgress{
		Id: rotation.GetId(), StartedAt: rotation.GetStartedAt(), Certificate: target.Certificate,
		Aborted: len(rotation.GetCertificate()) == 0,
	}
	for _, n := range nodes {
		if !ca.Certified(n) {
			continue
		}
		p.Nodes++
		issued, trusting := target.Issued(n.GetTls()), target.Trusting(n.GetTls())
		if issued {
			p.Issued++
		}
		if trusting {
			p.Trusting++
		}
		if !target.Done(n) {
			p.Waiting = append(p.Waiting, &api.WaitedForNode{
				NodeId: n.GetId(), Hostname: n.GetDescription().GetHostname(), State: n.GetStatus().GetState(),
			})
		}
	}
	slices.SortStableFunc(p.Waiting, func(a, b *api.WaitedForNode) int { return cmp.Compare(a.GetState(), b.GetState()) }) // READY is last
	p.Waiting = p.GetWaiting()[:min(len(p.GetWaiting()), maxWaiting)]
	return p, nil
}

// RotateRootCA stores a root to be, or that the present one is to stay. Package rootrotation does the rest.
func (s *Server) RotateRootCA(ctx context.Context, request *api.RotateRootCARequest) (*api.RotateRootCAResponse, error) {
	id, err := requestID(ctx, "RotateRootCA")
	if err != nil {
		return nil, err
	}
	if err := checkRotation(request); err != nil {
		return nil, err
	}
	var before *api.RootCA
	err = s.view(ctx, func(tx store.ReadTx) error {
		cluster, err := theCluster(tx)
		before = cluster.GetRootCa()
		return err
	})
	if err != nil {
		return nil, err
	}
	rotation := &api.RootRotation{Id: id}
	if !request.GetAbort() && before.GetRotation().GetId() != id { // not a repetition
		if rotation, err = s.nextRoot(id, before, request); err != nil {
			return nil, rootFault(err)
		}
	}
	err = s.update(ctx, id, func(tx store.Tx) error { return beginRotation(tx, before, rotation, request) })
	if err != nil {
		return nil, err
	}
	return s.rotationBegun(id)
}

// rotationBegun answers with the rotation that has an id, as the store has it: of a repetition this is not the root made just now (C2).
func (s *Server) rotationBegun(id string) (*api.RotateRootCAResponse, error) {
	response := &api.RotateRootCAResponse{RotationId: id}
	return response, storeFault(s.Store.View(func(tx store.ReadTx) error {
		cluster, err := theCluster(tx)
		if err != nil {
			return err
		}
		target, err := ca.TargetOf(cluster.GetRootCa())
		response.Certificate = target.Certificate
		return err
	}))
}

// checkRotation refuses what is no sensible wish.
func checkRotation(request *api.RotateRootCARequest) error {
	p := new(problems)
	p.knownFields(request)
	given, key, outside := len(request.GetCertificate()) > 0, len(request.GetKey()) > 0, request.GetExternal() != nil
	switch {
	case request.GetAbort() && (given || key || outside || request.GetCertExpiry() != nil):
		p.add("abort", "goes back to the present root and takes nothing else")
	case key && outside:
		p.add("key", "an external CA has the key: give one of the two")
	case key && !given:
		p.add("certificate", "the key's certificate is missing")
	case given && !key && !outside:
		p.add("key", "the root's key is missing: give it, or the external CA that has it")
	case outside && !given:
		p.add("certificate", "the root certificate of the external CA is missing")
	}
	if life := request.GetCertExpiry(); life != nil {
		p.duration("cert_expiry", life)
		if life.IsValid() && life.AsDuration() < minCertExpiry {
			p.add("cert_expiry", "minimum certificate expiry time is: %s", minCertExpiry)
		}
	}
	return p.err()
}

// nextRoot makes or reads the root to be, and has the present one cross-sign it.
func (s *Server) nextRoot(id string, before *api.RootCA, request *api.RotateRootCARequest) (*api.RootRotation, error) {
	next, err := ca.NewRoot()
	if len(request.GetCertificate()) > 0 {
		next, err = ca.MakeRoot(request.GetCertificate(), request.GetKey(), request.GetExternal(), s.Identity)
	}
	if err != nil {
		return nil, err
	}
	now := time.Now()
	present, err := ca.OpenRoot(before, s.Identity)
	if err != nil {
		return nil, err
	}
	if err := present.CheckNext(now, next); err != nil {
		return nil, err
	}
	cross, err := present.CrossSign(now, next)
	if err != nil {
		return nil, err
	}
	key, err := next.RevealKey()
	return &api.RootRotation{
		Id: id, Certificate: next.CertificatePEM(), Key: key, External: request.GetExternal(), CrossCertificate: cross,
	}, err
}

// rootFault gives an error of package ca its kind. No text of it repeats a key.
func rootFault(err error) error {
	switch {
	case errors.Is(err, ca.ErrBadRoot), errors.Is(err, ca.ErrBadBundle), errors.Is(err, ca.ErrMismatch):
		return fault.Wrap(fault.Invalid, err)
	case errors.Is(err, ca.ErrExternal):
		return fault.Wrap(fault.Precondition, err)
	}
	return err
}

// beginRotation stores the rotation, if the root is still the one that cross-signed the root to be.
func beginRotation(tx store.Tx, before *api.RootCA, rotation *api.RootRotation, request *api.RotateRootCARequest) error {
	old, err := theCluster(tx)
	if err != nil {
		return err
	}
	switch {
	case request.GetAbort() && len(old.GetRootCa().GetRotation().GetCertificate()) == 0:
		return fault.New(fault.Precondition, "no rotation of the root CA is under way that could be aborted")
	case string(old.GetRootCa().GetCertificate()) != string(before.GetCertificate()):
		return store.ErrConflict
	}
	if !request.GetAbort() {
		if err := checkFollowers(tx, ""); err != nil {
			return err
		}
	}
	cluster := proto.CloneOf(old)
	cluster.RootCa.Rotation = proto.CloneOf(rotation)
	cluster.RootCa.Rotation.StartedAt = timestamppb.New(time.Now())
	if life := request.GetCertExpiry(); life != nil {
		orNew(&cluster.Spec).CertExpiry = life
		noteCertExpiry(cluster, old.GetSpec())
	}
	return tx.Update(cluster)
}

// checkFollowers refuses a rotation that a node, other than one that need not, could not follow, and would be waiting for.
func checkFollowers(tx store.ReadTx, other string) error {
	nodes, err := store.List[*api.Node](tx)
	if err != nil {
		return err
	}
	var mute []*api.Node
	for _, n := range nodes {
		if n.GetTls() == nil && ca.Certified(n) && n.GetId() != other {
			mute = append(mute, n)
		}
	}
	if len(mute) == 0 {
		return nil
	}
	return fault.New(fault.Precondition, "these nodes have not said yet that they can follow a rotation of the root CA: %s: "+
		"start those that are down, wait a moment for those that have just joined, upgrade those whose program is older, or remove them", lookup.List(mute))
}
