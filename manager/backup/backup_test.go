package backup_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/internal/chain"
	"github.com/skep-io/skep/manager/backup"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/storetest"
)

// value is what the secret of a test cluster holds.
const value = "canary-5f1d-of-a-secret"

// newCluster returns the object of a cluster with a CA, tokens and keys.
func newCluster(t testing.TB, id string) *api.Cluster {
	t.Helper()
	root, err := ca.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	key, err := root.RevealKey()
	if err != nil {
		t.Fatal(err)
	}
	return &api.Cluster{
		Id: id, Spec: &api.ClusterSpec{Annotations: &api.Annotations{Name: "default"}},
		RootCa:     &api.RootCA{Certificate: root.CertificatePEM(), Key: key},
		JoinTokens: &api.JoinTokens{Worker: token.New(root.Digest()).Reveal(), Manager: token.New(root.Digest()).Reveal()},
		BackupKey:  seal.NewKey().BackupKey(),
	}
}

// newStore returns a store with a whole cluster of one manager in it, and the cluster.
func newStore(t testing.TB) (*store.Store, *api.Cluster) {
	t.Helper()
	cluster := newCluster(t, object.NewID())
	s, err := store.NewLocal(cluster.GetId())
	if err != nil {
		t.Fatal(err)
	}
	manager := &api.Node{Id: object.NewID(), Role: api.Role_ROLE_MANAGER, Spec: &api.NodeSpec{DesiredRole: api.Role_ROLE_MANAGER}}
	worker := &api.Node{Id: object.NewID(), Role: api.Role_ROLE_WORKER, Spec: &api.NodeSpec{DesiredRole: api.Role_ROLE_WORKER}}
	secret := &api.Secret{Id: object.NewID(), Spec: &api.SecretSpec{Annotations: &api.Annotations{Name: "db"}, Data: []byte(value)}}
	spec := &api.TaskSpec{Container: &api.ContainerSpec{
		Image: "app", Secrets: []*api.SecretReference{{SecretId: secret.GetId(), SecretName: "db"}},
	}}
	service := &api.Service{
		Id: object.NewID(), SpecVersion: 1, Spec: &api.ServiceSpec{Annotations: &api.Annotations{Name: "a-service-name"}, Task: spec},
	}
	task := &api.Task{
		Id: object.NewID(), ServiceId: service.GetId(), Slot: 1, SpecVersion: 1, Spec: proto.CloneOf(spec), NodeId: worker.GetId(),
		Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING}, DesiredState: api.TaskState_TASK_STATE_RUNNING,
	}
	storetest.Create(t, s, cluster, manager, worker, secret, service, task)
	err = s.Update(t.Context(), "", func(tx store.Tx) error {
		return tx.Audit(chain.Encode(&api.AuditEvent{Method: "Control.CreateService", Result: "ok"}))
	})
	if err != nil {
		t.Fatal(err)
	}
	state := stateOf(t, s)
	state.Members = []*api.Member{{RaftId: 7, NodeId: manager.GetId(), Address: "10.0.0.1:2377"}}
	state.RemovedRaftIds = []uint64{3}
	if err := s.Restore(state); err != nil {
		t.Fatal(err)
	}
	return s, cluster
}

// newState returns the state of a whole cluster with one manager.
func newState(t testing.TB) *api.StoreSnapshot {
	t.Helper()
	s, _ := newStore(t)
	return stateOf(t, s)
}

// stateOf returns the state of a store, which the caller owns.
func stateOf(t testing.TB, s *store.Store) *api.StoreSnapshot {
	t.Helper()
	shared, err := s.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return proto.CloneOf(shared)
}

// first returns the first object of a type.
func first[T object.Object](state *api.StoreSnapshot) T {
	for _, stored := range state.GetObjects() {
		if o, ok := object.Unwrap(stored).(T); ok {
			return o
		}
	}
	panic("there is none")
}

// write returns a backup of a state.
func write(t testing.TB, state *api.StoreSnapshot, secret backup.Secret) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := backup.Write(&b, state, secret, time.Now(), "1.2.3"); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// read reads a backup to its end.
func read(b io.Reader, secret backup.Secret) (*api.BackupHeader, *api.StoreSnapshot, error) {
	r, err := backup.NewReader(b)
	if err != nil {
		return nil, nil, err
	}
	if err := r.Unlock(secret); err != nil {
		return nil, nil, err
	}
	state, err := r.State()
	return r.Header(), state, err
}

func TestBackup_IsReadAsItWasWritten(t *testing.T) {
	passphrase, err := backup.NewPassphrase("correct horse battery")
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string]backup.Secret{"key": backup.FromKey(seal.NewKey()), "passphrase": passphrase} {
		t.Run(name, func(t *testing.T) {
			state := newState(t)
			for range 20 { // more than a part holds
				data := bytes.Repeat([]byte{1}, 200<<10)
				state.Objects = append(state.Objects, object.Wrap(&api.Secret{Id: object.NewID(), Spec: &api.SecretSpec{
					Annotations: &api.Annotations{Name: object.NewID()}, Data: data,
				}, Meta: &api.Meta{Version: 1}}))
			}
			header, got, err := read(bytes.NewReader(write(t, state, secret)), secret)
			if err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(state, got) {
				t.Error("what was read is not what was written")
			}
			if problems := backup.Check(header, got); len(problems) > 0 {
				t.Errorf("problems: %q", problems)
			}
			if header.GetVersion() != "1.2.3" || header.GetIndex() != state.GetIndex() {
				t.Errorf("header: %v", header)
			}
		})
	}
}

// goldenKey opens testdata/v1.skepbak.
const goldenKey = "SKPBAK-1-KMFHNC27MWUEWKIV3DHZQ5BB2RSAWSXPSUF2VHXR4WSZ55ZBBMBCO6IG64"

// golden returns a backup that version 1 of the format wrote, and what opens it.
func golden(t testing.TB) ([]byte, backup.Secret) {
	t.Helper()
	b, err := os.ReadFile("testdata/v1.skepbak")
	if err != nil {
		t.Fatal(err)
	}
	key, err := seal.ParseBackupKey(goldenKey)
	if err != nil {
		t.Fatal(err)
	}
	return b, backup.FromKey(key)
}

// A backup of a former release must open for as long as its format is read.
func TestReader_ReadsFormat1(t *testing.T) {
	b, secret := golden(t)
	header, state, err := read(bytes.NewReader(b), secret)
	if err != nil {
		t.Fatal(err)
	}
	if problems := backup.Check(header, state); len(problems) > 0 {
		t.Errorf("problems: %q", problems)
	}
	if got := string(first[*api.Secret](state).GetSpec().GetData()); got != value {
		t.Errorf("the secret is %q", got)
	}
}

func TestCreate_UsesTheClustersKey(t *testing.T) {
	s, cluster := newStore(t)
	var b bytes.Buffer
	if _, err := backup.Create(t.Context(), s, &b, backup.Secret{}, "1"); err != nil {
		t.Fatal(err)
	}
	key, err := seal.ParseBackupKey(cluster.GetBackupKey())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := read(&b, backup.FromKey(key)); err != nil {
		t.Error(err)
	}
	if _, err := backup.Create(t.Context(), storetest.New(t), io.Discard, backup.Secret{}, "1"); !errors.Is(err, backup.ErrNoKey) {
		t.Errorf("without a key: got %v", err)
	}
}

// B2.
func TestBackup_HoldsNothingReadable(t *testing.T) {
	state := newState(t)
	cluster := first[*api.Cluster](state)
	cluster.UnlockKey = seal.NewKey().UnlockKey()
	b := write(t, state, backup.FromKey(seal.NewKey()))
	hidden := []string{
		value, cluster.GetJoinTokens().GetWorker(), cluster.GetJoinTokens().GetManager(), cluster.GetBackupKey(), cluster.GetUnlockKey(),
		"a-service-name", "PRIVATE KEY", "CERTIFICATE",
	}
	for _, line := range strings.Split(string(cluster.GetRootCa().GetKey()), "\n") {
		if len(line) > 10 {
			hidden = append(hidden, line)
		}
	}
	for _, text := range hidden {
		if bytes.Contains(b, []byte(text)) {
			t.Errorf("the file holds %q", text)
		}
	}
}

// B3: a property over all positions.
func TestReader_RefusesEveryFlippedByte(t *testing.T) {
	secret := backup.FromKey(seal.NewKey())
	whole := write(t, newState(t), secret)
	for i := range whole {
		flipped := bytes.Clone(whole)
		flipped[i] ^= 1 << (i % 8)
		if _, state, err := read(bytes.NewReader(flipped), secret); err == nil || state != nil {
			t.Fatalf("byte %d of %d: got no error", i, len(whole))
		}
	}
}

// B3.
func TestReader_RefusesWhatIsCutOrLonger(t *testing.T) {
	secret := backup.FromKey(seal.NewKey())
	whole := write(t, newState(t), secret)
	for i := range whole {
		if _, _, err := read(bytes.NewReader(whole[:i]), secret); err == nil {
			t.Fatalf("cut at %d of %d: got no error", i, len(whole))
		}
	}
	if _, _, err := read(bytes.NewReader(append(bytes.Clone(whole), 0)), secret); !errors.Is(err, backup.ErrDamaged) {
		t.Errorf("with a byte at its end: got %v", err)
	}
}

// parts returns the pieces of a file: what is before the parts, and each part with its length.
func parts(t *testing.T, b []byte) [][]byte {
	t.Helper()
	sized := func(at int) int {
		return at + 4 + int(b[at])<<24 + int(b[at+1])<<16 + int(b[at+2])<<8 + int(b[at+3])
	}
	end := sized(sized(sized(8))) // header, sealed key, part 0
	out := [][]byte{b[:end]}
	for end < len(b) {
		next := sized(end)
		out = append(out, b[end:next])
		end = next
	}
	return out
}

// B3.
func TestReader_RefusesPartsThatBelongElsewhere(t *testing.T) {
	state, secret := newState(t), backup.FromKey(seal.NewKey())
	for range 12 {
		state.Objects = append(state.Objects, object.Wrap(&api.Secret{Id: object.NewID(), Spec: &api.SecretSpec{Data: make([]byte, 400<<10)}}))
	}
	p, other := parts(t, write(t, state, secret)), parts(t, write(t, state, secret))
	if len(p) < 5 {
		t.Fatalf("%d parts are too few", len(p))
	}
	last := len(p) - 1
	for what, pieces := range map[string][][]byte{
		"swapped":             {p[0], p[2], p[1]},
		"one left out":        append([][]byte{p[0], p[1]}, p[3:]...),
		"the last left out":   p[:last],
		"the last is first":   {p[0], p[last]},
		"one repeated":        append([][]byte{p[0], p[1], p[1]}, p[2:]...),
		"one of another":      append([][]byte{p[0], other[1]}, p[2:]...),
		"the head of another": append([][]byte{other[0]}, p[1:]...),
	} {
		if _, _, err := read(bytes.NewReader(bytes.Join(pieces, nil)), secret); !errors.Is(err, backup.ErrDamaged) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	if _, _, err := read(bytes.NewReader(bytes.Join(p, nil)), secret); err != nil {
		t.Errorf("unchanged: %v", err)
	}
}

func TestReader_SaysWhatItNeeds(t *testing.T) {
	state, key := newState(t), backup.FromKey(seal.NewKey())
	passphrase := backup.FromPassphrase("correct horse battery")
	keyed, phrased := write(t, state, key), write(t, state, passphrase)
	for _, test := range []struct {
		what   string
		file   []byte
		secret backup.Secret
		want   error
	}{
		{"another key", keyed, backup.FromKey(seal.NewKey()), backup.ErrWrongSecret},
		{"a passphrase for a key", keyed, passphrase, backup.ErrNeedsKey},
		{"nothing for a key", keyed, backup.Secret{}, backup.ErrNeedsKey},
		{"another passphrase", phrased, backup.FromPassphrase("incorrect horse"), backup.ErrWrongSecret},
		{"a key for a passphrase", phrased, key, backup.ErrNeedsPassphrase},
		{"nothing for a passphrase", phrased, backup.Secret{}, backup.ErrNeedsPassphrase},
		{"an image", []byte("\x1f\x8b\x08 and so on"), key, backup.ErrNotBackup},
		{"an empty file", nil, key, backup.ErrNotBackup},
		{"another version", append([]byte("SKPBAK2\n"), keyed[8:]...), key, backup.ErrVersion},
	} {
		if _, _, err := read(bytes.NewReader(test.file), test.secret); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.what, err, test.want)
		}
	}
}

func TestNewPassphrase_RefusesWeakOnes(t *testing.T) {
	for _, text := range []string{"", "elevenchars", strings.Repeat("é", 11), strings.Repeat("x", 1025)} {
		if _, err := backup.NewPassphrase(text); !errors.Is(err, backup.ErrPassphrase) {
			t.Errorf("%d bytes: got %v", len(text), err)
		}
	}
	if _, err := backup.NewPassphrase("twelve chars"); err != nil {
		t.Error(err)
	}
}

// B4: what nobody proved must not cost memory.
func TestReader_BoundsTheWorkOfAForgedHeader(t *testing.T) {
	secret := backup.FromPassphrase("correct horse battery")
	whole := write(t, newState(t), secret)
	r, err := backup.NewReader(bytes.NewReader(whole))
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*api.PassphraseParameters){
		"memory":    func(p *api.PassphraseParameters) { p.MemoryKib = 1 << 30 },
		"no memory": func(p *api.PassphraseParameters) { p.MemoryKib = 0 },
		"time":      func(p *api.PassphraseParameters) { p.Time = 1 << 30 },
		"no time":   func(p *api.PassphraseParameters) { p.Time = 0 },
		"threads":   func(p *api.PassphraseParameters) { p.Threads = 256 },
		"salt":      func(p *api.PassphraseParameters) { p.Salt = nil },
	} {
		header := proto.CloneOf(r.Header())
		change(header.GetPassphrase())
		head, err := proto.Marshal(header)
		if err != nil {
			t.Fatal(err)
		}
		file := append([]byte("SKPBAK1\n\x00\x00"), byte(len(head)>>8), byte(len(head)))
		if _, _, err := read(io.MultiReader(bytes.NewReader(file), bytes.NewReader(head)), secret); !errors.Is(err, backup.ErrDamaged) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	long := append([]byte("SKPBAK1\n\xff\xff\xff\xff"), whole[12:]...)
	if _, err := backup.NewReader(bytes.NewReader(long)); !errors.Is(err, backup.ErrDamaged) {
		t.Errorf("a header of 4 GiB: got %v", err)
	}
}
