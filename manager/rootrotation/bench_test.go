package rootrotation_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/manager/rootrotation"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/storetest"
)

// BenchmarkRotate is the work of a rotation without the network between: the loop, the store, and for each node what the CA and the
// node do for a certificate.
func BenchmarkRotate(b *testing.B) {
	for _, nodes := range []int{100, 1000} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				s := swarmOf(b, nodes)
				b.StartTimer()
				rotate(b, s)
			}
		})
	}
}

// swarmOf returns a store with a swarm of n nodes and a rotation that has just begun.
func swarmOf(b *testing.B, n int) *store.Store {
	b.Helper()
	from, err := ca.NewRoot()
	if err != nil {
		b.Fatal(err)
	}
	to, err := ca.NewRoot()
	if err != nil {
		b.Fatal(err)
	}
	cross, crossErr := from.CrossSign(time.Now(), to)
	fromKey, fromErr := from.RevealKey()
	toKey, toErr := to.RevealKey()
	if err := errors.Join(crossErr, fromErr, toErr); err != nil {
		b.Fatal(err)
	}
	s := storetest.New(b)
	storetest.Create(b, s, &api.Cluster{
		Id: catest.NewID(), Spec: &api.ClusterSpec{}, JoinTokens: &api.JoinTokens{Worker: token.New(from.Digest()).Reveal()},
		RootCa: &api.RootCA{
			Certificate: from.CertificatePEM(), Key: fromKey,
			Rotation: &api.RootRotation{Id: catest.NewID(), Certificate: to.CertificatePEM(), Key: toKey, CrossCertificate: cross},
		},
	})
	for range n {
		storetest.Create(b, s, &api.Node{
			Id: catest.NewID(), Role: api.Role_ROLE_WORKER, Tls: &api.NodeTLS{}, Status: &api.NodeStatus{State: api.NodeState_NODE_STATE_READY},
		})
	}
	return s
}

// rotate runs the loop and all nodes until the rotation is over.
func rotate(b *testing.B, s *store.Store) {
	b.Helper()
	loop, err := rootrotation.New(rootrotation.Config{Store: s, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	parts.Go(func() { _ = loop.Run(ctx) })
	watch, err := s.Watch(ctx, 0, object.KindCluster, object.KindNode)
	if err != nil {
		b.Fatal(err)
	}
	for {
		batch, err := watch.Next(ctx)
		if err != nil {
			b.Fatal(err)
		}
		for _, change := range batch.Changes {
			switch o := change.Object.(type) {
			case *api.Cluster:
				if o.GetRootCa().GetRotation() == nil {
					return
				}
			case *api.Node:
				if o.GetRenewal().GetRotationId() != o.GetTls().GetMetRotationId() {
					parts.Go(func() { renew(ctx, b, s, o) })
				}
			}
		}
	}
}

// renew is what the CA and a node do, down to the check of what came.
func renew(ctx context.Context, b *testing.B, s *store.Store, n *api.Node) {
	cluster := storetest.List[*api.Cluster](b, s)[0]
	issuer, err := ca.OpenIssuer(cluster.GetRootCa(), nil)
	if err != nil {
		b.Error(err)
		return
	}
	key, csr := catest.KeyAndCSR(b)
	name := ca.Name{ClusterID: cluster.GetId(), NodeID: n.GetId(), Role: n.GetRole()}
	chainPEM, issueErr := issuer.Issue(time.Now(), csr, ca.Profile{Name: name})
	chain, chainErr := ca.ParseBundle(chainPEM)
	roots, rootsErr := ca.Trusted(cluster.GetRootCa())
	if err := errors.Join(issueErr, chainErr, rootsErr); err != nil {
		b.Error(err)
		return
	}
	creds, err := ca.NewCredentials(roots, chain, key)
	if err != nil {
		b.Error(err)
		return
	}
	said := ca.NewIdentity(creds).TLS()
	said.MetRotationId = n.GetRenewal().GetRotationId()
	err = s.Update(ctx, "", func(tx store.Tx) error {
		old, err := store.Get[*api.Node](tx, n.GetId())
		if err != nil {
			return err
		}
		node := proto.CloneOf(old)
		node.Tls = said
		return tx.Update(node)
	})
	if err != nil && ctx.Err() == nil {
		b.Error(err)
	}
}
