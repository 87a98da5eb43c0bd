package memfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func newFS(t *testing.T, size int64) *FS {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	f, err := New(size, 0o755, 1000, 1001)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func TestFS_HoldsFilesInMemoryReadOnly(t *testing.T) {
	f := newFS(t, 100)
	if err := f.Write("key", []byte("s3cret"), 0o440, 7, 8); err != nil {
		t.Fatal(err)
	}
	if err := f.Seal(); err != nil {
		t.Fatal(err)
	}
	dir := fmt.Sprintf("/proc/self/fd/%d", f.FD())
	if got, err := os.ReadFile(dir + "/key"); err != nil || string(got) != "s3cret" {
		t.Errorf("content %q, %v", got, err)
	}
	st, err := os.Stat(dir + "/key")
	if err != nil {
		t.Fatal(err)
	}
	if sys := st.Sys().(*syscall.Stat_t); st.Mode().Perm() != 0o440 || sys.Uid != 7 || sys.Gid != 8 {
		t.Errorf("mode %v, owner %d:%d", st.Mode(), sys.Uid, sys.Gid)
	}
	if err := os.WriteFile(dir+"/key", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write after Seal: %v, want EROFS", err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(f.FD(), &fs); err != nil || (fs.Type != unix.TMPFS_MAGIC && fs.Type != unix.RAMFS_MAGIC) {
		t.Errorf("file system type %#x, %v", fs.Type, err)
	}
}

func TestFS_StaysWhereItIsAttached(t *testing.T) {
	f, dir := newFS(t, 100), t.TempDir()
	if err := f.Attach(dir); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := os.WriteFile(dir+"/key", []byte("s3cret"), 0o400); err != nil {
		t.Error(err)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("after the end of the mount: %v, %v", left, err)
	}
}

func TestFS_Refuses(t *testing.T) {
	f := newFS(t, 4)
	for _, name := range []string{"", ".", "..", "a/b", "a\x00"} {
		if err := f.Write(name, nil, 0o400, 0, 0); !errors.Is(err, ErrName) {
			t.Errorf("Write(%q): %v, want ErrName", name, err)
		}
	}
	if err := f.Write("big", []byte("12345"), 0o400, 0, 0); !errors.Is(err, ErrFull) {
		t.Errorf("5 bytes into 4: %v, want ErrFull", err)
	}
	if err := f.Write("a", []byte("1234"), 0o400, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Write("a", nil, 0o400, 0, 0); !errors.Is(err, os.ErrExist) {
		t.Errorf("second file of the same name: %v, want exists", err)
	}
	if err := f.Write("b", []byte("1"), 0o400, 0, 0); !errors.Is(err, ErrFull) {
		t.Errorf("fifth byte: %v, want ErrFull", err)
	}
}

// TestFS_SealsWhileOthersFork: a child that is forked between the opening of a file and its closing has it open, too.
func TestFS_SealsWhileOthersFork(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_ = exec.Command("/bin/true").Run()
			}
		})
	}
	data := make([]byte, 4<<20) // takes a while to write
	for i := range 100 {
		f, err := New(int64(len(data)), 0o755, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = errors.Join(f.Write("x", data, 0o444, 0, 0), f.Seal())
		f.Close()
		if err != nil {
			t.Errorf("round %d: %v", i, err)
			break
		}
	}
	stop()
	wg.Wait()
}
