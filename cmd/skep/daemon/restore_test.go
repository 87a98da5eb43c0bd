package daemon

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/backup"
	"github.com/skep-io/skep/manager/caserver"
	"github.com/skep-io/skep/manager/control"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/storetest"
)

// newBackup returns the backup of a swarm with one manager, its cluster object and what opens it.
func newBackup(t *testing.T) ([]byte, *api.Cluster, *api.BackupSecret) {
	t.Helper()
	founding, err := caserver.Found(time.Now(), caserver.FoundConfig{
		Spec: control.DefaultClusterSpec(), Hostname: "old", Availability: api.Availability_AVAILABILITY_ACTIVE,
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.NewLocal(founding.Cluster.GetId())
	if err != nil {
		t.Fatal(err)
	}
	storetest.Create(t, s, founding.Cluster, founding.Node)
	shared, err := s.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	state := proto.CloneOf(shared)
	state.Members = []*api.Member{{RaftId: 1, NodeId: founding.Node.GetId(), Address: "10.0.0.1:2377"}}
	key, err := seal.ParseBackupKey(founding.Cluster.GetBackupKey())
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := backup.Write(&b, state, backup.FromKey(key), time.Now(), "1"); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), founding.Cluster, &api.BackupSecret{Key: founding.Cluster.GetBackupKey()}
}

// settleFrom does what a restore does until the node is started.
func settleFrom(t *testing.T, d *Daemon, file []byte, secret *api.BackupSecret, autolock bool) (*node, *api.StoreSnapshot) {
	t.Helper()
	header, state, problems, err := d.readBackup(secret, bytes.NewReader(file))
	if err != nil || len(problems) > 0 {
		t.Fatalf("%v, problems %q", err, problems)
	}
	options := &api.RestoreOptions{Autolock: autolock, Availability: api.Availability_AVAILABILITY_DRAIN}
	n, err := d.succeed(t.Context(), membership{AdvertiseAddress: "10.0.0.2:2377"}, options, header, state)
	if err != nil {
		t.Fatal(err)
	}
	return n, state
}

func TestSucceed_MakesAManagerOfTheSameSwarm(t *testing.T) {
	file, cluster, secret := newBackup(t)
	for _, autolock := range []bool{false, true} {
		d := newTestDaemon(t)
		n, _ := settleFrom(t, d, file, secret, autolock)
		if n.identity.ClusterID() != cluster.GetId() || n.identity.Role() != api.Role_ROLE_MANAGER {
			t.Errorf("the identity is of cluster %s", n.identity.ClusterID())
		}
		if err := n.openStore(); err != nil {
			t.Fatal(err)
		}
		self := storetest.Get[*api.Node](t, n.opened(), n.identity.NodeID())
		if self.GetRole() != api.Role_ROLE_MANAGER || self.GetSpec().GetAvailability() != api.Availability_AVAILABILITY_DRAIN {
			t.Errorf("this node: %v", self)
		}
		if nodes := storetest.List[*api.Node](t, n.opened()); len(nodes) != 2 {
			t.Errorf("%d nodes", len(nodes))
		}
		got := storetest.Get[*api.Cluster](t, n.opened(), cluster.GetId())
		if locked := got.GetUnlockKey() != ""; locked != autolock || !proto.Equal(got.GetRootCa(), cluster.GetRootCa()) {
			t.Errorf("locked %v, want %v, or another CA", locked, autolock)
		}
		if members := n.opened().Members(); len(members) != 1 || members[0].GetNodeId() != n.identity.NodeID() {
			t.Errorf("members: %v", members)
		}
		if locked := n.opened().KeySource() == seal.SourceUnlockKey; locked != autolock {
			t.Errorf("sealed by %v", n.opened().KeySource())
		}
		n.stop()
	}
}

// A crash before the membership is written leaves a machine that is in no swarm, and can restore again.
func TestSucceed_CountsOnlyWithTheMembership(t *testing.T) {
	file, _, secret := newBackup(t)
	d := newTestDaemon(t)
	n, _ := settleFrom(t, d, file, secret, false)
	n.stop()
	if _, member, err := d.disk.membership(); err != nil || member {
		t.Fatalf("a member already: %v, %v", member, err)
	}
	if err := d.disk.forget(); err != nil { // as at the next start
		t.Fatal(err)
	}
	if left, err := filepath.Glob(d.disk.path(storeDir + "/*")); err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
	n, _ = settleFrom(t, d, file, secret, false)
	n.stop()
}

func TestReadBackup_SaysWhatIsNeeded(t *testing.T) {
	file, _, secret := newBackup(t)
	d := newTestDaemon(t) // in no swarm: it knows no key
	flipped := bytes.Clone(file)
	flipped[len(flipped)-1] ^= 1
	for _, test := range []struct {
		what   string
		file   []byte
		secret *api.BackupSecret
		want   error
		kind   fault.Kind
	}{
		{"no key", file, nil, backup.ErrNeedsKey, fault.Precondition},
		{"no backup key", file, &api.BackupSecret{Key: seal.NewKey().UnlockKey()}, seal.ErrBackupKey, fault.Invalid},
		{"another key", file, &api.BackupSecret{Key: seal.NewKey().BackupKey()}, backup.ErrWrongSecret, fault.PermissionDenied},
		{"damage", flipped, secret, backup.ErrDamaged, fault.Invalid},
		{"an image", []byte("PK"), secret, backup.ErrNotBackup, fault.Invalid},
	} {
		if _, _, _, err := d.readBackup(test.secret, bytes.NewReader(test.file)); !errors.Is(err, test.want) || fault.KindOf(err) != test.kind {
			t.Errorf("%s: got %v of kind %v, want %v of %v", test.what, err, fault.KindOf(err), test.want, test.kind)
		}
	}
	response, err := d.InspectBackup(t.Context(), &api.InspectBackupRequest{Start: file})
	if err != nil || response.GetGenuine() {
		t.Errorf("inspect without a key: %v, %v", response, err)
	}
	response, err = d.InspectBackup(t.Context(), &api.InspectBackupRequest{Start: file, Secret: secret})
	if err != nil || !response.GetGenuine() {
		t.Errorf("inspect with the key: %v, %v", response, err)
	}
}
