package wal

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
)

const canary = "a canary that must not reach the disk in the clear"

var identity = &api.JoinResponse{RaftId: 7, Members: []*api.Member{{RaftId: 7, NodeId: "n7", Address: "127.0.0.1:2377"}}}

func entry(index, term uint64) *raftpb.Entry {
	return &raftpb.Entry{
		Index: &index, Term: &term, Type: raftpb.EntryNormal.Enum(),
		Data: fmt.Appendf(nil, "%s %d/%d", canary, index, term),
	}
}

func entries(from, to, term uint64) []*raftpb.Entry {
	var list []*raftpb.Entry
	for i := from; i <= to; i++ {
		list = append(list, entry(i, term))
	}
	return list
}

func hard(term, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: &term, Vote: new(uint64), Commit: &commit}
}

func snapshot(index, term uint64, size int) *raftpb.Snapshot {
	return &raftpb.Snapshot{
		Data:     bytes.Repeat([]byte(canary+"!"), size/len(canary)+1)[:size],
		Metadata: &raftpb.SnapshotMetadata{Index: &index, Term: &term, ConfState: &raftpb.ConfState{Voters: []uint64{7}}},
	}
}

func start() *raftpb.Snapshot { return snapshot(1, 1, 100) }

// small has segments of a few frames each.
func small(fsys vfs.FS) Disk { return Disk{FS: fsys, Dir: "/d", SegmentSize: 8 * sectorSize} }

func create(t testing.TB, fsys vfs.FS, kek seal.Key) *WAL {
	t.Helper()
	if err := Create(small(fsys), "c1", kek, seal.SourceKeyFile, identity, start()); err != nil {
		t.Fatal(err)
	}
	w, _, err := Open(small(fsys), kek)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func newMem(t testing.TB) *vfs.Mem {
	t.Helper()
	m := vfs.NewMem()
	t.Cleanup(m.Close)
	return m
}

// reopen closes w and returns what is on disk.
func reopen(t testing.TB, w *WAL, kek seal.Key) (*WAL, *State) {
	t.Helper()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w, state, err := Open(small(w.fs), kek)
	if err != nil {
		t.Fatal(err)
	}
	return w, state
}

// save is WriteSnapshot for data in memory.
func save(w *WAL, s *raftpb.Snapshot) error {
	return w.WriteSnapshot(s.GetMetadata(), fromBytes(s.GetData()))
}

// whole is a state with the data of its snapshot.
type whole struct {
	Hard     *raftpb.HardState
	Snapshot *raftpb.SnapshotMetadata
	Data     [sha256.Size]byte // megabytes take minutes to compare by reflection
	Entries  []*raftpb.Entry
}

func wanted(hard *raftpb.HardState, s *raftpb.Snapshot, entries ...*raftpb.Entry) whole {
	return whole{Hard: hard, Snapshot: s.GetMetadata(), Data: sha256.Sum256(s.GetData()), Entries: entries}
}

// equal is for the tests that compare thousands of states: what differs takes cmp a hundred times longer to say.
func (w whole) equal(other whole) bool {
	return proto.Equal(w.Hard, other.Hard) && proto.Equal(w.Snapshot, other.Snapshot) && w.Data == other.Data &&
		slices.EqualFunc(w.Entries, other.Entries, func(a, b *raftpb.Entry) bool { return proto.Equal(a, b) })
}

func found(t testing.TB, w *WAL, state *State) whole {
	t.Helper()
	if state.Cluster != "c1" || !proto.Equal(state.Identity, identity) {
		t.Fatalf("cluster %s, identity %v", state.Cluster, state.Identity)
	}
	r, err := w.OpenSnapshot(state.Snapshot.GetIndex(), state.Snapshot.GetTerm())
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return wanted(state.HardState, &raftpb.Snapshot{Metadata: r.Meta, Data: data}, state.Entries...)
}

func TestWAL_KeepsWhatWasSaved(t *testing.T) {
	m, kek := newMem(t), seal.NewKey()
	w := create(t, m, kek)
	both := append(entries(2, 4, 2), entries(5, 6, 3)...)
	steps := []struct {
		name string
		do   func() error
		want whole
	}{
		{"nothing", func() error { return nil }, wanted(hard(1, 1), start())},
		{"entries", func() error { return w.Save(Batch{hard(2, 3), entries(2, 6, 2)}) }, wanted(hard(2, 3), start(), entries(2, 6, 2)...)},
		{"no hard state", func() error { return w.Save(Batch{&raftpb.HardState{}, entries(7, 7, 2)}) }, wanted(hard(2, 3), start(), entries(2, 7, 2)...)},
		{"conflict", func() error { return w.Save(Batch{hard(3, 4), entries(5, 6, 3)}) }, wanted(hard(3, 4), start(), both...)},
		{"written snapshot", func() error { return save(w, snapshot(4, 2, 3<<20)) }, wanted(hard(3, 4), start(), both...)},
		{"compact", func() error { return w.Compact(snapshot(4, 2, 0).Metadata, 3) }, wanted(hard(3, 4), snapshot(4, 2, 3<<20), both...)},
		{"rotate", func() error { return w.Rotate() }, wanted(hard(3, 4), snapshot(4, 2, 3<<20), both...)},
		{"segments", func() error { return w.Save(Batch{hard(3, 6), entries(7, 40, 3)}) }, wanted(hard(3, 6), snapshot(4, 2, 3<<20), append(both, entries(7, 40, 3)...)...)},
		{"prepared", func() error { return errors.Join(w.Prepare(), w.Save(Batch{nil, entries(41, 80, 3)})) }, wanted(hard(3, 6), snapshot(4, 2, 3<<20), append(both, entries(7, 80, 3)...)...)},
		{"compact again", func() error {
			return errors.Join(save(w, snapshot(60, 3, 100)), w.Compact(snapshot(60, 3, 0).Metadata, 40))
		}, wanted(hard(3, 6), snapshot(60, 3, 100), entries(41, 80, 3)...)},
		{"rotate again", func() error { return w.Rotate() }, wanted(hard(3, 6), snapshot(60, 3, 100), entries(41, 80, 3)...)},
		{"install", func() error { return w.Install(snapshot(99, 4, 0), hard(4, 99)) }, wanted(hard(4, 99), snapshot(99, 4, 0))},
		{"more", func() error { return w.Save(Batch{hard(4, 100), entries(100, 100, 4)}) }, wanted(hard(4, 100), snapshot(99, 4, 0), entries(100, 100, 4)...)},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		var state *State
		w, state = reopen(t, w, kek)
		if diff := cmp.Diff(step.want, found(t, w, state), protocmp.Transform()); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", step.name, diff)
		}
	}
	if names, err := m.ReadDir("/d"); err != nil || !strings.HasPrefix(strings.Join(names, " "), "FORMAT keys log-") || len(names) != 4 {
		t.Errorf("files: %v, %v", names, err)
	}
	if found, err := m.Contains([]byte(canary[:16])); err != nil || found {
		t.Errorf("the canary is on disk: %v, %v", found, err)
	}
	w.Close()
}

func TestOpen_OnTheRealFileSystem(t *testing.T) {
	dir, kek := t.TempDir()+"/raft", seal.NewKey()
	if _, _, err := Inspect(vfs.OS{}, dir); !errors.Is(err, ErrNone) {
		t.Errorf("inspect nothing: %v", err)
	}
	if err := Create(Disk{FS: vfs.OS{}, Dir: dir}, "c1", kek, seal.SourceUnlockKey, identity, nil); err != nil {
		t.Fatal(err)
	}
	if err := Create(Disk{FS: vfs.OS{}, Dir: dir}, "c1", kek, seal.SourceUnlockKey, identity, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create twice: %v", err)
	}
	if cluster, source, err := Inspect(vfs.OS{}, dir); err != nil || cluster != "c1" || source != seal.SourceUnlockKey {
		t.Errorf("inspect: %s %v %v", cluster, source, err)
	}
	if _, _, err := Open(Disk{FS: vfs.OS{}, Dir: dir}, seal.NewKey()); !errors.Is(err, seal.ErrWrongKey) {
		t.Errorf("wrong key: %v", err)
	}
	w, state, err := Open(Disk{FS: vfs.OS{}, Dir: dir}, kek)
	if err != nil || state.Snapshot != nil || len(state.Entries) != 0 {
		t.Fatalf("open: %v, %v", state, err)
	}
	defer w.Close()
	entriesOnDisk, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entriesOnDisk {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", e.Name(), info.Mode(), err)
		}
	}
}

func TestOpen_RefusesAnotherVersion(t *testing.T) {
	m, kek := newMem(t), seal.NewKey()
	create(t, m, kek).Close()
	if err := vfs.WriteFile(m, "/d/FORMAT", 0o600, []byte("skep store 3\ncluster c1\n")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(small(m), kek); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "skep store 3") {
		t.Errorf("got %v", err)
	}
	if err := vfs.WriteFile(m, "/d/FORMAT", 0o600, []byte("skep store 2\ncluster c1")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(small(m), kek); !errors.Is(err, ErrCorrupt) {
		t.Errorf("cut format file: %v", err)
	}
	if err := m.Remove("/d/FORMAT"); err != nil {
		t.Fatal(err)
	}
	if err := Create(small(m), "c1", kek, seal.SourceKeyFile, identity, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("create over a store that lost its format file: %v", err)
	}
}

// decodeSnapshot reads all of an encoded snapshot.
func decodeSnapshot(from io.Reader, ring *seal.Ring) error {
	meta := start().Metadata
	r, err := newSnapshotReader(io.NopCloser(from), ring, &raftpb.SnapshotMetadata{Index: meta.Index, Term: meta.Term, ConfState: &raftpb.ConfState{}})
	if err == nil {
		_, err = io.ReadAll(r)
	}
	return err
}

func FuzzSnapshot(f *testing.F) {
	m, kek := newMem(f), seal.NewKey()
	w := create(f, m, kek)
	defer w.Close()
	var good bytes.Buffer
	if err := encodeSnapshot(&good, w.ring, start().Metadata, fromBytes(start().Data)); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(snapshotMagic+"\x00\x00\x00\x2d"), uint16(0), byte(0))
	f.Fuzz(func(t *testing.T, content []byte, at uint16, flip byte) {
		if err := decodeSnapshot(bytes.NewReader(content), w.ring); err == nil {
			t.Fatal("decoded something that was never sealed")
		}
		changed := bytes.Clone(good.Bytes())
		changed[int(at)%len(changed)] ^= flip
		if err := decodeSnapshot(bytes.NewReader(changed), w.ring); (err == nil) != (flip == 0) {
			t.Fatalf("flip %x at %d: %v", flip, at, err)
		}
		if err := decodeSnapshot(io.MultiReader(bytes.NewReader(good.Bytes()), bytes.NewReader(content)), w.ring); (err == nil) != (len(content) == 0) {
			t.Fatalf("trailing %d bytes: %v", len(content), err)
		}
	})
}
