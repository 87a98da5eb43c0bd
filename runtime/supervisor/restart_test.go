package supervisor_test

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/client"
)

// process is a supervisor in a process of its own.
type process struct {
	*node
	cmd *exec.Cmd
}

// spawn starts the supervisor's binary for n and connects to it.
func spawn(n *node, args ...string) *process {
	n.Helper()
	return spawnProgram(n, filepath.Join(programs, "skep-runtime"), args...)
}

// spawnProgram does so with another binary.
func spawnProgram(n *node, program string, args ...string) *process {
	n.Helper()
	args = append([]string{
		"supervise", "--root", n.cfg.Root, "--socket", n.cfg.Socket, "--cgroup-parent", n.cfg.CgroupParent,
	}, args...)
	p := &process{node: n, cmd: exec.Command(program, args...)}
	p.cmd.Stderr = os.Stderr
	if !testing.Verbose() {
		p.cmd.Stderr = nil
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		n.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { n.deleteAll(); p.stop(syscall.SIGTERM) })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready "+n.cfg.Socket+"\n" {
		n.Fatalf("supervisor says %q, %v", line, err)
	}
	n.connect()
	return p
}

// stop ends the supervisor by a signal.
func (p *process) stop(sig syscall.Signal) {
	p.Helper()
	if p.cmd.ProcessState != nil {
		return
	}
	p.Client.Close()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.Error(err)
	}
	err := p.cmd.Wait()
	if sig == syscall.SIGTERM && err != nil {
		p.Errorf("supervisor ended with %v", err)
	}
}

func TestRestart_ContainersRunOnAndAreTakenOver(t *testing.T) { // I4
	for name, sig := range map[string]syscall.Signal{"asked": syscall.SIGTERM, "killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			n := prepare(t)
			p := spawn(n)
			state := n.begin(n.request("runs", "wait"))
			n.awaitLine("runs", "waiting")
			n.begin(n.request("ends-meanwhile", "wait"))
			n.awaitLine("ends-meanwhile", "waiting")
			if exit, _ := n.complete(n.request("ended", "exit", "33")); exit.ExitCode != 33 {
				t.Fatalf("exit %+v", exit)
			}
			if _, err := n.Create(t.Context(), n.request("waits", "look")); err != nil {
				t.Fatal(err)
			}
			p.stop(sig)
			pids := groupPids(t, n, "ends-meanwhile")
			if len(pids) == 0 {
				t.Fatal("the container ended with the supervisor")
			}
			kill(n, pids)

			spawn(n)
			if got, err := n.State(t.Context(), "ended"); err != nil || got.ExitCode != 33 {
				t.Errorf("earlier exit: %+v, %v", got, err)
			}
			if got, err := n.State(t.Context(), "ends-meanwhile"); err != nil || got.ExitCode != 255 ||
				!strings.Contains(got.Error, "not running when the container ended") { // I7
				t.Errorf("exit between supervisors: %+v, %v", got, err)
			}
			if got := n.await("waits", client.EventExited); got.Error == "" {
				t.Errorf("unstarted container: %+v", got)
			}
			if got, err := n.State(t.Context(), "runs"); err != nil || got.Status != client.Running || got.Pid != state.Pid {
				t.Fatalf("running container: %+v, %v; its pid was %d", got, err, state.Pid)
			}
			if err := n.Kill(t.Context(), "runs", syscall.SIGUSR1); err != nil {
				t.Fatal(err)
			}
			n.awaitLine("runs", "got user defined signal 1") // output still arrives
			if err := n.Kill(t.Context(), "runs", syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			got := n.await("runs", client.EventExited)
			if want := expectedAdoptedExit(); got.ExitCode != want {
				t.Errorf("exit of the container taken over: %+v, want code %d", got, want)
			}
		})
	}
}

// expectedAdoptedExit is 7 where the kernel tells the exit of a process to those who are not its parent, else unknown.
func expectedAdoptedExit() int {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return 255
	}
	defer unix.Close(fd)
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT | unix.PIDFD_INFO_PID}
	var name unix.Utsname
	if unix.IoctlPidfdInfo(fd, &info) != nil || unix.Uname(&name) != nil {
		return 255
	}
	var major, minor int
	release := unix.ByteSliceToString(name.Release[:])
	for i, part := range strings.SplitN(release, ".", 3) {
		value := 0
		for _, c := range part {
			if c < '0' || c > '9' {
				break
			}
			value = 10*value + int(c-'0')
		}
		switch i {
		case 0:
			major = value
		case 1:
			minor = value
		}
	}
	if major > 6 || major == 6 && minor >= 15 {
		return 7
	}
	return 255
}

// groupPids lists the processes of a container.
func groupPids(t *testing.T, n *node, id string) []string {
	t.Helper()
	files, err := filepath.Glob("/sys/fs/cgroup/*/" + n.cfg.CgroupParent + "/" + id + "/cgroup.procs")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(files, "/sys/fs/cgroup/"+n.cfg.CgroupParent+"/"+id+"/cgroup.procs") {
		if text, err := os.ReadFile(f); err == nil && len(text) > 0 {
			return strings.Fields(string(text))
		}
	}
	return nil
}

// kill kills processes of a container and waits until they are gone.
func kill(n *node, pids []string) {
	for _, pid := range pids {
		if err := exec.Command("kill", "-9", pid).Run(); err != nil {
			n.Error(err)
		}
		n.until("end of "+pid, func() bool {
			_, err := os.Stat("/proc/" + pid)
			return errors.Is(err, os.ErrNotExist)
		})
	}
}

func TestRestart_KillOnExit(t *testing.T) {
	n := prepare(t)
	p := spawn(n, "--kill-on-exit")
	state := n.begin(n.request("c", "wait"))
	p.stop(syscall.SIGTERM)
	if _, err := os.Stat("/proc/" + strconv.Itoa(state.Pid)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the container runs on: %v", err)
	}
	spawn(n)
	if got, err := n.State(t.Context(), "c"); err != nil || got.ExitCode != 137 {
		t.Errorf("its exit: %+v, %v", got, err)
	}
}

func TestRestart_InTheSameProcess(t *testing.T) { // as after an upgrade by execve: the containers are still children
	n := newNode(t)
	n.begin(n.request("c", "wait"))
	n.awaitLine("c", "waiting")
	n.end()
	n.run()
	if err := n.Kill(t.Context(), "c", syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := n.await("c", client.EventExited); got.ExitCode != 7 {
		t.Errorf("exit %+v, want code 7", got)
	}
}

func TestClient_ItsEndLosesNothing(t *testing.T) { // I4
	n := newNode(t)
	n.begin(n.request("c", "wait"))
	n.awaitLine("c", "waiting")
	n.Client.Close()
	n.connect()
	if err := n.Kill(t.Context(), "c", syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	n.Client.Close()
	n.connect()
	if got := n.await("c", client.EventExited); got.ExitCode != 7 {
		t.Errorf("exit %+v, want code 7", got)
	}
}

func TestSupervisor_RunsFromSealedMemory(t *testing.T) {
	n := prepare(t)
	p := spawn(n)
	path := "/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/exe"
	if to, err := os.Readlink(path); err != nil || !strings.HasPrefix(to, "/memfd:") {
		t.Errorf("it runs from %q, %v", to, err)
	}
	held, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	p.stop(syscall.SIGTERM)
	// CVE-2019-5736: while it ran, writing would have failed with ETXTBSY anyway.
	f, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(held.Fd())), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.Write([]byte("evil"))
		f.Close()
	}
	if !errors.Is(err, unix.EPERM) {
		t.Errorf("write to the held program: %v, want EPERM", err)
	}
}

func TestSupervisor_OnlyOneAtATime(t *testing.T) {
	n := newNode(t)
	out, err := exec.Command(filepath.Join(programs, "skep-runtime"), "supervise", "--root", n.cfg.Root, "--socket",
		n.cfg.Socket).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another supervisor is running") {
		t.Errorf("the second says %s, %v", out, err)
	}
}

func TestSocket_IsRootsOnly(t *testing.T) { // I5
	n := newNode(t)
	st, err := os.Stat(n.cfg.Socket)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", st, err)
	}
	// Even with the file's mode out of the way.
	if err := errors.Join(os.Chmod(n.cfg.Socket, 0o666), os.Chmod(filepath.Dir(n.cfg.Socket), 0o755),
		os.Chmod(filepath.Dir(filepath.Dir(n.cfg.Socket)), 0o755)); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(filepath.Join(programs, "inside"), "dial", n.cfg.Socket)
	if err := os.Chmod(programs, 0o755); err != nil {
		t.Fatal(err)
	}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := c.CombinedOutput()
	if string(out) != "connected, then EOF\n" {
		t.Errorf("another user: %q, %v", out, err)
	}
}

// TestRestart_RecordsOfBeforeTheJournal: earlier supervisors kept each record in its container's directory.
func TestRestart_RecordsOfBeforeTheJournal(t *testing.T) {
	n := prepare(t)
	dir := filepath.Join(n.cfg.Root, "containers", "old")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	text := `{"Version":1,"State":{"ID":"old","Status":"exited","ExitCode":33},"Boot":"b","Started":1}`
	if err := os.WriteFile(filepath.Join(dir, "state.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	spawn(n).stop(syscall.SIGTERM)
	if err := os.RemoveAll(dir); err != nil { // the journal has it now
		t.Fatal(err)
	}
	spawn(n)
	if got, err := n.State(t.Context(), "old"); err != nil || got.Status != client.Exited || got.ExitCode != 33 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestRestart_DamagedJournal(t *testing.T) { // I7
	n := prepare(t)
	p := spawn(n)
	n.begin(n.request("a", "wait"))
	n.awaitLine("a", "waiting")
	n.begin(n.request("b", "wait"))
	p.stop(syscall.SIGTERM)
	name := filepath.Join(n.cfg.Root, "journal")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	text[40] ^= 1
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	spawn(n)
	for _, id := range []string{"a", "b"} {
		if got, err := n.State(t.Context(), id); err != nil || got.ExitCode != 255 || !strings.Contains(got.Error, "not readable") {
			t.Errorf("%s: %+v, %v", id, got, err)
		}
	}
}
