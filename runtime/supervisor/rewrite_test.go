package supervisor_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/client"
	"github.com/skep-io/skep/runtime/thread"
)

// seen gives what a container has in a file: its text, mode, and owner on the host.
func (n *node) seen(pid int, path string) string {
	n.Helper()
	path = fmt.Sprintf("/proc/%d/root%s", pid, path)
	info, err := os.Stat(path)
	if err != nil {
		n.Fatal(err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		n.Fatal("no owner")
	}
	return fmt.Sprintf("%s %v %d:%d", n.file("%s", path), info.Mode(), owner.Uid, owner.Gid)
}

// inNamespace runs f on a thread in the mount namespace of a process.
func inNamespace(t *testing.T, pid int, f func() error) {
	t.Helper()
	done := make(chan error)
	thread.Go(func() {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = errors.Join(unix.Unshare(unix.CLONE_FS), unix.Setns(fd, unix.CLONE_NEWNS), unix.Close(fd))
		}
		if err == nil {
			err = f()
		}
		done <- err
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func secretFiles(version string) []client.File {
	return []client.File{
		{Dir: "/run/secrets", Name: "key", Data: client.Secret("key " + version), Mode: 0o400, UID: 3, GID: 4},
		{Dir: "/link", Name: "conf", Data: client.Secret("conf " + version), Mode: 0o640, GID: 5, Single: true},
	}
}

// A file with a new content is the old one in all else, also when another supervisor has taken over: its owner, its mode, that the container
// can't write it, and that there is one mount for it (from Linux 6.5 on; before, former ones are below it, until the container ends).
func TestRewrite_ChangesTheContentAlone(t *testing.T) {
	n := newNode(t)
	if err := errors.Join(os.Mkdir(n.layer+"/etc/app", 0o755), os.WriteFile(n.layer+"/etc/app/other", []byte("other"), 0o644),
		os.Symlink("etc/app", n.layer+"/link")); err != nil {
		t.Fatal(err)
	}
	r := n.request("c", "wait")
	r.Files = append(secretFiles("1"), client.File{Dir: "/run/secrets", Name: "stays", Data: client.Secret("stays")})
	pid := n.begin(r).Pid
	n.awaitLine("c", "waiting")
	look := func() []string {
		return []string{n.seen(pid, "/run/secrets/key"), n.seen(pid, "/etc/app/conf"), n.seen(pid, "/run/secrets/stays"), n.seen(pid, "/etc/app/other")}
	}
	shown := func() (lines []string) {
		for line := range strings.Lines(n.file("/proc/%d/mountinfo", pid)) {
			if strings.Contains(line, "skep-files-") {
				f := strings.Fields(line)
				lines = append(lines, f[3]+" "+f[4]+" "+f[5]) // what is shown, where, and how
			}
		}
		slices.Sort(lines)
		return lines
	}
	before, table := look(), shown()
	if len(table) != 2 || !strings.Contains(table[0], "ro,") || !strings.Contains(table[1], "ro,") {
		t.Fatalf("mounts are %q", table)
	}
	for _, version := range []string{"2", "3", "4"} {
		if version == "4" {
			n.end()
			n.run()
		}
		if err := n.Rewrite(t.Context(), "c", secretFiles(version)); err != nil {
			t.Fatal(err)
		}
		want := []string{strings.Replace(before[0], "key 1", "key "+version, 1), strings.Replace(before[1], "conf 1", "conf "+version, 1), before[2], before[3]}
		if got := look(); !slices.Equal(got, want) {
			t.Errorf("after version %s: %q, want %q", version, got, want)
		}
	}
	got := shown()
	if !kernelHas(t, 6, 5) {
		got = slices.Compact(got)
	}
	if !slices.Equal(got, table) {
		t.Errorf("mounts are %q, were %q", got, table)
	}
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/root/run/secrets", pid))
	if err != nil || len(names) != 2 {
		t.Errorf("in the directory are %v, %v", names, err)
	}
}

// Whoever opens the file meanwhile has one of the contents, as a whole.
func TestRewrite_IsWhole(t *testing.T) {
	n := newNode(t)
	if err := os.Mkdir(n.layer+"/link", 0o755); err != nil {
		t.Fatal(err)
	}
	content := func(b byte) []client.File {
		files := secretFiles("")
		for i := range files {
			files[i].Data = slices.Repeat([]byte{b}, 300_000)
		}
		return files
	}
	r := n.request("c", "wait")
	r.Files = content('a')
	pid := n.begin(r).Pid
	n.awaitLine("c", "waiting")
	done := make(chan error)
	go func() {
		for i := range 20 {
			if err := n.Rewrite(t.Context(), "c", content("ab"[i%2])); err != nil {
				done <- err
				return
			}
		}
		close(done)
	}()
	read := 0
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			if read == 0 {
				t.Error("nothing was read")
			}
			return
		default:
		}
		for _, path := range []string{"run/secrets/key", "link/conf"} {
			text, err := os.ReadFile(filepath.Join(fmt.Sprintf("/proc/%d/root", pid), path))
			if err != nil || len(text) != 300_000 || strings.Trim(string(text), string(text[:1])) != "" {
				t.Fatalf("%s has %d bytes, %v", path, len(text), err)
			}
			read++
		}
	}
}

// What isn't the supervisor's own file system isn't written to, and what can't be found is an error.
func TestRewrite_Refuses(t *testing.T) {
	n := newNode(t)
	if err := os.Mkdir(n.layer+"/link", 0o755); err != nil {
		t.Fatal(err)
	}
	r := n.request("c", "wait")
	r.Files = secretFiles("1")
	pid := n.begin(r).Pid
	n.awaitLine("c", "waiting")
	for name, files := range map[string][]client.File{
		"another directory":  {{Dir: "/tmp", Name: "key", Data: client.Secret("x")}},
		"one that is single": {{Dir: "/link", Name: "conf", Data: client.Secret("x")}},
	} {
		if err := n.Rewrite(t.Context(), "c", files); !errors.Is(err, client.ErrState) {
			t.Errorf("%s: %v, want ErrState", name, err)
		}
	}
	for name, file := range map[string]client.File{
		"a path as a name": {Dir: "/run/secrets", Name: "../x"},
		"the draft":        {Dir: "/run/secrets", Name: ".skep-draft"},
		"of nobody":        {Dir: "/run/secrets", Name: "key", UID: 1 << 30},
	} {
		if err := n.Rewrite(t.Context(), "c", []client.File{file}); !errors.Is(err, client.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	// Something is mounted over both, as a container can that may mount.
	inNamespace(t, pid, func() error {
		return errors.Join(unix.Mount("x", "/run/secrets", "tmpfs", 0, ""), unix.Mount("/inside", "/link/conf", "", unix.MS_BIND, ""))
	})
	for _, f := range secretFiles("2") {
		if err := n.Rewrite(t.Context(), "c", []client.File{f}); !errors.Is(err, client.ErrState) {
			t.Errorf("%s under another mount: %v, want ErrState", f.Name, err)
		}
	}
	if names, err := os.ReadDir(fmt.Sprintf("/proc/%d/root/run/secrets", pid)); err != nil || len(names) > 0 {
		t.Errorf("written where it doesn't belong: %v, %v", names, err)
	}
	inNamespace(t, pid, func() error { return unix.Unmount("/run/secrets", 0) })
	if got := n.seen(pid, "/run/secrets/key"); !strings.HasPrefix(got, "key 1 ") {
		t.Errorf("what was hidden is %q", got)
	}
	if err := n.Kill(t.Context(), "c", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.await("c", client.EventExited)
	if err := n.Rewrite(t.Context(), "c", secretFiles("2")); !errors.Is(err, client.ErrState) {
		t.Errorf("a container that has ended: %v, want ErrState", err)
	}
}

// kernelHas reports whether the kernel is of a version or later.
func kernelHas(t *testing.T, major, minor int) bool {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	var has [2]int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &has[0], &has[1]); err != nil {
		t.Fatal(err)
	}
	return slices.Compare(has[:], []int{major, minor}) >= 0
}
