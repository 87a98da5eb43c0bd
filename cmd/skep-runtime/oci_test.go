package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// program is the built command.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "skep-runtime-test-")
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "skep-runtime")
	cmd := exec.Command("go", "build", "-o", out, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, text)
	}
	return out, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if p, err := program(); err == nil {
		os.RemoveAll(filepath.Dir(p))
	}
	os.Exit(code)
}

// engine calls the command as container engines do.
type engine struct {
	t                  *testing.T
	path, root, bundle string
	parent             string // control group
}

// busybox is the one program of the containers' root file systems.
const busybox = "/bin/busybox"

func newEngine(t *testing.T) *engine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make containers")
	}
	if _, err := os.Stat(busybox); err != nil {
		t.Skipf("needs the package busybox-static: %v", err)
	}
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{t: t, path: path, root: t.TempDir(), bundle: t.TempDir(), parent: fmt.Sprintf("/skep-oci-test-%d", os.Getpid())}
	bin := filepath.Join(e.bundle, "rootfs", "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(busybox)
	if err == nil {
		err = os.WriteFile(bin+"/busybox", data, 0o755)
	}
	for _, name := range []string{"sh", "cat", "sleep", "tty", "ls", "readlink", "env", "ps", "hostname"} {
		err = errors.Join(err, os.Symlink("busybox", filepath.Join(bin, name)))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, id := range []string{"c", "d"} {
			e.do(0, "delete", "--force", id)
		}
		removeParents(t, e.parent)
	})
	return e
}

// removeParents removes the control groups that the containers of a test had in common.
func removeParents(t *testing.T, parent string) {
	t.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/*" + parent, "/sys/fs/cgroup" + parent} {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range dirs {
			if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
				t.Errorf("%s: %v", dir, err)
			}
		}
	}
}

// configure writes the bundle's configuration: a shell that runs script, changed by edit.
func (e *engine) configure(script string, edit func(*specs.Spec)) {
	e.t.Helper()
	s := &specs.Spec{
		Version: specs.Version,
		Process: &specs.Process{Args: []string{"sh", "-c", script}, Cwd: "/", Env: []string{"PATH=/bin"}},
		Root:    &specs.Root{Path: "rootfs"},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "gid=5"}},
		},
		Annotations: map[string]string{"a": "b"},
		Linux: &specs.Linux{
			CgroupsPath: e.parent + "/c",
			Namespaces:  []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace}},
		},
	}
	if edit != nil {
		edit(s)
	}
	data, err := json.Marshal(s)
	if err == nil {
		err = os.WriteFile(e.bundle+"/config.json", data, 0o644)
	}
	if err != nil {
		e.t.Fatal(err)
	}
}

func (e *engine) command(args ...string) (*exec.Cmd, *bytes.Buffer) {
	var out bytes.Buffer
	cmd := exec.Command(e.path, append([]string{"--root", e.root}, args...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = e.bundle, &out, &out
	return cmd, &out
}

// do runs a command that ends with a status, and gives what it wrote.
func (e *engine) do(status int, args ...string) string {
	e.t.Helper()
	cmd, out := e.command(args...)
	var ended *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &ended) || cmd.ProcessState.ExitCode() != status {
		e.t.Errorf("%q: %v, want status %d: %s", args, err, status, out)
	}
	return out.String()
}

// create creates a container, with its output in a file: its process has it for longer than the command.
func (e *engine) create(id string, args ...string) (output string) {
	e.t.Helper()
	output = filepath.Join(e.t.TempDir(), "output")
	f, err := os.Create(output)
	if err != nil {
		e.t.Fatal(err)
	}
	defer f.Close()
	cmd, _ := e.command(append(append([]string{"create"}, args...), id)...)
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(output)
		e.t.Fatalf("create: %v: %s", err, text)
	}
	return output
}

func (e *engine) state(id string) specs.State {
	e.t.Helper()
	var s specs.State
	if text := e.do(0, "state", id); json.Unmarshal([]byte(text), &s) != nil {
		e.t.Fatalf("state: %s", text)
	}
	return s
}

// adopt makes the test the parent of processes whose parent is gone, as the shims of engines do.
func adopt(t *testing.T) {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
}

// reap waits for a container's process.
func reap(t *testing.T, pid int) unix.WaitStatus {
	t.Helper()
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatalf("wait for %d: %v", pid, err)
		}
		return status
	}
}

func TestOCI_ALifeInCommands(t *testing.T) {
	adopt(t)
	e := newEngine(t)
	said := filepath.Join(t.TempDir(), "said")
	if err := unix.Mkfifo(said, 0o600); err != nil {
		t.Fatal(err)
	}
	e.configure("echo it runs; : >/said; exec sleep 100", func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Type: "bind", Source: said, Destination: "/said", Options: []string{"bind"}})
	})
	pidFile := filepath.Join(t.TempDir(), "pid")
	output := e.create("c", "--bundle", e.bundle, "--pid-file", pidFile)
	s := e.state("c")
	if s.Status != specs.StateCreated || s.ID != "c" || s.Bundle != e.bundle || s.Annotations["a"] != "b" || s.Version != specs.Version {
		t.Errorf("state of a created container: %+v", s)
	}
	if text, err := os.ReadFile(pidFile); err != nil || string(text) != strconv.Itoa(s.Pid) {
		t.Errorf("pid file: %q, %v; the state says %d", text, err, s.Pid)
	}
	if text := e.do(1, "create", "c"); !strings.Contains(text, "container with given ID already exists") {
		t.Errorf("a second create says %s", text)
	}
	e.do(0, "start", "c")
	if s := e.state("c"); s.Status != specs.StateRunning {
		t.Errorf("state of a started container: %+v", s)
	}
	if _, err := os.ReadFile(said); err != nil { // waits for the program to open and close it
		t.Fatal(err)
	}
	if text := e.do(1, "start", "c"); !strings.Contains(text, "it is running, not created") {
		t.Errorf("a second start says %s", text)
	}
	if text := e.do(1, "delete", "c"); !strings.Contains(text, "cannot delete container c that is not stopped: running") {
		t.Errorf("delete says %s", text)
	}
	e.do(0, "kill", "c", "KILL")
	if status := reap(t, s.Pid); status.Signal() != unix.SIGKILL {
		t.Errorf("the process ended with %v", status)
	}
	if s := e.state("c"); s.Status != specs.StateStopped || s.Pid != 0 {
		t.Errorf("state of a killed container: %+v", s)
	}
	if text := e.do(1, "kill", "c", "9"); !strings.Contains(text, "container not running") { // what containerd looks for
		t.Errorf("kill of a stopped container says %s", text)
	}
	e.do(0, "delete", "c")
	if text := e.do(1, "state", "c"); !strings.Contains(text, "does not exist") { // what containerd looks for
		t.Errorf("state of a deleted container says %s", text)
	}
	e.do(0, "delete", "--force", "c")
	if text, err := os.ReadFile(output); err != nil || string(text) != "it runs\n" {
		t.Errorf("output %q, %v", text, err)
	}
}

func TestOCI_RunGivesTheStatusAndLeavesNothing(t *testing.T) {
	e := newEngine(t)
	e.configure("echo out; exit 7", nil)
	if out := e.do(7, "run", "c"); out != "out\n" {
		t.Errorf("output %q", out)
	}
	left, err := os.ReadDir(e.root)
	if err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestOCI_SaysWhyNot(t *testing.T) {
	e := newEngine(t)
	for name, tc := range map[string]struct {
		args   []string
		edit   func(*specs.Spec)
		status int
		want   string
	}{
		"systemd":    {[]string{"--systemd-cgroup", "run", "c"}, nil, 1, "set the engine's cgroup manager to cgroupfs"},
		"slices":     {[]string{"run", "c"}, func(s *specs.Spec) { s.Linux.CgroupsPath = "a.slice:b:c" }, 1, "is for the systemd driver"},
		"rootless":   {[]string{"--rootless", "true", "run", "c"}, nil, 1, "use runc or crun for rootless containers"},
		"no pivot":   {[]string{"run", "--no-pivot", "c"}, nil, 1, "could leave its root"},
		"no program": {[]string{"run", "c"}, func(s *specs.Spec) { s.Process.Args = []string{"dance"} }, 1, "exec dance: no such file or directory"},
		"no name":    {[]string{"run"}, nil, 2, "usage: skep-runtime [global flags] run"},
		"a path":     {[]string{"run", "../c"}, nil, 1, `container name "../c" is not of`},
		"no root":    {[]string{"run", "c"}, func(s *specs.Spec) { s.Root = nil }, 1, "root.path: is required"},
		"no bundle":  {[]string{"run", "--bundle", "/none", "c"}, nil, 1, "bundle /none has no config.json"},
		"no taker":   {[]string{"run", "--detach", "c"}, func(s *specs.Spec) { s.Process.Terminal = true }, 1, "--console-socket"},
		"a label":    {[]string{"run", "c"}, func(s *specs.Spec) { s.Linux.MountLabel = "x" }, 1, `linux.mountLabel: "x" is no label of SELinux`},
		"a hook": {[]string{"run", "c"}, func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: busybox, Args: []string{"sh", "-c", "echo no; exit 3"}}}}
		}, 1, "hook createRuntime[0] /bin/busybox: exit status 3: no"},
	} {
		t.Run(name, func(t *testing.T) {
			e := *e
			e.t = t
			e.configure("true", tc.edit)
			log := filepath.Join(t.TempDir(), "log")
			out := e.do(tc.status, append([]string{"--log", log, "--log-format", "json"}, tc.args...)...)
			if !strings.Contains(out, tc.want) {
				t.Errorf("it says %q, want %q in it", out, tc.want)
			}
			if tc.status != 1 {
				return
			}
			var entry struct{ Level, Msg string }
			text, err := os.ReadFile(log)
			if err != nil || json.Unmarshal(text, &entry) != nil || entry.Level != "error" || !strings.Contains(entry.Msg, tc.want) {
				t.Errorf("log: %s, %v", text, err)
			}
			if left, err := os.ReadDir(e.root); len(left) != 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

func TestOCI_HooksRunWhenAndWhereTheyShould(t *testing.T) {
	adopt(t)
	e := newEngine(t)
	trace := filepath.Join(t.TempDir(), "trace")
	hook := func(name string) []specs.Hook {
		script := fmt.Sprintf(`s=$(cat); s=${s#*\"status\":\"}; echo %s ${s%%%%\"*} $(hostname) >>%s`, name, trace)
		return []specs.Hook{{Path: busybox, Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin"}}}
	}
	// In the container there is no way to the trace but what it mounts.
	inside := `s=$(cat); s=${s#*\"status\":\"}; echo startContainer ${s%%\"*} $(hostname) >>/trace/trace`
	e.configure("exit 0", func(s *specs.Spec) {
		s.Hostname = "inside"
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/trace", Type: "bind", Source: filepath.Dir(trace), Options: []string{"bind"}})
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UTSNamespace})
		s.Hooks = &specs.Hooks{
			//lint:ignore SA1019 deprecated, but engines use it
			Prestart:      hook("prestart"),
			CreateRuntime: hook("createRuntime"), CreateContainer: hook("createContainer"),
			StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", inside}, Env: []string{"PATH=/bin"}}},
			Poststart:      hook("poststart"), Poststop: hook("poststop"),
		}
	})
	e.create("c")
	pid := e.state("c").Pid
	e.do(0, "start", "c")
	reap(t, pid)
	e.do(0, "delete", "c")
	name, err := exec.Command(busybox, "hostname").Output()
	if err != nil {
		t.Fatal(err)
	}
	host := strings.TrimSpace(string(name))
	want := fmt.Sprintf("prestart creating %s\ncreateRuntime creating %[1]s\ncreateContainer creating inside\nstartContainer created inside\n"+
		"poststart running %[1]s\npoststop stopped %[1]s\n", host)
	if text, err := os.ReadFile(trace); err != nil || string(text) != want {
		t.Errorf("hooks: %v\n%s\nwant\n%s", err, text, want)
	}
}

func TestOCI_HandsItsTerminalOver(t *testing.T) {
	adopt(t)
	e := newEngine(t)
	e.configure("tty", func(s *specs.Spec) { s.Process.Terminal = true })
	socket := filepath.Join(t.TempDir(), "console")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	terminal := make(chan *os.File, 1)
	go func() {
		defer close(terminal)
		conn, err := l.AcceptUnix()
		if err != nil {
			return
		}
		defer conn.Close()
		rights := make([]byte, unix.CmsgSpace(4))
		if _, n, _, _, err := conn.ReadMsgUnix(make([]byte, 64), rights); err == nil {
			if messages, err := unix.ParseSocketControlMessage(rights[:n]); err == nil && len(messages) == 1 {
				if fds, err := unix.ParseUnixRights(&messages[0]); err == nil {
					terminal <- os.NewFile(uintptr(fds[0]), "terminal")
				}
			}
		}
	}()
	e.create("c", "--console-socket", socket)
	main := <-terminal
	if main == nil {
		t.Fatal("no terminal came")
	}
	defer main.Close()
	pid := e.state("c").Pid
	e.do(0, "start", "c")
	out, err := io.ReadAll(main) // EIO is how a terminal ends
	if string(out) != "/dev/pts/0\r\n" || err != nil && !errors.Is(err, unix.EIO) {
		t.Errorf("output %q, %v", out, err)
	}
	reap(t, pid)
}

func TestOCI_PassesDescriptorsOnAndNoOthers(t *testing.T) {
	e := newEngine(t)
	e.configure("cat <&3; cat <&4; for f in /proc/self/fd/*; do readlink $f; done; true", nil)
	var files []*os.File
	for _, text := range []string{"three\n", "four\n", "five\n"} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := w.WriteString(text); err != nil {
			t.Fatal(err)
		}
		w.Close()
		files = append(files, r)
	}
	cmd, out := e.command("run", "--preserve-fds", "2", "c")
	cmd.ExtraFiles = files
	if err := cmd.Run(); err != nil || !strings.HasPrefix(out.String(), "three\nfour\n") || strings.Count(out.String(), "pipe:") != 4 {
		t.Errorf("%v: %s", err, out)
	}
}

func TestOCI_JoinsNamespacesAndMapsUsers(t *testing.T) {
	adopt(t)
	e := newEngine(t)
	e.configure("exec sleep 100", nil)
	e.create("c")
	first := e.state("c").Pid
	e.configure("readlink /proc/self/ns/net; cat /proc/self/uid_map; ls -ln /dev/null; cat /dev/null", func(s *specs.Spec) {
		s.Linux.CgroupsPath = e.parent + "/d"
		s.Linux.Namespaces[2].Path = fmt.Sprintf("/proc/%d/ns/net", first)
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 1000}}
		s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
	})
	for _, dir := range []string{"proc", "dev"} { // the root is not the container's to make directories in
		if err := os.MkdirAll(filepath.Join(e.bundle, "rootfs", dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	network, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", first))
	if err != nil {
		t.Fatal(err)
	}
	out := strings.Fields(e.do(0, "run", "d"))
	if got := strings.Join(out[:4], " "); got != network+" 0 200000 1000" {
		t.Errorf("got %q, want %s 0 200000 1000", out, network)
	}
	e.do(0, "delete", "--force", "c")
	reap(t, first)
}

// A paused container is told from a running one; it goes on where it was, and can be killed as it is.
func TestOCI_PauseHaltsUntilResumed(t *testing.T) {
	adopt(t)
	e := newEngine(t)
	e.configure("trap 'echo asked; exit 3' TERM; while :; do sleep 0.01; done", nil)
	output := e.create("c")
	pid := e.state("c").Pid
	if text := e.do(1, "pause", "c"); !strings.Contains(text, "it is created, not running") {
		t.Errorf("pause before the start says %s", text)
	}
	e.do(0, "start", "c")
	if text := e.do(1, "resume", "c"); !strings.Contains(text, "it is running, not paused") {
		t.Errorf("resume says %s", text)
	}
	e.do(0, "pause", "c")
	if s := e.state("c"); s.Status != "paused" || s.Pid != pid {
		t.Errorf("state of a paused container: %+v", s)
	}
	if text := e.do(1, "delete", "c"); !strings.Contains(text, "not stopped: paused") {
		t.Errorf("delete says %s", text)
	}
	e.do(0, "kill", "c", "TERM")
	if text, err := os.ReadFile(output); err != nil || len(text) > 0 {
		t.Errorf("while it was paused it wrote %q, %v", text, err)
	}
	e.do(0, "resume", "c")
	if status := reap(t, pid); status.ExitStatus() != 3 {
		t.Errorf("the process ended with %v", status)
	}
	e.do(0, "delete", "c")

	e.create("d")
	pid = e.state("d").Pid
	e.do(0, "start", "d")
	e.do(0, "pause", "d")
	e.do(0, "kill", "d", "KILL")
	if status := reap(t, pid); status.Signal() != unix.SIGKILL {
		t.Errorf("the process ended with %v", status)
	}
	e.do(0, "delete", "d")
	e.create("e")
	pid = e.state("e").Pid
	e.do(0, "start", "e")
	e.do(0, "pause", "e")
	e.do(0, "delete", "--force", "e")
	reap(t, pid)
}

// A hook that fails ends the container before its program.
func TestOCI_AFailingStartHookEndsTheContainer(t *testing.T) {
	adopt(t)
	e := newEngine(t)
	e.configure("echo ran", func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo no such luck; exit 4"}, Env: []string{"PATH=/bin"}}}}
	})
	output := e.create("c")
	pid := e.state("c").Pid
	if text := e.do(1, "start", "c"); !strings.Contains(text, "hook startContainer[0] /bin/sh: exit status 4: no such luck") {
		t.Errorf("start says %s", text)
	}
	reap(t, pid)
	if s := e.state("c"); s.Status != specs.StateStopped {
		t.Errorf("state %+v", s)
	}
	if text, err := os.ReadFile(output); err != nil || len(text) > 0 {
		t.Errorf("output %q, %v", text, err)
	}
	e.do(0, "delete", "c")
}

// What podman mounts in memory by default begins with what the image has there, with its owners and modes; the image stays as it is.
func TestOCI_TmpfsBeginsWithWhatTheImageHas(t *testing.T) {
	e := newEngine(t)
	data := filepath.Join(e.bundle, "rootfs/srv/data")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(data, "sub"), 0o755), os.WriteFile(filepath.Join(data, "sub/file"), []byte("text\n"), 0o640),
		os.Lchown(filepath.Join(data, "sub/file"), 7, 8), os.Chmod(filepath.Join(data, "sub/file"), 0o644), os.Symlink("/etc/passwd", filepath.Join(data, "out")),
		os.Chmod(filepath.Join(data, "sub"), 0o711), os.Symlink("/srv/data", filepath.Join(e.bundle, "rootfs/link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	const script = "cat /link/sub/file && stat -c '%u:%g %a' /srv/data/sub/file && stat -c %a /srv/data/sub && readlink /srv/data/out && " +
		"! touch /srv/data/new 2>/dev/null && touch /plain/new && ls /none"
	e.configure(script, func(s *specs.Spec) {
		s.Mounts = append(s.Mounts,
			specs.Mount{Destination: "/link", Type: "tmpfs", Source: "tmpfs", Options: []string{"rw", "nosuid", "tmpcopyup", "ro"}},
			specs.Mount{Destination: "/plain", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}},
			specs.Mount{Destination: "/none", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}})
	})
	if out := e.do(0, "run", "c"); out != "text\n7:8 644\n711\n/etc/passwd\n" {
		t.Errorf("it finds %q", out)
	}
	if left, err := os.ReadDir(data); err != nil || len(left) != 2 {
		t.Errorf("in the image: %v, %v", left, err)
	}
}
