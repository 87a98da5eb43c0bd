package manager_test

import (
	"testing"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/store/storetest"
)

// A swarm goes to a CA outside of it, whose server is cfssl's own, and comes back. It runs in real time, because that server does.
func TestRotation_GoesToAnExternalCAAndBack(t *testing.T) {
	e := catest.NewExternalCA(t, 48*time.Hour)
	s, m := found(t)
	c := &crew{swarm: s, managers: []*member{m}, followers: map[string]*follower{}, addresses: []string{m.address}}
	c.followers[m.identity.NodeID()] = s.follow(m, m.address)
	worker := s.worker(m.address)
	c.followers[worker.id.NodeID()] = worker
	c.awaitWords()
	begun, err := m.rotate(m, &api.RotateRootCARequest{Certificate: e.RootPEM, External: &api.ExternalCA{Url: e.URL}})
	if err != nil {
		t.Fatal(err)
	}
	c.finished(begun.GetCertificate())
	if e.Asked.Load() < 2 || e.Known.Load() != e.Asked.Load() {
		t.Errorf("the external CA was asked %d times, %d of them by a node", e.Asked.Load(), e.Known.Load())
	}
	if key := storetest.List[*api.Cluster](t, m.store)[0].GetRootCa().GetKey(); len(key) != 0 {
		t.Error("the swarm has kept a key that signs no more")
	}
	if begun, err = m.rotate(m, &api.RotateRootCARequest{}); err != nil {
		t.Fatal(err)
	}
	c.finished(begun.GetCertificate())
}
