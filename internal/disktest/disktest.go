// Package disktest makes disks for tests: file systems of their own, which can be filled, healed and frozen.
//
// A disk is there until its test ends, also when the test fails. A test is skipped where a disk can't be made, and says what is missing.
package disktest

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Disk is an ext4 file system on a loop device whose image is in memory.
type Disk struct {
	// Dir is where it is mounted.
	Dir    string
	t      testing.TB
	memory string
}

const (
	// size is how large the file system is, and memory what there is for it at first: less, and more than an empty one takes.
	size   = 64 << 20
	memory = "size=16m"
	healed = "size=128m"
)

// New makes a disk that can't write all that there seems to be room for, until Heal is called.
func New(t testing.TB) *Disk {
	t.Helper()
	for _, program := range []string{"mkfs.ext4", "mount", "umount", "fsfreeze"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s: %v", program, err)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a disk")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skipf("needs loop devices: %v", err)
	}
	d := &Disk{t: t}
	d.memory = d.mount("-t", "tmpfs", "-o", memory, "disktest")
	image := d.memory + "/image"
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, size)); err != nil {
		t.Fatal(err)
	}
	d.run("mkfs.ext4", "-q", "-F", image)
	d.Dir = d.mount("-o", "loop", image)
	return d
}

// Heal gives the disk room for all that is written to it.
func (d *Disk) Heal() {
	d.t.Helper()
	d.run("mount", "-o", "remount,"+healed, d.memory)
}

// Freeze has whoever writes to the disk wait until the returned function is called, or the test ends.
func (d *Disk) Freeze() (thaw func()) {
	d.t.Helper()
	d.run("fsfreeze", "-f", d.Dir)
	frozen := true
	thaw = func() {
		if frozen {
			frozen = false
			d.run("fsfreeze", "-u", d.Dir)
		}
	}
	d.t.Cleanup(thaw)
	return thaw
}

func (d *Disk) mount(args ...string) string {
	d.t.Helper()
	at := d.t.TempDir()
	d.run(append(append([]string{"mount"}, args...), at)...)
	d.t.Cleanup(func() { d.run("umount", "-l", at) }) // who began elsewhere meanwhile may have a copy for a moment
	return at
}

func (d *Disk) run(args ...string) {
	d.t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
}
