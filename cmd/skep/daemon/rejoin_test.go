package daemon

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/wal"
)

// brokenManager makes the disk that of a manager whose store is damaged, with the managers that it knows.
func brokenManager(t *testing.T, d *Daemon, role api.Role, h holders, managers ...string) {
	t.Helper()
	root, err := ca.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	credentials := catest.Credentials(t, root, ca.Name{ClusterID: catest.NewID(), NodeID: catest.NewID(), Role: role}, 0)
	m := membership{ListenAddress: "127.0.0.1:0", AdvertiseAddress: "127.0.0.1:1", Managers: managers}
	err = errors.Join(openKeys(d.cfg.DataDir, h).Save(credentials), d.disk.saveMembership(m), os.Mkdir(d.disk.path(storeDir), 0o700))
	if err != nil {
		t.Fatal(err)
	}
	d.broken = storeFault(&wal.CorruptError{What: "log entry", Index: 7})
}

func TestRejoinSwarm_Refuses(t *testing.T) {
	closed := silent(t).Addr().String()
	key := seal.NewKey()
	manager := api.Role_ROLE_MANAGER
	for _, test := range []struct {
		name    string
		prepare func(t *testing.T, d *Daemon)
		request *api.RejoinSwarmRequest
		want    string
	}{
		{"in no swarm", func(*testing.T, *Daemon) {}, nil, "not part of a swarm"},
		{"locked", func(t *testing.T, d *Daemon) { brokenManager(t, d, manager, nil); d.locked = true }, nil, "swarm unlock"},
		{"starting", func(t *testing.T, d *Daemon) { brokenManager(t, d, manager, nil); d.broken = nil }, nil, "starting"},
		{"another trouble", func(t *testing.T, d *Daemon) {
			brokenManager(t, d, manager, nil)
			d.broken = errors.New("address in use")
		}, nil, "address in use"},
		{"a worker", func(t *testing.T, d *Daemon) { brokenManager(t, d, api.Role_ROLE_WORKER, nil, closed) }, nil, "is a worker"},
		{"the only manager", func(t *testing.T, d *Daemon) { brokenManager(t, d, manager, nil) }, nil, "only manager"},
		{"nobody answers", func(t *testing.T, d *Daemon) {
			gone := silent(t)
			brokenManager(t, d, manager, nil, gone.Addr().String())
			if err := gone.Close(); err != nil {
				t.Fatal(err)
			}
		}, nil, "no other manager can give this one the state"},
		{
			"no unlock key", func(t *testing.T, d *Daemon) { brokenManager(t, d, manager, holders{key}, closed) },
			&api.RejoinSwarmRequest{UnlockKey: "x"}, "not an unlock key",
		},
		{
			"another unlock key", func(t *testing.T, d *Daemon) { brokenManager(t, d, manager, holders{key}, closed) },
			&api.RejoinSwarmRequest{UnlockKey: seal.NewKey().UnlockKey()}, "invalid key",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newTestDaemon(t)
			test.prepare(t, d)
			before := files(t, d)
			_, err := d.RejoinSwarm(t.Context(), test.request)
			if err == nil || !strings.Contains(err.Error(), test.want) || fault.KindOf(err) == fault.Internal {
				t.Errorf("got %v (%v), want %q", err, fault.KindOf(err), test.want)
			}
			if diff := cmp.Diff(before, files(t, d)); diff != "" {
				t.Errorf("the disk was touched, -before +after:\n%s", diff)
			}
		})
	}
}

func TestRejoinSwarm_AsksForTheUnlockKeyThatANodeKeyNeeds(t *testing.T) {
	d := newTestDaemon(t)
	brokenManager(t, d, api.Role_ROLE_MANAGER, holders{seal.NewKey()}, "127.0.0.1:1")
	answer, err := d.RejoinSwarm(t.Context(), &api.RejoinSwarmRequest{})
	if err != nil || !answer.GetNeedsUnlockKey() {
		t.Errorf("got %v, %v", answer, err)
	}
}

func TestOthersDecide_CountsWithoutThisManager(t *testing.T) {
	const reachable, gone = api.Reachability_REACHABILITY_REACHABLE, api.Reachability_REACHABILITY_UNREACHABLE
	for _, test := range []struct {
		states []api.Reachability
		want   string
	}{
		{[]api.Reachability{reachable}, "only manager"},
		{[]api.Reachability{reachable, reachable}, "1 of 2 managers can be reached, and 2 are needed"},
		{[]api.Reachability{reachable, reachable, gone}, "1 of 3 managers can be reached, and 2 are needed"},
		{[]api.Reachability{gone, reachable, reachable}, ""},
	} {
		nodes := []*api.Node{{Id: "worker"}}
		for i, state := range test.states {
			nodes = append(nodes, &api.Node{Id: fmt.Sprint("m", i), ManagerStatus: &api.ManagerStatus{Reachability: state}})
		}
		err := othersDecide(nodes, "m0")
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%v: %v, want %q", test.states, err, test.want)
		}
	}
}

// A crash at any step of a rejoin leaves the former store there until the manager is asked to remove it.
func TestSetStoreAside_KeepsTheFirstOne(t *testing.T) {
	d := newTestDaemon(t)
	write := func(name, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(d.disk.path(storeDir), 0o700), os.WriteFile(d.disk.path(name), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string) string {
		text, _ := os.ReadFile(d.disk.path(name))
		return string(text)
	}
	write(storeDir+"/log", "first")
	write(keyFile, "bad key")
	if err := d.disk.setStoreAside(true); err != nil {
		t.Fatal(err)
	}
	write(storeDir+"/log", "second")
	if err := d.disk.setStoreAside(false); err != nil {
		t.Fatal(err)
	}
	if log, key := read(formerStoreDir+"/log"), read(formerStoreDir+"/"+keyFile); log != "first" || key != "bad key" {
		t.Errorf("set aside: %q, %q", log, key)
	}
	if err := d.disk.removeFormerStore(); err != nil {
		t.Fatal(err)
	}
	assertUntouched(t, d)
}
