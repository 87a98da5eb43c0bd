package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/storetest"
	"github.com/skep-io/skep/store/vfs"
)

// secretText is in every object of these tests, and nowhere on disk.
const secretText = "nobody reads this on the disk"

// smallSegment keeps copies of the disk small.
const smallSegment = 16 << 10

// change is a change of keys. It opens with before until it is done, and with after from some moment on.
type change struct {
	name          string
	before, after seal.Key
	do            func(*store.Store) error
}

// changes returns every kind of change, each from where the one before it ended.
func changes(first seal.Key) []change {
	var all []change
	now := first
	reseal := func(name string, next seal.Key, source seal.Source) {
		all = append(all, change{name, now, next, func(s *store.Store) error { return s.Reseal(next, source) }})
		now = next
	}
	rotate := func(name string) {
		all = append(all, change{name, now, now, func(s *store.Store) error { return s.RotateDataKey(context.Background()) }})
	}
	rotate("data key, key file")
	reseal("autolock on", seal.NewKey(), seal.SourceUnlockKey)
	reseal("unlock key rotated", seal.NewKey(), seal.SourceUnlockKey)
	rotate("data key, unlock key")
	reseal("autolock off", seal.NewKey(), seal.SourceKeyFile)
	reseal("key file to TPM2", seal.NewKey(), seal.SourceTPM2)
	reseal("TPM2 to key file", first, seal.SourceKeyFile)
	return all
}

// crasher takes crashes of a disk.
type crasher struct {
	t      *testing.T
	mem    *vfs.Mem
	taking atomic.Bool
	acked  atomic.Int64 // writes that were acknowledged

	mu     sync.Mutex
	points int       // guarded by mu
	taken  []crashed // guarded by mu; not checked yet
}

// crashed is what a crash left of a disk.
type crashed struct {
	disk  *vfs.Mem
	acked int64
}

func newCrasher(t *testing.T) *crasher {
	c := &crasher{t: t, mem: vfs.NewMem()}
	c.mem.OnWrite(c.crash)
	t.Cleanup(c.mem.Close)
	return c
}

// start starts a manager that leads, alone, on the disk.
func (c *crasher) start(kek seal.Key) *manager {
	c.t.Helper()
	g := newGroup(c.t)
	g.interval = 15
	m := g.add("m1")
	m.disk = store.Disk{FS: c.mem, Dir: "/raft", KEK: kek, Source: seal.SourceKeyFile, SegmentSize: smallSegment}
	if err := store.Bootstrap(m.disk, "c1", &api.Member{RaftId: store.NewRaftID(), NodeId: "m1", Address: "m1:1"}); err != nil {
		c.t.Fatal(err)
	}
	m.start()
	g.await(m.leads)
	return m
}

// crash is called after each operation that changes the disk. It loses all that is not synced, and, other times, some of it. The
// checks come later: the store may hold locks here.
func (c *crasher) crash() {
	if !c.taking.Load() {
		return
	}
	acked := c.acked.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	for seed := range uint64(3) {
		random := rand.New(rand.NewPCG(seed, uint64(c.points)))
		if seed == 0 {
			random = nil
		}
		after, err := c.mem.Crash(random)
		if err != nil {
			c.t.Error(err)
			return
		}
		c.points++
		c.taken = append(c.taken, crashed{after, acked})
	}
}

// check opens all that crashes left.
func (c *crasher) check(during change) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.taken) < 10 {
		c.t.Errorf("%s: only %d crash points", during.name, len(c.taken))
	}
	for i, left := range c.taken {
		if err := recovers(left.disk, during, left.acked); err != nil {
			c.t.Errorf("%s, crash %d of %d: %v", during.name, i+1, len(c.taken), err)
		}
		left.disk.Close()
	}
	c.taken = nil
}

// recovers checks what a crash left: one of the keys opens it, the acknowledged writes are there, and nothing is in clear.
func recovers(after *vfs.Mem, during change, acked int64) error {
	for _, secret := range [][]byte{[]byte(secretText), during.before.Bytes(), during.after.Bytes()} {
		if found, err := after.Contains(secret); err != nil || found {
			return fmt.Errorf("a secret or a key lies in clear, or %w", err)
		}
	}
	disk := store.Disk{FS: after, Dir: "/raft", KEK: during.after, SegmentSize: smallSegment}
	s, err := store.Open(store.Config{Disk: disk})
	if errors.Is(err, seal.ErrWrongKey) {
		disk.KEK = during.before
		s, err = store.Open(store.Config{Disk: disk})
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	err = s.Barrier(ctx)
	for i := int64(0); err == nil && i < acked; i++ {
		err = s.View(func(tx store.ReadTx) error {
			_, err := store.Get[*api.Secret](tx, fmt.Sprint("s", i))
			return err
		})
	}
	cancel()
	return errors.Join(err, <-ended)
}

func (c *crasher) write(s *store.Store) error {
	i := c.acked.Load()
	err := s.Update(context.Background(), "", func(tx store.Tx) error {
		return tx.Create(&api.Secret{Id: fmt.Sprint("s", i), Spec: &api.SecretSpec{
			Annotations: &api.Annotations{Name: fmt.Sprint("s", i)}, Data: []byte(secretText),
		}})
	})
	if err == nil {
		c.acked.Add(1)
	}
	return err
}

// Power is lost after every single operation on the disk while keys change and others write: the former key or the new one opens the
// store, every acknowledged write is there, and nothing was ever in clear. Afterwards the former key opens nothing.
func TestReseal_SurvivesEveryCrashPoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, first := newCrasher(t), seal.NewKey()
		m := c.start(first)
		for range 40 {
			if err := c.write(m.store); err != nil {
				t.Fatal(err)
			}
		}
		for _, now := range changes(first) {
			c.taking.Store(true)
			written := make(chan error, 1)
			go func() { written <- errors.Join(c.write(m.store), c.write(m.store), c.write(m.store)) }()
			if err := errors.Join(now.do(m.store), <-written); err != nil {
				t.Fatalf("%s: %v", now.name, err)
			}
			c.taking.Store(false)
			c.check(now)
			if now.before.Equal(now.after) {
				continue
			}
			onlyTheNewKey(t, c.mem, now)
		}
		if got := len(storetest.List[*api.Secret](t, m.store)); int64(got) != c.acked.Load() {
			t.Errorf("%d of %d secrets", got, c.acked.Load())
		}
		t.Logf("%d crash points", c.points)
		if c.points < 200 {
			t.Errorf("only %d crash points", c.points)
		}
	})
}

func onlyTheNewKey(t *testing.T, mem *vfs.Mem, done change) {
	t.Helper()
	after, err := mem.Crash(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	if _, err := store.Open(store.Config{Disk: store.Disk{FS: after, Dir: "/raft", KEK: done.before}}); !errors.Is(err, seal.ErrWrongKey) {
		t.Errorf("%s: the former key: %v", done.name, err)
	}
}

// A rotation that a crash stopped still counts the old key, so that whoever follows a schedule does it again.
func TestRotateDataKey_AgeSurvivesACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrasher(t)
		m := c.start(seal.NewKey())
		made, _ := m.store.DataKey()
		time.Sleep(time.Minute)
		c.taking.Store(true)
		if err := m.store.RotateDataKey(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.taking.Store(false)
		fresh, _ := m.store.DataKey()
		if !fresh.After(made) {
			t.Errorf("the key is of %v, before of %v", fresh, made)
		}
		unfinished := 0
		c.mu.Lock() // the log's next segment may still be on its way
		taken := c.taken
		c.mu.Unlock()
		for _, left := range taken {
			disk := m.disk
			disk.FS = left.disk
			s, err := store.Open(store.Config{Disk: disk})
			if err != nil {
				t.Fatal(err)
			}
			switch got, _ := s.DataKey(); {
			case got.Equal(made):
				unfinished++
			case !got.Equal(fresh):
				t.Errorf("a key of %v", got)
			}
			over, cancel := context.WithCancel(t.Context())
			cancel()
			if err := s.Run(over); err != nil {
				t.Error(err)
			}
			left.disk.Close()
		}
		if unfinished < 5 {
			t.Errorf("only %d of %d crashes were before the end", unfinished, len(taken))
		}
	})
}
