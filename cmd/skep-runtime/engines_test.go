package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// engineTime bounds a command of an engine: a daemon that does not answer must not hang the tests.
const engineTime = time.Minute

// client is the command line of a container engine that runs containers by this runtime.
type client struct {
	t    *testing.T
	args []string
}

// do runs a command that ends with a status, and gives what it wrote to standard output.
func (c client) do(status int, args ...string) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), engineTime)
	defer cancel()
	all := append(append([]string{}, c.args...), args...)
	cmd := exec.CommandContext(ctx, all[0], all[1:]...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != status {
		c.t.Fatalf("%q: %v, want status %d: %s%s", all, err, status, out.String(), errs.String())
	}
	return out.String()
}

// shortDir is a directory for an engine, which has no room in its sockets' addresses for the names of tests.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ske")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // engines may leave mounts there for a moment
	return dir
}

// image writes an archive with the root file system of the tests.
func (e *engine) image() string {
	e.t.Helper()
	archive := filepath.Join(e.t.TempDir(), "image.tar")
	if text, err := exec.Command("tar", "-C", filepath.Join(e.bundle, "rootfs"), "-cf", archive, ".").CombinedOutput(); err != nil {
		e.t.Fatalf("tar: %v: %s", err, text)
	}
	return archive
}

// contract is what both engines are to get from this runtime. run are the flags of their run.
func (c client) contract(run ...string) {
	c.t.Helper()
	with := func(args ...string) []string { return append(append([]string{"run"}, run...), args...) }
	if out := c.do(3, with("--rm", "image", "sh", "-c", "hostname; exit 3")...); len(strings.TrimSpace(out)) != 12 {
		c.t.Errorf("host name %q", out)
	}
	out := c.do(0, with("--rm", "--user", "7:8", "--memory", "64m", "image", "sh", "-c", "echo $(cat /proc/self/status)")...)
	for _, want := range []string{"Uid: 7 7 7 7", "Gid: 8 8 8 8", "Seccomp: 2"} {
		if !strings.Contains(out, want) {
			c.t.Errorf("no %q in %s", want, out)
		}
	}
	c.do(0, with("--detach", "--name", "sleeper", "image", "sleep", "100")...)
	if out := c.do(5, "exec", "--env", "A=b", "sleeper", "sh", "-c", "echo $A; ps; exit 5"); !strings.HasPrefix(out, "b\n") || !strings.Contains(out, "sleep 100") {
		c.t.Errorf("exec says %q", out)
	}
	if out := c.do(0, "top", "sleeper"); !strings.Contains(out, "sleep") {
		c.t.Errorf("top says %q", out)
	}
	status := func() string {
		return strings.TrimSpace(c.do(0, "inspect", "--format", "{{.State.Status}}", "sleeper"))
	}
	c.do(0, "pause", "sleeper")
	if got := status(); got != "paused" {
		c.t.Errorf("paused, it is %q", got)
	}
	c.do(0, "unpause", "sleeper")
	if got := status(); got != "running" {
		c.t.Errorf("unpaused, it is %q", got)
	}
	if out := c.do(0, "exec", "sleeper", "sh", "-c", "echo on"); strings.TrimSpace(out) != "on" {
		c.t.Errorf("exec after a pause says %q", out)
	}
	c.do(0, "kill", "--signal", "KILL", "sleeper")
	if out := c.do(0, "wait", "sleeper"); strings.TrimSpace(out) != "137" {
		c.t.Errorf("wait says %q", out)
	}
	c.do(0, "start", "sleeper")
	c.do(0, "rm", "--force", "sleeper")
}

func TestOCI_PodmanRunsContainers(t *testing.T) {
	podman, err := exec.LookPath("podman")
	if err != nil {
		t.Skipf("needs podman: %v", err)
	}
	e := newEngine(t)
	dir := shortDir(t)
	c := client{t, []string{
		podman, "--root", dir + "/root", "--runroot", dir + "/run", "--tmpdir", dir + "/tmp", "--runtime", e.path,
		"--cgroup-manager", "cgroupfs", "--events-backend", "file", "--storage-driver", "vfs",
	}}
	c.do(0, "import", e.image(), "image")
	c.contract("--network", "none")
	// podman asks for tmpcopyup by itself.
	if out := c.do(0, "run", "--rm", "--network", "none", "--tmpfs", "/etc", "image", "sh", "-c", "echo x >/etc/new && ls /etc"); !strings.Contains(out, "new") {
		c.t.Errorf("/etc in memory has %q", out)
	}
}

func TestOCI_DockerRunsContainers(t *testing.T) {
	daemon, err := exec.LookPath("dockerd")
	if err != nil {
		t.Skipf("needs dockerd: %v", err)
	}
	e := newEngine(t)
	dir := shortDir(t)
	var log bytes.Buffer
	cmd := exec.Command(daemon, "--data-root", dir+"/data", "--exec-root", dir+"/exec", "--host", "unix://"+dir+"/s", "--pidfile", dir+"/pid",
		"--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge", "none", "--storage-driver", "vfs", "--add-runtime", "skep="+e.path,
		"--cgroup-parent", e.parent, "--exec-opt", "native.cgroupdriver=cgroupfs")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // its status says nothing
		if t.Failed() {
			t.Logf("dockerd says\n%s", log.String())
		}
	})
	c := client{t, []string{"docker", "--host", "unix://" + dir + "/s"}}
	ctx, cancel := context.WithTimeout(t.Context(), engineTime)
	defer cancel()
	for exec.CommandContext(ctx, c.args[0], append(c.args[1:], "version")...).Run() != nil {
		if ctx.Err() != nil {
			t.Skip("needs a dockerd that starts on this machine")
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	c.do(0, "import", e.image(), "image")
	c.contract("--runtime", "skep", "--network", "none")
}
