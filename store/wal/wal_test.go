package wal

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
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

func create(t testing.TB, fsys vfs.FS, kek seal.Key) *WAL {
	t.Helper()
	if err := Create(fsys, "/d", "c1", kek, seal.SourceKeyFile, identity, start()); err != nil {
		t.Fatal(err)
	}
	w, _, err := Open(fsys, "/d", kek)
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
	w, state, err := Open(w.fs, w.dir, kek)
	if err != nil {
		t.Fatal(err)
	}
	return w, state
}

func TestWAL_KeepsWhatWasSaved(t *testing.T) {
	m, kek := newMem(t), seal.NewKey()
	w := create(t, m, kek)
	steps := []struct {
		name string
		do   func() error
		want State
	}{
		{"nothing", func() error { return nil }, State{HardState: hard(1, 1), Snapshot: start()}},
		{"entries", func() error { return w.Save(Batch{hard(2, 3), entries(2, 6, 2)}) }, State{HardState: hard(2, 3), Snapshot: start(), Entries: entries(2, 6, 2)}},
		{"no hard state", func() error { return w.Save(Batch{&raftpb.HardState{}, entries(7, 7, 2)}) }, State{HardState: hard(2, 3), Snapshot: start(), Entries: entries(2, 7, 2)}},
		{"conflict", func() error { return w.Save(Batch{hard(3, 4), entries(5, 6, 3)}) }, State{HardState: hard(3, 4), Snapshot: start(), Entries: append(entries(2, 4, 2), entries(5, 6, 3)...)}},
		{"written snapshot", func() error { return w.WriteSnapshot(snapshot(4, 2, 3<<20)) }, State{HardState: hard(3, 4), Snapshot: start(), Entries: append(entries(2, 4, 2), entries(5, 6, 3)...)}},
		{"compact", func() error { return w.Compact(snapshot(4, 2, 0).Metadata, 3) }, State{HardState: hard(3, 4), Snapshot: snapshot(4, 2, 3<<20), Entries: append(entries(4, 4, 2), entries(5, 6, 3)...)}},
		{"rotate", func() error { return w.Rotate() }, State{HardState: hard(3, 4), Snapshot: snapshot(4, 2, 3<<20), Entries: append(entries(4, 4, 2), entries(5, 6, 3)...)}},
		{"install", func() error { return w.Install(snapshot(9, 4, 0), hard(4, 9)) }, State{HardState: hard(4, 9), Snapshot: snapshot(9, 4, 0)}},
		{"more", func() error { return w.Save(Batch{hard(4, 10), entries(10, 10, 4)}) }, State{HardState: hard(4, 10), Snapshot: snapshot(9, 4, 0), Entries: entries(10, 10, 4)}},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		var state *State
		w, state = reopen(t, w, kek)
		step.want.Cluster, step.want.Identity = "c1", identity
		for _, s := range []*raftpb.Snapshot{step.want.Snapshot, state.Snapshot} {
			sum := sha256.Sum256(s.Data) // megabytes take minutes to compare by reflection
			s.Data = sum[:]
		}
		if diff := cmp.Diff(&step.want, state, protocmp.Transform()); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", step.name, diff)
		}
	}
	if names, err := m.ReadDir("/d"); err != nil || strings.Join(names, " ") != "FORMAT keys raft.db snap-0000000000000009-0000000000000004" {
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
	if err := Create(vfs.OS{}, dir, "c1", kek, seal.SourceUnlockKey, identity, nil); err != nil {
		t.Fatal(err)
	}
	if err := Create(vfs.OS{}, dir, "c1", kek, seal.SourceUnlockKey, identity, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create twice: %v", err)
	}
	if cluster, source, err := Inspect(vfs.OS{}, dir); err != nil || cluster != "c1" || source != seal.SourceUnlockKey {
		t.Errorf("inspect: %s %v %v", cluster, source, err)
	}
	if _, _, err := Open(vfs.OS{}, dir, seal.NewKey()); !errors.Is(err, seal.ErrWrongKey) {
		t.Errorf("wrong key: %v", err)
	}
	w, state, err := Open(vfs.OS{}, dir, kek)
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
	if err := vfs.WriteFile(m, "/d/FORMAT", 0o600, []byte("skep store 2\ncluster c1\n")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(m, "/d", kek); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "skep store 2") {
		t.Errorf("got %v", err)
	}
	if err := vfs.WriteFile(m, "/d/FORMAT", 0o600, []byte("skep store 1\ncluster c1")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(m, "/d", kek); !errors.Is(err, ErrCorrupt) {
		t.Errorf("cut format file: %v", err)
	}
	if err := m.Remove("/d/FORMAT"); err != nil {
		t.Fatal(err)
	}
	if err := Create(m, "/d", "c1", kek, seal.SourceKeyFile, identity, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("create over a store that lost its format file: %v", err)
	}
}

// Whatever is done to the database, Open names the index and hands out nothing.
func TestOpen_NamesTheIndexOfDamage(t *testing.T) {
	tests := []struct {
		name   string
		index  uint64
		damage func(log, meta *bbolt.Bucket) error
	}{
		{"flipped bit in the content", 5, func(log, _ *bbolt.Bucket) error { return flip(log, 5, -1) }},
		{"flipped bit in the term", 4, func(log, _ *bbolt.Bucket) error { return flip(log, 4, 7) }},
		{"flipped bit in the nonce", 4, func(log, _ *bbolt.Bucket) error { return flip(log, 4, 20) }},
		{"cut entry", 3, func(log, _ *bbolt.Bucket) error { return log.Put(indexKey(3), []byte{1, 2, 3}) }},
		{"swapped entries", 3, func(log, _ *bbolt.Bucket) error {
			a, b := bytes.Clone(log.Get(indexKey(3))), bytes.Clone(log.Get(indexKey(4)))
			return errors.Join(log.Put(indexKey(3), b), log.Put(indexKey(4), a))
		}},
		{"missing entry", 4, func(log, _ *bbolt.Bucket) error { return log.Delete(indexKey(4)) }},
		{"missing first entry", 2, func(log, _ *bbolt.Bucket) error { return log.Delete(indexKey(2)) }},
		{"missing last entries", 5, func(log, _ *bbolt.Bucket) error {
			return errors.Join(log.Delete(indexKey(5)), log.Delete(indexKey(6)))
		}},
		{"copied entry", 7, func(log, _ *bbolt.Bucket) error { return log.Put(indexKey(7), bytes.Clone(log.Get(indexKey(6)))) }},
		{"strange key", 0, func(log, _ *bbolt.Bucket) error { return log.Put([]byte("zz"), nil) }},
		{"hard state", 0, func(_, meta *bbolt.Bucket) error { return meta.Put([]byte(hardStateKey), []byte("x")) }},
		{"identity", 0, func(_, meta *bbolt.Bucket) error { return meta.Delete([]byte(identityKey)) }},
		{"mark", 0, func(_, meta *bbolt.Bucket) error {
			return meta.Put([]byte(markKey), bytes.Clone(meta.Get([]byte(hardStateKey))))
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m, kek := newMem(t), seal.NewKey()
			w := create(t, m, kek)
			if err := w.Save(Batch{hard(2, 6), entries(2, 6, 2)}); err != nil {
				t.Fatal(err)
			}
			err := w.db.Update(func(tx *bbolt.Tx) error {
				return test.damage(tx.Bucket([]byte(logBucket)), tx.Bucket([]byte(metaBucket)))
			})
			if err = errors.Join(err, w.Close()); err != nil {
				t.Fatal(err)
			}
			_, state, err := Open(m, "/d", kek)
			var corrupt *CorruptError
			if !errors.As(err, &corrupt) || !errors.Is(err, ErrCorrupt) || corrupt.Index != test.index || state != nil {
				t.Errorf("got %v, want corruption at %d", err, test.index)
			}
		})
	}
}

func flip(log *bbolt.Bucket, index uint64, at int) error {
	value := bytes.Clone(log.Get(indexKey(index)))
	if at < 0 {
		at += len(value)
	}
	value[at] ^= 1
	return log.Put(indexKey(index), value)
}

func TestOpen_RefusesADamagedSnapshotOrDatabase(t *testing.T) {
	m, kek := newMem(t), seal.NewKey()
	create(t, m, kek).Close()
	path := "/d/" + snapshotName(start().Metadata)
	good, err := vfs.ReadFile(m, path, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for at := range good {
		bad := bytes.Clone(good)
		bad[at] ^= 0x40
		if err := vfs.WriteFile(m, path, 0o600, bad); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Open(m, "/d", kek); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("flipped bit at %d: %v", at, err)
		}
		if err := vfs.WriteFile(m, path, 0o600, good[:at]); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Open(m, "/d", kek); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at %d: %v", at, err)
		}
	}
	for _, damage := range []func(f *os.File) error{
		func(f *os.File) error { return f.Truncate(5000) },
		func(f *os.File) error { _, err := f.WriteAt(make([]byte, 8192), 0); return err },
		func(f *os.File) error { _, err := f.WriteAt(bytes.Repeat([]byte{0xff}, 8192), 8192); return err },
	} {
		damaged, err := m.Crash(rand.New(rand.NewPCG(1, 1)))
		if err != nil {
			t.Fatal(err)
		}
		f, err := damaged.OpenOS("/d/raft.db", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(damage(f), f.Close()); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Open(damaged, "/d", kek); err == nil {
			t.Error("opened a damaged database")
		}
		damaged.Close()
	}
}

func FuzzEntry(f *testing.F) {
	m, kek := newMem(f), seal.NewKey()
	w := create(f, m, kek)
	defer w.Close()
	good, err := encodeEntry(w.ring, entry(5, 2))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(indexKey(5), []byte("x"), uint16(9), byte(1))
	f.Fuzz(func(t *testing.T, key, value []byte, at uint16, flip byte) {
		if e, err := decodeEntry(w.ring, key, value); !errors.Is(err, ErrCorrupt) || e != nil {
			t.Fatalf("decoded something that was never sealed: %v", err)
		}
		changed := bytes.Clone(good)
		changed[int(at)%len(changed)] ^= flip
		if e, err := decodeEntry(w.ring, indexKey(5), changed); flip != 0 && err == nil || flip == 0 && !proto.Equal(e, entry(5, 2)) {
			t.Fatalf("flip %x at %d: %v, %v", flip, at, e, err)
		}
	})
}

func FuzzSnapshot(f *testing.F) {
	m, kek := newMem(f), seal.NewKey()
	w := create(f, m, kek)
	defer w.Close()
	var good bytes.Buffer
	if err := encodeSnapshot(&good, w.ring, start()); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(snapshotMagic+"\x00\x00\x00\x2d"), uint16(0), byte(0))
	f.Fuzz(func(t *testing.T, content []byte, at uint16, flip byte) {
		if _, err := decodeSnapshot(bytes.NewReader(content), w.ring, start().Metadata); err == nil {
			t.Fatal("decoded something that was never sealed")
		}
		changed := bytes.Clone(good.Bytes())
		changed[int(at)%len(changed)] ^= flip
		if _, err := decodeSnapshot(bytes.NewReader(changed), w.ring, start().Metadata); (err == nil) != (flip == 0) {
			t.Fatalf("flip %x at %d: %v", flip, at, err)
		}
		if _, err := decodeSnapshot(io.MultiReader(bytes.NewReader(good.Bytes()), bytes.NewReader(content)), w.ring, start().Metadata); (err == nil) != (len(content) == 0) {
			t.Fatalf("trailing %d bytes: %v", len(content), err)
		}
	})
}
