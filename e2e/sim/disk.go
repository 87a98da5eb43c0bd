package main

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/vfs"
)

var (
	// errDisk is an error of the disk.
	errDisk = errors.New("the simulated disk fails")
	// errDead is what a process sees of a disk after the moment in which it crashes.
	errDead = errors.New("the simulated process is dead")
)

// canary is in every secret, and must not be on any disk.
var canary = []byte("canary-0b7e53")

// diskFaults is what is wrong with a node's disk.
type diskFaults struct {
	slowTo  time.Duration
	stuckTo time.Duration // no operation ends before
	err     error         // of every change, or nil
	dieIn   int           // operations until the process crashes, or 0
	dead    bool          // it crashed
	flipped bool          // a byte changed at rest
}

func (d *diskFaults) failing() bool { return d.err != nil }

// delay is how long an operation takes.
func (d *diskFaults) delay(w *world) time.Duration {
	switch {
	case w.now < d.stuckTo:
		return d.stuckTo - w.now
	case w.now < d.slowTo:
		return w.between(100*time.Millisecond, 2*time.Second)
	}
	return w.between(time.Millisecond/5, 3*time.Millisecond)
}

// check is asked before each operation.
func (d *diskFaults) check(op vfs.Op) error {
	if d.dead {
		return errDead
	}
	switch op.Kind {
	case "Open", "Read", "ReadDir", "Stat", "Close", "OpenFixed", "OpenOS":
		return nil
	}
	if d.dieIn > 0 {
		if d.dieIn--; d.dieIn == 0 {
			d.dead = true
			return errDead
		}
	}
	if d.err != nil {
		return fmt.Errorf("%w: %w", errDisk, d.err)
	}
	return nil
}

// fs is the disk as the store sees it.
func (n *node) fs() vfs.FS {
	return n.lie(vfs.Inject(n.mem, n.disk.check))
}

// fill makes every change of the disk fail for a while.
func (n *node) fill(hold time.Duration) {
	n.disk.err = syscall.ENOSPC
	if n.w.chance(0.5) {
		n.disk.err = syscall.EIO
	}
	n.w.after(hold, func() { n.disk.err = nil })
}

// flip changes a byte at rest of a manager that is down.
func (n *node) flip() {
	names, err := n.mem.ReadDir(dataDir)
	n.w.must(err)
	path := filepath.Join(dataDir, names[n.w.rng.IntN(len(names))])
	content, err := vfs.ReadFile(n.mem, path, 1<<30)
	if err != nil || len(bytes.TrimRight(content, "\x00")) == 0 {
		return
	}
	at := n.w.rng.IntN(len(bytes.TrimRight(content, "\x00")))
	content[at] ^= byte(1 << n.w.rng.IntN(8))
	n.w.must(vfs.WriteFile(n.mem, path, 0o600, content))
	n.disk.flipped = true
}

// checkClear searches the disk for what must not be in clear (I11).
func (n *node) checkClear() {
	for what, needle := range map[string][]byte{"a secret": canary, "the key-encryption key": n.keys.now.Bytes()} {
		found, err := n.mem.Contains(needle)
		n.w.must(err)
		if found {
			n.w.violated("I11: %s is in clear on the disk of %s", what, n.name)
		}
	}
}

// wipe loses the disk.
func (n *node) wipe() {
	n.mem.Close()
	n.mem, n.older = vfs.NewMem(), nil
	n.disk.flipped = false
	n.watch = watch{}
	n.keys = newKeyring()
}

// prepare makes the empty store of a manager that joins, and reports whether it is done: the manager may crash while it is at it.
func (n *node) prepare(joined *joinResponse) bool {
	if _, _, err := store.Inspect(n.mem, dataDir); err == nil {
		return true // the crash came when it was done
	}
	n.dieSoon(0.3, 60)
	err := store.Prepare(n.store(), cluster, joined)
	switch {
	case n.disk.dead:
		n.stop(true)
		return false
	case err != nil && !n.disk.failing():
		n.w.violated("%s can't prepare its store: %v", n.name, err)
	}
	n.disk.dieIn = 0
	return err == nil
}

// dieSoon makes a manager, with some probability, lose power at one of the next operations on its disk.
func (n *node) dieSoon(p float64, within int) {
	if n.disk.dieIn == 0 && !n.w.calm && n.w.chance(p) {
		n.disk.dieIn = 1 + n.w.rng.IntN(within)
	}
}
