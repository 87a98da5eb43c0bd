package control_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

// rootPair makes a root and its two PEM texts.
func rootPair(t *testing.T) (root *ca.Root, cert, key []byte) {
	t.Helper()
	root, err := ca.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	if key, err = root.RevealKey(); err != nil {
		t.Fatal(err)
	}
	return root, root.CertificatePEM(), key
}

// newRootedSwarm is a swarm with a real root and nodes that can follow a rotation.
func newRootedSwarm(t *testing.T) (*swarm, *ca.Root) {
	t.Helper()
	s := newSwarm(t)
	root, cert, key := rootPair(t)
	change(t, s.store, "cluster", func(c *api.Cluster) { c.RootCa = &api.RootCA{Certificate: cert, Key: key} })
	s.say(t, "worker1", &api.RootCA{Certificate: cert})
	return s, root
}

func change[T store.Object](t *testing.T, s *store.Store, id string, edit func(T)) {
	t.Helper()
	err := s.Update(t.Context(), "", func(tx store.Tx) error {
		old, err := store.Get[T](tx, id)
		if err != nil {
			return err
		}
		o := proto.CloneOf(old)
		edit(o)
		return tx.Update(o)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// say makes a node say that it has a certificate by the target of a root, and trusts it.
func (s *swarm) say(t *testing.T, id string, root *api.RootCA) {
	t.Helper()
	target, err := ca.TargetOf(root)
	if err != nil {
		t.Fatal(err)
	}
	change(t, s.store, id, func(n *api.Node) {
		n.Tls = &api.NodeTLS{IssuerKeyDigest: target.KeyDigest, TrustedRootDigests: [][]byte{target.RootDigest}}
	})
}

func TestRotateRootCA_StoresACrossSignedRoot(t *testing.T) {
	s, before := newRootedSwarm(t)
	_, given, key := rootPair(t)
	for what, request := range map[string]*api.RotateRootCARequest{
		"a new root":   {CertExpiry: durationpb.New(2 * time.Hour)},
		"a given root": {Certificate: given, Key: key},
	} {
		first, err := s.RotateRootCA(withRequestID(t, what), request)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		again, err := s.RotateRootCA(withRequestID(t, what), request)
		if err != nil || !proto.Equal(first, again) {
			t.Errorf("%s, repeated: another answer, %v", what, err)
		}
		rotation := storetest.Get[*api.Cluster](t, s.store, "cluster").GetRootCa().GetRotation()
		if rotation.GetId() != first.GetRotationId() || string(rotation.GetCertificate()) != string(first.GetCertificate()) {
			t.Errorf("%s: another rotation is stored than the answer says", what)
		}
		cross, err := ca.ParseBundle(rotation.GetCrossCertificate())
		if err != nil || cross[0].CheckSignatureFrom(before.Certificate()) != nil {
			t.Errorf("%s: not cross-signed by the present root: %v", what, err)
		}
		if request.GetCertificate() != nil && string(first.GetCertificate()) != string(given) {
			t.Errorf("%s: another root than the given one", what)
		}
	}
	cluster := storetest.Get[*api.Cluster](t, s.store, "cluster")
	if got := cluster.GetSpec().GetCertExpiry().AsDuration(); got != 2*time.Hour {
		t.Errorf("certificates live for %v", got)
	}
	shown, err := s.GetCluster(t.Context(), &api.GetClusterRequest{})
	if err != nil || shown.GetCluster().GetRootCa().GetRotation() != nil || shown.GetCluster().GetRootCa().GetKey() != nil {
		t.Errorf("the cluster shows keys: %v", err)
	}
}

func TestRotateRootCA_RefusesWhatIsNoRoot(t *testing.T) {
	s, present := newRootedSwarm(t)
	presentKey, err := present.RevealKey()
	if err != nil {
		t.Fatal(err)
	}
	_, cert, key := rootPair(t)
	_, _, otherKey := rootPair(t)
	outside := &api.ExternalCA{Url: "https://ca.example:8888"}
	for what, c := range map[string]struct {
		request *api.RotateRootCARequest
		kind    fault.Kind
		text    string
	}{
		"a key alone":            {&api.RotateRootCARequest{Key: key}, fault.Invalid, "certificate: the key's certificate is missing"},
		"a certificate alone":    {&api.RotateRootCARequest{Certificate: cert}, fault.Invalid, "key: the root's key is missing"},
		"an external CA alone":   {&api.RotateRootCARequest{External: outside}, fault.Invalid, "certificate: the root certificate of the external CA"},
		"both":                   {&api.RotateRootCARequest{Certificate: cert, Key: key, External: outside}, fault.Invalid, "one of the two"},
		"another's key":          {&api.RotateRootCARequest{Certificate: cert, Key: otherKey}, fault.Invalid, "do not belong together"},
		"no certificate":         {&api.RotateRootCARequest{Certificate: key, Key: key}, fault.Invalid, "invalid certificate bundle"},
		"the present one":        {&api.RotateRootCARequest{Certificate: present.CertificatePEM(), Key: presentKey}, fault.Invalid, "key of the present root"},
		"a short life":           {&api.RotateRootCARequest{CertExpiry: durationpb.New(time.Minute)}, fault.Invalid, "minimum certificate expiry time"},
		"an abortion of nothing": {&api.RotateRootCARequest{Abort: true}, fault.Precondition, "no rotation of the root CA is under way"},
		"an abortion with more":  {&api.RotateRootCARequest{Abort: true, Key: key}, fault.Invalid, "abort: "},
		"a URL without TLS": {
			&api.RotateRootCARequest{Certificate: cert, External: &api.ExternalCA{Url: "http://ca.example"}}, fault.Precondition, "https://HOST:PORT",
		},
	} {
		_, err := s.RotateRootCA(t.Context(), c.request)
		t.Run(what, func(t *testing.T) { wantFault(t, err, c.kind, c.text) })
		if err != nil && strings.Contains(err.Error(), string(key[30:60])) {
			t.Errorf("%s: the error has the key", what)
		}
	}
	if storetest.Get[*api.Cluster](t, s.store, "cluster").GetRootCa().GetRotation() != nil {
		t.Error("a refused rotation began")
	}
}

func TestRotateRootCA_RefusesWhileANodeCannotFollow(t *testing.T) {
	s, _ := newRootedSwarm(t)
	storetest.Create(t, s.store, node("old1", api.Role_ROLE_WORKER))
	_, err := s.RotateRootCA(t.Context(), &api.RotateRootCARequest{})
	wantFault(t, err, fault.Precondition, "old1 (host-old1)")
	if strings.Contains(err.Error(), "worker1") {
		t.Errorf("names a node that can follow: %v", err)
	}
}

func TestGetRootCA_SaysHowFarARotationIs(t *testing.T) {
	s, before := newRootedSwarm(t)
	storetest.Create(t, s.store, node("down1", api.Role_ROLE_WORKER))
	s.say(t, "down1", &api.RootCA{Certificate: before.CertificatePEM()})
	change(t, s.store, "down1", func(n *api.Node) { n.Status.State = api.NodeState_NODE_STATE_DOWN })
	get := func() *api.GetRootCAResponse {
		t.Helper()
		response, err := s.GetRootCA(t.Context(), &api.GetRootCARequest{})
		if err != nil {
			t.Fatal(err)
		}
		return response
	}
	if got := get(); got.GetRotation() != nil || string(got.GetCertificate()) != string(before.CertificatePEM()) {
		t.Errorf("without a rotation: %v", got)
	}
	begun, err := s.RotateRootCA(t.Context(), &api.RotateRootCARequest{})
	if err != nil {
		t.Fatal(err)
	}
	if p := get().GetRotation(); p.GetNodes() != 2 || p.GetIssued() != 0 || len(p.GetWaiting()) != 2 || p.GetId() != begun.GetRotationId() {
		t.Errorf("at its beginning: %v", p)
	}
	s.say(t, "worker1", storetest.Get[*api.Cluster](t, s.store, "cluster").GetRootCa())
	p := get().GetRotation()
	if p.GetIssued() != 1 || p.GetTrusting() != 1 || len(p.GetWaiting()) != 1 || p.GetWaiting()[0].GetHostname() != "host-down1" ||
		p.GetWaiting()[0].GetState() != api.NodeState_NODE_STATE_DOWN {
		t.Errorf("with one node of two: %v", p)
	}
	if _, err := s.RotateRootCA(t.Context(), &api.RotateRootCARequest{Abort: true}); err != nil {
		t.Fatal(err)
	}
	p = get().GetRotation()
	if !p.GetAborted() || p.GetIssued() != 1 || p.GetWaiting()[0].GetHostname() != "host-worker1" || string(p.GetCertificate()) != string(before.CertificatePEM()) {
		t.Errorf("aborted: %v", p)
	}
}
