package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca/keyfile"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
)

// killed is a manager whose data directory is copied before every operation of its store on the disk, as a kill would leave it.
type killed struct {
	t     *testing.T
	d     *Daemon
	node  *node
	store *store.Store

	mu     sync.Mutex
	copies []string // guarded by mu
	root   string   // guarded by mu; where copies go, or "": none are made
}

func newKilled(t *testing.T) *killed {
	t.Helper()
	k := &killed{t: t, d: newTestDaemon(t)}
	withCredential(t, k.d, seal.NewKey())
	kek := own(t, k.d, seal.SourceKeyFile)
	keys := openKeys(k.d.cfg.DataDir, nil)
	if err := keys.Save(managerCredentials(t)); err != nil {
		t.Fatal(err)
	}
	disk := store.Disk{FS: vfs.Inject(vfs.OS{}, k.before), Dir: k.d.disk.path(storeDir), KEK: kek, Source: seal.SourceKeyFile, SegmentSize: 16 << 10}
	if err := store.Bootstrap(disk, "c1", &api.Member{RaftId: store.NewRaftID(), NodeId: "m1", Address: "m1:1"}); err != nil {
		t.Fatal(err)
	}
	var err error
	if k.store, err = store.Open(store.Config{Disk: disk}); err != nil {
		t.Fatal(err)
	}
	k.node = &node{daemon: k.d, logger: k.d.logger, keys: keys, kek: kek, source: seal.SourceKeyFile}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- k.store.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return k
}

// before copies the data directory, unless the operation only reads.
func (k *killed) before(op vfs.Op) error {
	switch op.Kind {
	case "Read", "Open", "Stat", "ReadDir":
	default:
		k.copy()
	}
	return nil
}

func (k *killed) copy() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.root == "" {
		return
	}
	to := filepath.Join(k.root, fmt.Sprint(len(k.copies)))
	err := os.CopyFS(to, os.DirFS(k.d.cfg.DataDir))
	if errors.Is(err, fs.ErrNotExist) { // the log prepares a file meanwhile
		err = errors.Join(os.RemoveAll(to), os.CopyFS(to, os.DirFS(k.d.cfg.DataDir)))
	}
	if err != nil {
		k.t.Error(err)
	}
	// A copy of the key file is as closed as it was.
	if err := os.Chmod(filepath.Join(to, keyFile), 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.t.Error(err)
	}
	k.copies = append(k.copies, to)
}

// change makes a key the manager's, and returns what a kill would have left at each step.
func (k *killed) change(kek seal.Key, source seal.Source) []string {
	k.t.Helper()
	k.mu.Lock()
	k.copies, k.root = nil, k.t.TempDir()
	k.mu.Unlock()
	if err := k.node.reseal(k.store, kek, source); err != nil {
		k.t.Fatal(err)
	}
	k.copy()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.root = ""
	return k.copies
}

// opens reports whether a copy of the data directory is that of a manager that comes back with an unlock key, or without when that
// is the zero value.
func (k *killed) opens(dir string, unlock seal.Key) error {
	d := newTestDaemon(k.t)
	d.cfg.DataDir, d.disk = dir, disk{dir: dir}
	d.own.disk, d.own.credentials = d.disk, k.d.own.credentials
	_, source, err := store.Inspect(vfs.OS{}, d.disk.path(storeDir))
	if err != nil {
		return err
	}
	u, err := d.unseal(k.t.Context(), source, unlock)
	if err != nil {
		return err
	}
	s, err := store.Open(store.Config{Disk: store.Disk{Dir: d.disk.path(storeDir), KEK: u.kek}})
	if errors.Is(err, seal.ErrWrongKey) {
		return keyfile.ErrLocked
	}
	if err != nil {
		return err
	}
	return discard(s)
}

// TestReseal_KilledAtEveryStep kills a manager at every step of every change of its key. What is left comes back by itself, or by the
// former unlock key or the new one, whichever there is; never is more than one of them needed, and what was sealed before and after
// lies in clear at no step.
func TestReseal_KilledAtEveryStep(t *testing.T) {
	k := newKilled(t)
	none, first, second := seal.Key{}, seal.NewKey(), seal.NewKey()
	file := own(t, k.d, seal.SourceKeyFile)
	k.d.own.provider = ProviderCredential
	unit := own(t, k.d, seal.SourceCredential)
	k.d.own.provider = ProviderFile
	former := none
	for _, step := range []struct {
		name   string
		kek    seal.Key
		source seal.Source
		unlock seal.Key // what people need afterwards
		clear  bool     // the node key is in clear before or afterwards
	}{
		{"autolock on", first, seal.SourceUnlockKey, first, true},
		{"unlock key rotated", second, seal.SourceUnlockKey, second, false},
		{"autolock off", file, seal.SourceKeyFile, none, true},
		{"key file to credential", unit, seal.SourceCredential, none, true},
		{"credential to unlock key", first, seal.SourceUnlockKey, first, false},
		{"unlock key to credential", unit, seal.SourceCredential, none, false},
	} {
		copies := k.change(step.kek, step.source)
		for i, dir := range copies {
			if after := k.opens(dir, step.unlock); after != nil {
				if before := k.opens(dir, former); before != nil {
					t.Errorf("%s, killed at step %d of %d: %v", step.name, i+1, len(copies), errors.Join(before, after))
				}
			}
			found, err := holdsAny(dir, first.Bytes(), second.Bytes(), unit.Bytes(), []byte(first.UnlockKey()), []byte(second.UnlockKey()))
			if err != nil || found {
				t.Errorf("%s, step %d: a key is on the disk, or %v", step.name, i+1, err)
			}
			if clear, err := holdsAny(dir, []byte("BEGIN PRIVATE KEY")); err != nil || clear && !step.clear {
				t.Errorf("%s, step %d: the node key is in clear, or %v", step.name, i+1, err)
			}
		}
		last := copies[len(copies)-1]
		if err := k.opens(last, step.unlock); err != nil {
			t.Errorf("%s: afterwards: %v", step.name, err)
		}
		if err := k.opens(last, former); step.source == seal.SourceUnlockKey && !errors.Is(err, keyfile.ErrLocked) {
			t.Errorf("%s: afterwards it opens without the new key: %v", step.name, err)
		}
		if len(copies) < 10 {
			t.Errorf("%s: only %d steps", step.name, len(copies))
		}
		former = step.unlock
	}
}
