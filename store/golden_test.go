package store_test

import (
	"archive/zip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/storetest"
	"github.com/skep-io/skep/store/vfs"
	"github.com/skep-io/skep/store/wal"
)

// released are the golden data of all versions that ever wrote a store that somebody may still have.
const released = "testdata/golden"

// What a released version left on disk, this version reads, goes on with, and recovers from.
func TestGolden_OfReleasedVersions(t *testing.T) {
	versions, err := filepath.Glob(filepath.Join(released, "*", "group.zip"))
	if err != nil || len(versions) == 0 {
		t.Fatalf("no golden data: %v", err)
	}
	for _, path := range versions {
		dir := filepath.Dir(path)
		t.Run(filepath.Base(dir), func(t *testing.T) { readGolden(t, dir) })
	}
}

func readGolden(t *testing.T, dir string) {
	for name, read := range map[string]func(t *testing.T, dir string){
		"group": readGroup, "locked": readLocked, "force new cluster": readForced,
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { read(t, dir) }) })
	}
}

// readGroup checks that the managers of a group have what they had, write, take in the one that was about to join, and
// have all of it after another restart.
func readGroup(t *testing.T, dir string) {
	want := goldenState(t, dir, "group")
	g := newGroup(t)
	g.interval, g.dir = 20, unpack(t, filepath.Join(dir, "group.zip"))
	m1, m2, m4 := g.add("m1"), g.add("m2"), g.add("m4")
	m1.start()
	m2.start()
	leader := g.leader()
	g.same(m1, m2)
	for _, m := range []*manager{m1, m2} {
		compareState(t, "after the upgrade, on "+m.id, want, m.store)
	}
	var duplicate *store.DuplicateError
	err := leader.store.Update(t.Context(), goldenRequest, func(store.Tx) error { return errors.New("it ran again") })
	if !errors.As(err, &duplicate) || len(duplicate.Created) != 1 || duplicate.Created[0].ID != "requested" {
		t.Errorf("a request of before: %v", err)
	}
	m4.start()
	g.awaitVoter(m4)
	for i := range 30 {
		storetest.Create(t, leader.store, service(fmt.Sprint("wrote", i), fmt.Sprint("wrote", i)))
	}
	managers := []*manager{m1, m2, m4}
	g.same(managers...)
	want = stateOf(t, leader.store)
	for _, m := range managers {
		m.stop()
	}
	for _, m := range managers {
		m.start()
	}
	g.leader()
	g.same(managers...)
	for _, m := range managers {
		compareState(t, "after a restart, on "+m.id, want, m.store)
	}
}

// readLocked checks that the unlock key opens the store, and nothing else does.
func readLocked(t *testing.T, dir string) {
	g := newGroup(t)
	g.dir = unpack(t, filepath.Join(dir, "locked.zip"))
	text, err := os.ReadFile(filepath.Join(g.dir, "unlock-key"))
	if err != nil {
		t.Fatal(err)
	}
	m := g.add("m1")
	if _, source, err := store.Inspect(vfs.OS{}, m.disk.Dir); err != nil || source != seal.SourceUnlockKey {
		t.Errorf("inspect: %v, %v", source, err)
	}
	if _, err := store.Open(store.Config{Disk: m.disk}); !errors.Is(err, seal.ErrWrongKey) {
		t.Errorf("the key file opens the store: %v", err)
	}
	if m.disk.KEK, err = seal.ParseUnlockKey(string(text)); err != nil {
		t.Fatal(err)
	}
	want := goldenState(t, dir, "locked")
	for range 2 {
		m.start()
		g.await(m.leads)
		compareState(t, "unlocked", want, m.store)
		m.stop()
	}
}

// readForced checks that one manager of a group becomes the only one, with every object.
func readForced(t *testing.T, dir string) {
	g := newGroup(t)
	g.dir = unpack(t, filepath.Join(dir, "group.zip"))
	m := g.add("m2")
	if err := store.ForceNewCluster(m.disk, "m2:9"); err != nil {
		t.Fatal(err)
	}
	m.start()
	g.await(m.leads)
	want, got := goldenState(t, dir, "group"), stateOf(t, m.store)
	if len(got.Members) != 1 || got.Members[0].NodeId != "m2" || got.Members[0].Address != "m2:9" || len(got.RemovedRaftIds) != 3 {
		t.Errorf("members: %v, removed: %v", got.Members, got.RemovedRaftIds)
	}
	want.Members, want.RemovedRaftIds = got.Members, got.RemovedRaftIds
	withRecovery(want, got)
	compareState(t, "forced", want, m.store)
	err := store.ForceNewCluster(realDisk(t, filepath.Join(g.dir, "m4")), "m4:9")
	if !errors.Is(err, store.ErrInvalid) {
		t.Errorf("force a manager that never received anything: %v", err)
	}
}

// withRecovery lets the audit log of want, if there is one, end as that of got does: with the recovery.
func withRecovery(want, got *api.StoreSnapshot) {
	isLog := func(o *api.StoredObject) bool { return o.GetAuditSegment() != nil }
	if i := slices.IndexFunc(want.Objects, isLog); i >= 0 {
		want.Objects[i] = got.Objects[slices.IndexFunc(got.Objects, isLog)]
		isVersion := func(v *api.KindVersion) bool { return v.GetKind() == uint32(object.KindAuditSegment) }
		want.KindVersions[slices.IndexFunc(want.KindVersions, isVersion)] = got.KindVersions[slices.IndexFunc(got.KindVersions, isVersion)]
	}
}

// goldenState is what a golden store held when it was stopped.
func goldenState(t *testing.T, dir, name string) *api.StoreSnapshot {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	state := &api.StoreSnapshot{}
	if err := protojson.Unmarshal(text, state); err != nil {
		t.Fatal(err)
	}
	return state
}

func stateOf(t *testing.T, s *store.Store) *api.StoreSnapshot {
	t.Helper()
	state, err := s.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// compareState compares all that a store holds, but for its index: each election is an entry.
func compareState(t *testing.T, when string, want *api.StoreSnapshot, s *store.Store) {
	t.Helper()
	diff := cmp.Diff(want, stateOf(t, s), protocmp.Transform(), protocmp.IgnoreFields(&api.StoreSnapshot{}, "index"))
	if diff != "" {
		t.Errorf("%s (-want +got):\n%s", when, diff)
	}
}

// unpack returns a fresh copy of what a zip file holds, readable for nobody else.
func unpack(t *testing.T, path string) string {
	t.Helper()
	r, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	dir := t.TempDir()
	for _, f := range r.File {
		if f.Mode().IsDir() {
			continue
		}
		content, err := fs.ReadFile(r, f.Name)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, f.Name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o700), os.WriteFile(to, content, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A store of a version to come is refused with clear words by all that could touch it, and stays as it is.
func TestStore_LeavesADirectoryOfANewerVersionAlone(t *testing.T) {
	dir := unpack(t, filepath.Join(released, "v1", "group.zip"))
	disk := realDisk(t, filepath.Join(dir, "m1"))
	format := filepath.Join(disk.Dir, "FORMAT")
	text, err := os.ReadFile(format)
	if err != nil {
		t.Fatal(err)
	}
	newer := regexp.MustCompile(`store \d+`).ReplaceAllString(string(text), "store 99")
	if err := os.WriteFile(format, []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	before := fingerprint(t, dir)
	self := &api.Member{RaftId: 1, NodeId: "m1", Address: "m1:1"}
	_, _, inspected := store.Inspect(vfs.OS{}, disk.Dir)
	_, opened := store.Open(store.Config{Disk: disk})
	for name, err := range map[string]error{"inspect": inspected, "open": opened, "force": store.ForceNewCluster(disk, "m1:1")} {
		if !errors.Is(err, wal.ErrFormat) || !strings.Contains(err.Error(), `"skep store 99"`) || !strings.Contains(err.Error(), format) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"bootstrap": store.Bootstrap(disk, "c1", self), "prepare": store.Prepare(disk, "c1", &api.JoinResponse{RaftId: 1}),
	} {
		if !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if diff := cmp.Diff(before, fingerprint(t, dir)); diff != "" {
		t.Errorf("it was touched (-before +after):\n%s", diff)
	}
}

// fingerprint returns the hash of every file below dir.
func fingerprint(t *testing.T, dir string) map[string][sha256.Size]byte {
	t.Helper()
	sums := map[string][sha256.Size]byte{}
	root := os.DirFS(dir)
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(root, name)
		sums[name] = sha256.Sum256(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}
