package overlay

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/internal/disktest"
)

// unsynced gives how many pages of a file are still to be written to the disk.
func unsynced(t *testing.T, f *os.File) uint64 {
	t.Helper()
	var stat unix.Cachestat_t
	err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &stat, 0)
	if errors.Is(err, unix.ENOSYS) {
		t.Skip("needs cachestat(2), kernel 6.5")
	}
	if err != nil {
		t.Fatal(err)
	}
	return stat.Dirty
}

// writable gives layers with one to write to, on the disk.
func writable(t *testing.T) (dir string, l Layers) {
	t.Helper()
	dir = t.TempDir()
	return dir, writableOn(t, dir)
}

// writableOn gives layers of which the one to write to is on a certain disk.
func writableOn(t *testing.T, disk string) Layers {
	t.Helper()
	l := Layers{Lower: []string{t.TempDir()}, Upper: disk + "/upper", Work: disk + "/work", UserNS: -1}
	write(t, l.Lower[0]+"/a", "a")
	for _, p := range []string{l.Upper, l.Work} {
		if err := os.Mkdir(p, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// The last unmount of an overlay writes all of the disk that its writable layer is on, if it is not told otherwise: whoever waited for the
// disk meanwhile, as a manager does that commits, waited for what anybody else had written.
func TestMount_ItsEndDoesNotSyncTheDisk(t *testing.T) {
	for name, d := range drivers(t) {
		t.Run(name, func(t *testing.T) {
			dir, l := writable(t)
			file, err := os.Create(dir + "/of-somebody-else")
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			left := uint64(0)
			for range 5 { // something else on this machine may sync in just that moment
				if _, err := file.WriteAt(make([]byte, 1<<20), 0); err != nil {
					t.Fatal(err)
				}
				fd, err := d.Mount(l)
				if err != nil {
					t.Fatal(err) // the second time: the same layers can be mounted again
				}
				write(t, procPath(fd)+"/new", "changed")
				unix.Close(fd)
				if left = unsynced(t, file); left > 0 {
					break
				}
			}
			if left == 0 {
				t.Error("the end of a mount has synced the whole disk")
			}
			if err := file.Sync(); err != nil {
				t.Fatal(err)
			}
			if unsynced(t, file) > 0 {
				t.Skip("needs a temporary directory on a disk: what is in memory is never synced")
			}
		})
	}
}

func TestMount_TakesAWritableLayerAgain(t *testing.T) {
	for name, d := range drivers(t) {
		t.Run(name, func(t *testing.T) {
			_, l := writable(t)
			for _, text := range []string{"first", "second"} {
				fd, err := d.Mount(l)
				if err != nil {
					t.Fatal(err)
				}
				write(t, procPath(fd)+"/a", text)
				unix.Close(fd)
				if got, err := os.ReadFile(l.Upper + "/a"); err != nil || string(got) != text {
					t.Errorf("the layer has %q, %v; want %q", got, err, text)
				}
			}
		})
	}
}

// An error of the disk is the kernel's reason to mount no volatile layer on it until somebody has taken notice, and goes away with nothing else:
// a node would start no container any more.
func TestMount_AfterTheDiskHadAnError(t *testing.T) {
	for name, d := range drivers(t) {
		t.Run(name, func(t *testing.T) {
			disk := disktest.New(t)
			file, err := os.Create(disk.Dir + "/of-somebody-else")
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			_, err = file.Write(make([]byte, 24<<20))
			if err := errors.Join(err, file.Sync()); err == nil {
				t.Fatal("a full disk takes what is written")
			}
			disk.Heal()
			write(t, mount(t, d, writableOn(t, disk.Dir))+"/new", "written")
		})
	}
}
