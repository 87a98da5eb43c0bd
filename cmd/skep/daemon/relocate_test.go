package daemon

import (
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
)

func TestRelocate(t *testing.T) {
	const router = "198.51.100.7:2377"
	for _, test := range []struct {
		name, flag string
		before     membership
		want       membership
	}{
		{
			"it is still its own", "",
			membership{ListenAddress: "0.0.0.0:2377", AdvertiseAddress: "127.0.0.1:2377", AdvertiseOwn: true},
			membership{ListenAddress: "0.0.0.0:2377", AdvertiseAddress: "127.0.0.1:2377", AdvertiseOwn: true},
		},
		{
			"an earlier version did not say", "",
			membership{ListenAddress: "0.0.0.0:2377", AdvertiseAddress: "127.0.0.1:2377"},
			membership{ListenAddress: "0.0.0.0:2377", AdvertiseAddress: "127.0.0.1:2377", AdvertiseOwn: true},
		},
		{
			"behind a router", "",
			membership{ListenAddress: "0.0.0.0:2377", AdvertiseAddress: router},
			membership{ListenAddress: "0.0.0.0:2377", AdvertiseAddress: router},
		},
		{
			"the flag says another", "127.0.0.1:99",
			membership{ListenAddress: "0.0.0.0:2377", AdvertiseAddress: router},
			membership{ListenAddress: "0.0.0.0:2377", AdvertiseAddress: "127.0.0.1:99", AdvertiseOwn: true},
		},
		{
			"the flag says a router", router,
			membership{ListenAddress: "0.0.0.0:2377", AdvertiseAddress: "127.0.0.1:99", AdvertiseOwn: true},
			membership{ListenAddress: "0.0.0.0:2377", AdvertiseAddress: router},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newTestDaemon(t)
			d.cfg.AdvertiseAddress = test.flag
			got, err := d.relocate(test.before)
			if err != nil {
				t.Fatal(err)
			}
			if got.AdvertiseAddress != test.want.AdvertiseAddress || got.AdvertiseOwn != test.want.AdvertiseOwn || got.ListenAddress != test.want.ListenAddress {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
			changed := got.AdvertiseAddress != test.before.AdvertiseAddress || got.AdvertiseOwn != test.before.AdvertiseOwn
			if saved, ok, err := d.disk.membership(); err != nil || ok != changed || ok && saved.AdvertiseAddress != got.AdvertiseAddress {
				t.Errorf("saved %+v, %v, %v", saved, ok, err)
			}
		})
	}
}

// A manager that listens at the one address that it advertises follows it.
func TestMoved_ListensWhereItIs(t *testing.T) {
	addr, err := onlyAddress()
	if err != nil {
		t.Skipf("needs a machine with one address: %v", err)
	}
	m, err := membership{ListenAddress: "192.0.2.1:4000", AdvertiseAddress: "192.0.2.1:5000"}.moved()
	if err != nil || m.ListenAddress != addr.String()+":4000" || m.AdvertiseAddress != addr.String()+":5000" {
		t.Errorf("got %+v, %v", m, err)
	}
}

func TestWantedMember_OnlyWhenTheGroupKnowsItOtherwise(t *testing.T) {
	d := newTestDaemon(t)
	n := d.newNode(membership{AdvertiseAddress: "192.0.2.1:2377"}, openKeys(d.cfg.DataDir, nil), ca.NewIdentity(workerCredentials(t)), seal.Key{}, 0)
	status := func(m *api.Member) store.Status {
		return store.Status{RaftID: 7, Members: []store.MemberStatus{{Member: &api.Member{RaftId: 8}}, {Member: m}}}
	}
	for _, test := range []struct {
		member *api.Member
		want   bool
	}{
		{&api.Member{RaftId: 7, Address: "192.0.2.1:2377", Protocol: store.Protocol}, false},
		{&api.Member{RaftId: 7, Address: "192.0.2.2:2377", Protocol: store.Protocol}, true},
		{&api.Member{RaftId: 7, Address: "192.0.2.1:2377"}, true},
		{&api.Member{RaftId: 7, Address: "192.0.2.2:2377", Learner: true}, false},
		{&api.Member{RaftId: 9, Address: "192.0.2.2:2377"}, false},
	} {
		if got := n.wantedMember(status(test.member)); (got != nil) != test.want {
			t.Errorf("%v: %v", test.member, got)
		}
	}
}
