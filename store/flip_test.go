package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/invariant"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/storetest"
	"github.com/skep-io/skep/store/vfs"
	"github.com/skep-io/skep/store/wal"
)

// sector is the unit in which the log is written: one that is all zero was not written yet.
const sector = 512

// One changed byte anywhere in a stopped store's directory: Open says which part is damaged. What was never written has no
// meaning: there the store has the very same state.
func TestOpen_DetectsAFlippedByteAnywhere(t *testing.T) {
	t.Parallel()
	disk, want := stoppedStore(t)
	mem := disk.FS.(*vfs.Mem)
	names, err := mem.ReadDir(disk.Dir)
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, name := range names {
		if vfs.IsTemp(name) {
			continue // what counts never has that name
		}
		path := filepath.Join(disk.Dir, name)
		content, err := vfs.ReadFile(mem, path, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		written, unwritten := positions(content)
		t.Logf("%s: %d bytes, %d and %d tried", name, len(content), len(written), len(unwritten))
		total += len(written) + len(unwritten)
		for _, at := range written {
			put(t, mem, path, at, ^content[at])
			refuses(t, fmt.Sprintf("%s, byte %d", name, at), disk)
			put(t, mem, path, at, content[at])
		}
		for _, at := range unwritten {
			changed := disk
			changed.FS = unwrittenFlipped(t, mem, path, at)
			unharmed(t, fmt.Sprintf("%s, byte %d", name, at), changed, want)
		}
	}
	if least := 2 * between(); total < least {
		t.Errorf("only %d positions, want %d", total, least)
	}
}

// stoppedStore makes a store with snapshot and log, stops it, and returns what it held. Of two snapshots one doesn't count: the
// store was stopped between writing the new one and noting it, or between that and removing the old one.
func stoppedStore(t *testing.T) (store.Disk, *api.StoreSnapshot) {
	t.Helper()
	for range 20 {
		disk, want := stopStore(t)
		names, err := disk.FS.ReadDir(disk.Dir)
		if err != nil {
			t.Fatal(err)
		}
		snapshots := 0
		for _, name := range names {
			if strings.HasPrefix(name, "snap-") && !vfs.IsTemp(name) {
				snapshots++
			}
		}
		if snapshots == 1 {
			return disk, want
		}
	}
	t.Fatal("twenty stores were stopped with another number of snapshots than one")
	return store.Disk{}, nil
}

func stopStore(t *testing.T) (store.Disk, *api.StoreSnapshot) {
	t.Helper()
	g := newGroup(t)
	g.interval = 20
	m := g.add("m1")
	m.disk.SegmentSize = 64 << 10 // it is read at each try
	if err := store.Bootstrap(m.disk, "c1", &api.Member{RaftId: store.NewRaftID(), NodeId: "m1", Address: "m1:1"}); err != nil {
		t.Fatal(err)
	}
	m.start()
	awaitLeader(t, m.store)
	for i := range 50 {
		id := fmt.Sprintf("s%02d", i)
		storetest.Create(t, m.store, secret(id, id, bytes.Repeat([]byte("x"), 100)))
	}
	want := stateOf(t, m.store)
	m.stop()
	return m.disk, want
}

// awaitLeader waits until a store of one manager leads.
func awaitLeader(t *testing.T, s *store.Store) {
	t.Helper()
	for {
		leadership, changed := s.Leadership()
		if leadership.Self {
			return
		}
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Fatal("no leader")
		}
	}
}

// positions are the bytes of a file to flip: all of a small one; of others the ends, and many in between. The second ones are in
// sectors that were not written yet.
func positions(content []byte) (written, unwritten []int) {
	const end, few = 64, 20
	var zero []int
	for start := 0; start < len(content); start += sector {
		part := content[start:min(start+sector, len(content))]
		list := &written
		if len(bytes.Trim(part, "\x00")) == 0 {
			list = &zero
		}
		for i := range part {
			*list = append(*list, start+i)
		}
	}
	return spread(written, end, between()), spread(zero, 1, few)
}

// spread returns some of the numbers: those at both ends, and some between them.
func spread(all []int, end, between int) []int {
	var some []int
	for i, at := range all {
		if len(all) <= between || i < end || i >= len(all)-end || i%(len(all)/between) == 0 {
			some = append(some, at)
		}
	}
	return some
}

// between is how many bytes are changed in the midst of a file: few with the race detector, which makes each ten times as long; make test
// changes the others without.
func between() int {
	if invariant.Enabled {
		return 200
	}
	return 10000
}

// put writes a byte at a place of a file.
func put(t *testing.T, mem *vfs.Mem, path string, at int, b byte) {
	t.Helper()
	f, err := mem.OpenFixed(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{b}, int64(at)); err != nil {
		t.Fatal(err)
	}
}

// unwrittenFlipped returns a copy of a disk with a byte flipped.
func unwrittenFlipped(t *testing.T, mem *vfs.Mem, path string, at int) *vfs.Mem {
	t.Helper()
	copied, err := mem.Crash(nil) // all that counts is synced
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(copied.Close)
	put(t, copied, path, at, 0xff)
	return copied
}

// refuses checks that a store is not opened, in words that name the damage.
func refuses(t *testing.T, where string, disk store.Disk) {
	t.Helper()
	s, err := store.Open(store.Config{Disk: disk})
	if err == nil {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		t.Fatalf("%s is another, and nobody notices; %v", where, s.Run(ctx))
	}
	checkNamed(t, where, disk, err)
}

// checkNamed checks that an error says what is damaged.
func checkNamed(t *testing.T, where string, disk store.Disk, err error) {
	t.Helper()
	var corrupt *wal.CorruptError
	named := errors.As(err, &corrupt) && corrupt.What != ""
	for _, known := range []error{wal.ErrFormat, seal.ErrFormat, seal.ErrWrongKey} {
		named = named || errors.Is(err, known) && strings.Contains(err.Error(), disk.Dir)
	}
	if !named {
		t.Errorf("%s: the error does not name the damage: %v", where, err)
	}
}

// unharmed checks that a store has the state, to the last object, or is refused.
func unharmed(t *testing.T, where string, disk store.Disk, want *api.StoreSnapshot) {
	t.Helper()
	s, err := store.Open(store.Config{Disk: disk})
	if err != nil {
		checkNamed(t, where, disk, err)
		return
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	awaitLeader(t, s)
	got := stateOf(t, s)
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("%s: %v", where, err)
	}
	got.Index = want.Index // each election is an entry
	if !proto.Equal(want, got) {
		t.Errorf("%s: %d of %d objects, or another state", where, len(got.GetObjects()), len(want.GetObjects()))
	}
}
