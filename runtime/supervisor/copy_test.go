package supervisor_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/runtime/client"
	"github.com/skep-io/skep/runtime/protocol"
)

// copyFrom gives what is at a path of a container, as "name=text", "name/" and "name -> to", and what was said.
func (n *node) copyFrom(id string, r client.CopyRequest) (map[string]string, []client.CopyNote) {
	n.Helper()
	r.From = true
	e := n.copier(id, r)
	code, stdout, stderr := n.ended(e)
	notes := decodeNotes(n, stderr)
	if (code == 0) != (len(notes) == 0 || notes[len(notes)-1].Error == "") {
		n.Errorf("code %d, said %v", code, notes)
	}
	files := map[string]string{}
	for in := tar.NewReader(strings.NewReader(stdout)); ; {
		h, err := in.Next()
		if err != nil {
			if code == 0 && !errors.Is(err, io.EOF) {
				n.Error(err)
			}
			return files, notes
		}
		text, err := io.ReadAll(in)
		if err != nil {
			n.Fatal(err)
		}
		switch h.Typeflag {
		case tar.TypeDir:
			files[h.Name] = "directory"
		case tar.TypeSymlink:
			files[h.Name] = "to " + h.Linkname
		default:
			files[h.Name] = string(text)
		}
	}
}

func (n *node) copier(id string, r client.CopyRequest) *client.Exec {
	n.Helper()
	e, err := n.Copy(n.Context(), id, r)
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(e.Close)
	return e
}

func decodeNotes(t testing.TB, text string) []client.CopyNote {
	t.Helper()
	var out []client.CopyNote
	for line := range strings.Lines(text) {
		out = append(out, decode[client.CopyNote](t, line))
	}
	return out
}

// copyTo sends one file, and gives what was said.
func (n *node) copyTo(id string, r client.CopyRequest, h tar.Header, text string) []client.CopyNote {
	n.Helper()
	e := n.copier(id, r)
	w := tar.NewWriter(e.Stdin)
	h.Size = int64(len(text))
	err := w.WriteHeader(&h)
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	if err = errors.Join(err, w.Close(), e.Stdin.Close()); err != nil && !errors.Is(err, syscall.EPIPE) {
		n.Fatal(err)
	}
	code, _, stderr := n.ended(e)
	notes := decodeNotes(n, stderr)
	if (code == 0) != (len(notes) == 0 || notes[len(notes)-1].Error == "") {
		n.Errorf("code %d, said %v", code, notes)
	}
	return notes
}

func newCopyNode(t *testing.T) *node {
	t.Helper()
	n := prepare(t)
	n.cfg.Copier = filepath.Join(programs, "skep-runtime")
	n.run()
	n.arm(0o755)
	return n
}

func TestCopy_SeesWhatTheContainerSees(t *testing.T) {
	n := newCopyNode(t)
	shared, mount := n.shared("/data")
	if err := errors.Join(os.WriteFile(shared+"/v", []byte("of the volume"), 0o600), os.Chown(shared+"/v", 0, 0),
		os.Symlink("../run/secrets/key", shared+"/l"), os.Mkdir(n.layer+"/etc/d", 0o755)); err != nil {
		t.Fatal(err)
	}
	mount.Options = append(mount.Options, "idmap")
	r := n.request("c", "wait")
	r.Spec.Mounts = append(r.Spec.Mounts, mount)
	r.Files = []client.File{{Dir: "/run/secrets", Name: "key", Data: client.Secret("s3cret"), Mode: 0o400}}
	n.begin(r)
	n.awaitLine("c", "waiting")
	for path, want := range map[string]map[string]string{
		"/run/secrets/key": {"key": "s3cret"},
		"run/secrets/":     {"secrets/": "directory", "secrets/key": "s3cret"},
		"/data/v":          {"v": "of the volume"},
		"/data/l":          {"l": "to ../run/secrets/key"},
		"/etc/d":           {"d/": "directory"},
		"/etc/d/.":         {"./": "directory"},
		"/data/../etc/d":   {"d/": "directory"},
	} {
		if got, notes := n.copyFrom("c", client.CopyRequest{Path: path}); !maps.Equal(got, want) || len(notes) > 0 {
			t.Errorf("%s: %v, said %v", path, got, notes)
		}
	}
	if got, _ := n.copyFrom("c", client.CopyRequest{Path: "/data/l", Follow: true}); got["l"] != "s3cret" {
		t.Errorf("following a link: %v", got)
	}
	for path, kind := range map[string]string{
		"/no": protocol.CopyNotFound, "/data/v/": protocol.CopyInvalid, "/dev/null": protocol.CopyInvalid, "/proc/1/root/etc": "", "/proc/1/fd/1": "",
	} {
		_, notes := n.copyFrom("c", client.CopyRequest{Path: path})
		if len(notes) != 1 || notes[0].Error == "" || notes[0].Kind != kind {
			t.Errorf("%s: said %+v, want kind %q", path, notes, kind)
		}
	}
	// What the kernel makes up is left out of what it is mounted in.
	got, notes := n.copyFrom("c", client.CopyRequest{Path: "/"})
	if got["./data/v"] == "" || got["./proc/version"] != "" || len(notes) == 0 {
		t.Errorf("the whole: %d files, said %v", len(got), notes)
	}
}

func TestCopy_WritesAsTheContainersRoot(t *testing.T) {
	n := newCopyNode(t)
	pid := n.waiter("c").Pid
	r := client.CopyRequest{Path: "/dev/shm/"}
	if notes := n.copyTo("c", r, tar.Header{Name: "f", Mode: 0o4750, Uid: 7, Gid: 8}, "text"); notes != nil {
		t.Fatal(notes)
	}
	r.Owner = true
	if notes := n.copyTo("c", r, tar.Header{Name: "g", Mode: 0o4750, Uid: 7, Gid: 8}, "text"); notes != nil {
		t.Fatal(notes)
	}
	base := hostID(n, pid)
	for name, want := range map[string]string{
		"f": fmt.Sprintf("%d %d -rwxr-x---", base, base), "g": fmt.Sprintf("%d %d urwxr-x---", base+7, base+8),
	} {
		info, err := os.Stat(fmt.Sprintf("/proc/%d/root/dev/shm/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		if got := fmt.Sprintf("%d %d %v", st.Uid, st.Gid, info.Mode()); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	for path, want := range map[string]client.CopyNote{
		"/etc/x":                    {Error: "read-only file system"},
		"/no/x":                     {Error: "no such file", Kind: protocol.CopyNotFound},
		"/dev/shm/n/":               {Error: "there is no directory", Kind: protocol.CopyInvalid},
		"/proc/sys/kernel/hostname": {Error: "read-only file system"},
	} {
		notes := n.copyTo("c", client.CopyRequest{Path: path}, tar.Header{Name: "f", Mode: 0o644}, "h")
		if len(notes) != 1 || notes[0].Kind != want.Kind || notes[0].Error == "" || !strings.Contains(notes[0].Error, want.Error) {
			t.Errorf("%s: said %+v, want %+v", path, notes, want)
		}
	}
	// A device is made by nobody, whatever comes.
	device := tar.Header{Name: "d", Typeflag: tar.TypeChar}
	if notes := n.copyTo("c", client.CopyRequest{Path: "/dev/shm", Extract: true, Owner: true}, device, ""); len(notes) != 1 || notes[0].Warning == "" {
		t.Errorf("a device: said %v", notes)
	}
	if _, err := os.Lstat(fmt.Sprintf("/proc/%d/root/dev/shm/d", pid)); err == nil {
		t.Error("a device was made")
	}
}

// hostID is the host's number of a container's root.
func hostID(n *node, pid int) int {
	n.Helper()
	var inside, outside, size int
	if _, err := fmt.Sscan(n.file("/proc/%d/uid_map", pid), &inside, &outside, &size); err != nil {
		n.Fatal(err)
	}
	return outside
}

func TestCopy_PausedAndEnded(t *testing.T) {
	n := newCopyNode(t)
	n.waiter("c")
	if err := n.Pause(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	if notes := n.copyTo("c", client.CopyRequest{Path: "/dev/shm/x"}, tar.Header{Name: "f", Mode: 0o644}, "text"); notes != nil {
		t.Fatal(notes)
	}
	if got, _ := n.copyFrom("c", client.CopyRequest{Path: "/dev/shm/x"}); got["x"] != "text" {
		t.Errorf("from a paused container: %v", got)
	}
	waiting := n.copier("c", client.CopyRequest{Path: "/dev/shm/y"})
	if err := n.KillAll(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	n.await("c", client.EventExited)
	if code, err := waiting.Wait(t.Context()); code != 137 || err != nil {
		t.Errorf("a copy goes on when its container has ended: %d, %v", code, err)
	}
	for _, r := range []client.CopyRequest{{Path: "/x"}, {Path: "/x", From: true}} {
		if _, err := n.Copy(t.Context(), "c", r); !errors.Is(err, client.ErrState) {
			t.Errorf("%+v of what has ended: %v", r, err)
		}
		if _, err := n.Copy(t.Context(), "d", r); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("%+v of what is not: %v", r, err)
		}
	}
	for _, path := range []string{"", "a\x00b", strings.Repeat("x", protocol.MaxPath+1)} {
		if _, err := n.Copy(t.Context(), "c", client.CopyRequest{Path: path}); !errors.Is(err, client.ErrInvalid) {
			t.Errorf("%.10q: %v", path, err)
		}
	}
}

func TestCopy_EndsWithItsClient(t *testing.T) {
	n := newCopyNode(t)
	n.waiter("c")
	e := n.copier("c", client.CopyRequest{Path: "/dev/shm/y"})
	e.Close()
	n.until("the copying process ended", func() bool { return syscall.Kill(e.Pid, 0) != nil })
}

// TestAttack_TheCopyingProcessCantBeReached looks at the process from outside and inside.
func TestAttack_TheCopyingProcessCantBeReached(t *testing.T) {
	n := newCopyNode(t)
	pid := n.waiter("c").Pid
	e := n.copier("c", client.CopyRequest{Path: "/dev/shm/y"})
	n.until("the copying process runs its program", func() bool {
		return strings.Contains(n.file("/proc/%d/cmdline", e.Pid), "skep-runtime\x00copy")
	})
	link := func(pid int, name string) string {
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		return to
	}
	for name, same := range map[string]bool{"user": true, "mnt": true, "net": true, "ipc": true, "uts": true, "pid": false} {
		if got := link(pid, name) == link(e.Pid, name); got != same {
			t.Errorf("%s namespace shared: %v", name, got)
		}
	}
	status := map[string]string{}
	for line := range strings.Lines(n.file("/proc/%d/status", e.Pid)) {
		key, value, _ := strings.Cut(line, ":")
		status[key] = strings.TrimSpace(value)
	}
	for key, want := range map[string]string{
		"CapBnd": "000000000000001b", "CapEff": "000000000000001b", "CapPrm": "000000000000001b", "CapInh": "0000000000000000", "NoNewPrivs": "1",
	} {
		if status[key] != want {
			t.Errorf("%s is %q, want %q", key, status[key], want)
		}
	}
	if score := strings.TrimSpace(n.file("/proc/%d/oom_score_adj", e.Pid)); score != "500" {
		t.Errorf("OOM score %s", score)
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", e.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", e.Pid, fd.Name()))
		if !strings.HasPrefix(to, "pipe:") && to != "/" && !strings.HasPrefix(to, "anon_inode:") && !strings.HasPrefix(to, "/dev/shm") {
			t.Errorf("descriptor %s is %s", fd.Name(), to)
		}
	}
	list, err := n.Processes(t.Context(), "c")
	if err != nil || len(list) != 1 {
		t.Errorf("the container has the processes %v, %v", list, err)
	}
	e.Stdin.Close()
	n.ended(e)
}

// TestAttack_SwappedWhileCopying has the container exchange a directory of a shared volume for a link to a directory of the host, as
// fast as it can, while files are copied from there and to there. CVE-2018-15664 is that of Docker.
func TestAttack_SwappedWhileCopying(t *testing.T) {
	n := newCopyNode(t)
	shared, mount := n.shared("/data")
	host := filepath.Join(n.TempDir(), "host")
	if err := errors.Join(os.Mkdir(host, 0o777), os.Chmod(host, 0o777), os.WriteFile(host+"/x", []byte("of the host"), 0o644),
		os.Mkdir(shared+"/a", 0o777), os.Chmod(shared+"/a", 0o777), os.WriteFile(shared+"/a/x", []byte("of the container"), 0o644),
		os.Symlink(strings.Repeat("../", 20)+host, shared+"/b")); err != nil {
		t.Fatal(err)
	}
	r := n.attack("c", "swap", "/data/a", "/data/b")
	r.Spec.Mounts = append(r.Spec.Mounts, mount)
	n.begin(r)
	n.awaitLine("c", "ready")
	read := 0
	for i := range raceRounds {
		for _, path := range []string{"/data/a/x", "/data/a/", "/data"} {
			got, _ := n.copyFrom("c", client.CopyRequest{Path: path, Follow: i%2 == 0})
			for name, text := range got {
				if text == "of the host" {
					t.Fatalf("%s: copied %s of the host", path, name)
				}
				if text == "of the container" {
					read++
				}
			}
		}
		n.copyTo("c", client.CopyRequest{Path: "/data/a/"}, tar.Header{Name: fmt.Sprint("f", i), Mode: 0o644}, "evil")
		n.copyTo("c", client.CopyRequest{Path: "/data/a/x"}, tar.Header{Name: "x", Mode: 0o644}, "of the container")
	}
	if diff := cmp.Diff([]string{"x"}, names(t, host)); diff != "" {
		t.Errorf("written on the host (-want +got):\n%s", diff)
	}
	if text, err := os.ReadFile(host + "/x"); string(text) != "of the host" {
		t.Errorf("%q, %v", text, err)
	}
	if read == 0 {
		t.Error("nothing was ever copied")
	}
	// The control: who looks first and opens then, on the host, is fooled.
	n.until("a naive copy fooled", func() bool {
		for range 1000 {
			if st, err := os.Lstat(shared + "/a"); err == nil && st.IsDir() {
				if text, err := os.ReadFile(shared + "/a/x"); err == nil && bytes.Equal(text, []byte("of the host")) {
					return true
				}
			}
		}
		return false
	})
	if err := n.KillAll(context.Background(), "c"); err != nil {
		t.Fatal(err)
	}
	n.await("c", client.EventExited)
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

// TestAttack_TheCopyingProcessInSharedNamespaces has the container see the node's processes, by a grant, and with that the process
// that copies. It runs as the container's root, but nobody with that id may look into it.
func TestAttack_TheCopyingProcessInSharedNamespaces(t *testing.T) {
	n := newCopyNode(t)
	r := n.request("c", "wait")
	share(&r, specs.PIDNamespace)
	n.begin(r)
	n.awaitLine("c", "waiting")
	copier := n.copier("c", client.CopyRequest{Path: "/dev/shm/y"})
	n.until("the copying process has begun", func() bool { // it opens its root when it has protected itself
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", copier.Pid))
		return slices.ContainsFunc(fds, func(fd string) bool { to, err := os.Readlink(fd); return err == nil && to == "/" })
	})
	own := n.exec("c", client.ExecRequest{}, "wait")
	for pid, want := range map[int]string{copier.Pid: "permission denied", own.Pid: "ok"} {
		path := fmt.Sprintf("/proc/%d/mem", pid)
		e, err := n.Exec(t.Context(), "c", client.ExecRequest{Args: []string{"/attacker", "open", path}})
		if err != nil {
			t.Fatal(err)
		}
		_, text, _ := n.ended(e)
		e.Close()
		if got := decode[map[string]string](t, text); got[path] != want {
			t.Errorf("%s is %q, want %q", path, got[path], want)
		}
	}
	copier.Stdin.Close()
	n.ended(copier)
}

// TestAttack_ACopyIntoTheNodesOwnIDs is about a container that has the node's user ids, by a grant: then its capabilities count on the
// node, and a copy has none that the container has not.
func TestAttack_ACopyIntoTheNodesOwnIDs(t *testing.T) {
	n := newCopyNode(t)
	r := n.request("c", "wait")
	share(&r, specs.UserNamespace)
	caps := []string{"CAP_CHOWN", "CAP_NET_RAW"}
	r.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	n.begin(r)
	n.awaitLine("c", "waiting")
	e := n.copier("c", client.CopyRequest{Path: "/dev/shm/y"})
	if status := n.file("/proc/%d/status", e.Pid); !strings.Contains(status, "CapBnd:\t0000000000000001\n") || !strings.Contains(status, "CapPrm:\t0000000000000001\n") {
		t.Errorf("the copying process has more than the container:\n%s", status)
	}
	e.Stdin.Close()
	n.ended(e)
}
