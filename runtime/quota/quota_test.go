package quota

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// project is unlike those of containers that may be on the same disk.
const project = 1<<31 - 7

// disk gives a directory where projects can be bounded.
func disk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := Check(dir); err != nil {
		t.Skipf("needs root and a file system with project quotas at TMPDIR: %v", err)
	}
	return dir
}

func TestCheck_SaysWhatIsMissing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("skep-test", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	want := "the file system of " + dir + " (tmpfs) has no project quotas in force: it takes ext4 or xfs, mounted with the option prjquota"
	if err := Check(dir); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := os.Mkdir(filepath.Join(dir, "upper"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Bound(project, 1<<20, filepath.Join(dir, "upper")); !errors.Is(err, ErrUnsupported) {
		t.Errorf("bound where it can't be: %v", err)
	}
}

func TestBound_RefusesWhatBelongsToAll(t *testing.T) {
	for _, err := range []error{Bound(0, 1<<20, t.TempDir()), Bound(project, 0, t.TempDir())} { // I2
		if err == nil {
			t.Error("bounded all files of the disk, or to nothing")
		}
	}
}

func TestBound_CountsAllBelow(t *testing.T) {
	dir := disk(t)
	one, two, other := filepath.Join(dir, "one"), filepath.Join(dir, "two"), filepath.Join(dir, "other")
	for _, d := range []string{one, two, other} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := Bound(project, 1<<20, one, two); err != nil {
		t.Fatal(err)
	}
	// Who may use more than all others, as root may, is not held to quotas: overlayfs isn't that, and so neither is this.
	hold(t)
	chunk := make([]byte, 64<<10)
	written := 0
	var err error
	for ; err == nil && written < 32; written++ {
		sub := filepath.Join([]string{one, two}[written%2], "sub")
		if err = os.MkdirAll(sub, 0o700); err == nil {
			err = os.WriteFile(filepath.Join(sub, fmt.Sprint(written)), chunk, 0o600)
		}
	}
	if !errors.Is(err, unix.EDQUOT) || written < 10 || written > 17 {
		t.Errorf("%d chunks of 64 KiB within 1 MiB, then %v", written, err)
	}
	if err := os.WriteFile(filepath.Join(other, "f"), make([]byte, 2<<20), 0o600); err != nil {
		t.Errorf("beside them: %v", err)
	}
	if err := Forget(project, dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(one, "more"), chunk, 0o600); err != nil {
		t.Errorf("without the limit: %v", err)
	}
}

// hold takes the capability away by which root is above quotas, from the test's thread, until the test ends.
func hold(t *testing.T) {
	t.Helper()
	const bit = uint32(1) << unix.CAP_SYS_RESOURCE
	set := func(change func(uint32) uint32) {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			t.Fatal(err)
		}
		data[0].Effective = change(data[0].Effective)
		if err := unix.Capset(&header, &data[0]); err != nil {
			t.Fatal(err)
		}
	}
	runtime.LockOSThread()
	set(func(caps uint32) uint32 { return caps &^ bit })
	t.Cleanup(func() {
		set(func(caps uint32) uint32 { return caps | bit })
		runtime.UnlockOSThread()
	})
}
