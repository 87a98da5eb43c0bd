package launch

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What a container's first process has of the host's memory before it runs its program comes from the forker: not from the process that
// knows all containers.
func TestForker_ForksForItsParent(t *testing.T) {
	secret := []byte("known to the parent only")
	for name, knows := range map[string]bool{"forker": false, "control": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if knows {
				b.launcher.forker = nil
			}
			p, err := b.create(nil)
			if err != nil {
				t.Fatal(err)
			}
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
			if err != nil || !strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", os.Getpid())) {
				t.Errorf("the container's process is not ours to wait for: %v\n%s", err, status)
			}
			mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", p.Pid()))
			if err != nil {
				t.Fatal(err)
			}
			defer mem.Close()
			found := make([]byte, len(secret))
			_, err = mem.ReadAt(found, int64(uintptr(unsafe.Pointer(&secret[0]))))
			if got := err == nil && bytes.Equal(found, secret); got != knows {
				t.Errorf("the waiting process has %q, %v where its parent has %q", found, err, secret)
			}
		})
	}
}

// What one container's table had is not in the memory of the next one's first process.
func TestForker_ForgetsTables(t *testing.T) {
	b := newBench(t)
	const value = "SECRET=of another container"
	first := *b
	t.Run("first", func(t *testing.T) {
		first.t = t
		if _, err := first.create(func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, value) }); err != nil {
			t.Fatal(err)
		}
	})
	p, err := b.create(nil)
	if err != nil {
		t.Fatal(err)
	}
	forker := b.launcher.forker
	forker.rest(t)
	for name, want := range map[string]int{"the next process": p.Pid(), "the forker": forker.cmd.Process.Pid} {
		mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", want))
		if err != nil {
			t.Fatal(err)
		}
		defer mem.Close()
		tables := make([]byte, regions*regionSize)
		if n, err := mem.ReadAt(tables, int64(uintptr(forker.base))); n == 0 {
			t.Errorf("%s: %v", name, err)
		}
		if bytes.Contains(tables, []byte(value)) {
			t.Errorf("%s remembers what another container was given", name)
		}
		if got := bytes.Contains(tables, []byte("/none")); got != (name == "the next process") { // control
			t.Errorf("%s: its own table is there: %t", name, got)
		}
	}
}

// rest waits until the forker has nothing to do: it answers when it has forgotten what was before.
func (f *Forker) rest(t *testing.T) {
	t.Helper()
	none := &table{region: &region{index: regions}}
	if _, _, err := f.fork(none, control, offspring{group: -1, within: -1}, nil); !errors.Is(err, unix.EBADMSG) {
		t.Fatalf("a request without a table: %v", err)
	}
}

// A forker that is killed costs no container.
func TestForker_IsReplacedWhenItDies(t *testing.T) {
	b := newBench(t)
	forker := b.launcher.forker
	for round := range 3 {
		t.Run(strconv.Itoa(round), func(t *testing.T) {
			before := forker.cmd.Process.Pid
			if err := unix.Kill(before, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			inner := *b
			inner.t = t
			if _, err := inner.create(nil); err != nil {
				t.Fatal(err)
			}
			if after := forker.cmd.Process.Pid; after == before {
				t.Error("the dead forker was not replaced")
			}
			if n := len(forker.free.regions); n != regions {
				t.Errorf("%d of %d regions are free", n, regions)
			}
		})
	}
}

func TestForker_CantBeStarted(t *testing.T) {
	f, err := NewForker([]string{"/none"}, slog.New(slog.DiscardHandler))
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, %v", f, err)
	}
}

// A table that has no room in a region is refused.
func TestForker_TablesHaveRoom(t *testing.T) {
	b := newBench(t)
	for name, write := range map[string]func(*table){
		"arguments, environment and mounts of more than": func(t *table) { t.call("exec", unix.SYS_EXECVE, t.str(strings.Repeat("x", regionSize))) },
		"a table of more than 8192 steps": func(t *table) {
			for range maxSteps + 1 {
				t.call("step", unix.SYS_GETPID)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			table := newTable(b.launcher.forker.take())
			write(table)
			if err := table.sealed(); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("got %v", err)
			}
			table.release()
			if n := len(b.launcher.forker.free.regions); n != regions {
				t.Errorf("%d of %d regions are free", n, regions)
			}
		})
	}
}

// What a child says before it ends is heard, however close the end comes: else a program that could not be run would pass for one that runs.
func TestReceive_TheLastWordComesBeforeTheEnd(t *testing.T) {
	for range 20_000 { // the kernel tells the end first now and then
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		said := make(chan error, 1)
		go func() {
			_, err := unix.Write(pair[1], []byte{1})
			unix.Close(pair[1])
			said <- err
		}()
		n, err := 0, error(unix.EAGAIN)
		for errors.Is(err, unix.EAGAIN) {
			n, _, err = receive(pair[0], make([]byte, 2), nil, 0)
		}
		unix.Close(pair[0])
		if err = errors.Join(err, <-said); n != 1 || err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
	}
}
