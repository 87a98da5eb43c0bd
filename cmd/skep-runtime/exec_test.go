package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/bundle"
)

// running starts a container that sleeps, and gives the number of its process.
func (e *engine) running(edit func(*specs.Spec)) int {
	e.t.Helper()
	adopt(e.t)
	e.configure("exec sleep 100", edit)
	e.create("c")
	pid := e.state("c").Pid
	e.do(0, "start", "c")
	e.t.Cleanup(func() {
		e.do(0, "delete", "--force", "c")
		reap(e.t, pid)
	})
	return pid
}

func TestOCI_ExecRunsInTheContainer(t *testing.T) {
	for _, userns := range []bool{false, true} {
		t.Run(fmt.Sprintf("user namespace %v", userns), func(t *testing.T) {
			e := newEngine(t)
			for _, dir := range []string{"proc", "dev"} { // which the owner of a user namespace may not make here
				if err := os.MkdirAll(filepath.Join(e.bundle, "rootfs", dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			first := e.running(func(s *specs.Spec) {
				s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}}
				s.Process.NoNewPrivileges = true
				s.Process.Env = append(s.Process.Env, "A=first")
				if userns {
					s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
					ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 1000}}
					s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
				}
			})
			script := `echo $A $B $PWD; while read k v; do case $k in Uid:|Gid:|Groups:|CapBnd:|NoNewPrivs:) echo $k $v;; esac; done </proc/self/status
				for n in mnt pid net user cgroup; do readlink /proc/self/ns/$n; done; exit 5`
			out := e.do(5, "exec", "--env", "B=second", "--user", "7:8", "--additional-gids", "9", "--cwd", "/bin", "c", "sh", "-c", script)
			want := "first second /bin\nUid: 7 7 7 7\nGid: 8 8 8 8\nGroups: 9\nCapBnd: 0000000000000020\nNoNewPrivs: 1\n"
			for _, kind := range []string{"mnt", "pid", "net", "user", "cgroup"} {
				to, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", first, kind))
				if err != nil {
					t.Fatal(err)
				}
				want += to + "\n"
			}
			if strings.ReplaceAll(out, "\t", " ") != want {
				t.Errorf("got\n%swant\n%s", out, want)
			}
		})
	}
}

func TestOCI_ExecTakesAProcessFromAFile(t *testing.T) {
	e := newEngine(t)
	first := e.running(nil)
	process, err := json.Marshal(specs.Process{Args: []string{"sleep", "200"}, Cwd: "/", Env: []string{"PATH=/bin"}})
	if err != nil {
		t.Fatal(err)
	}
	file, pidFile := filepath.Join(t.TempDir(), "process"), filepath.Join(t.TempDir(), "pid")
	if err := os.WriteFile(file, process, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, _ := e.command("exec", "--process", file, "--detach", "--pid-file", pidFile, "c")
	cmd.Stdout, cmd.Stderr = nil, nil // the process has them for longer than the command
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	if out := e.do(0, "ps", "--format", "json", "c"); json.Unmarshal([]byte(out), &pids) != nil {
		t.Fatalf("ps: %s", out)
	}
	slices.Sort(pids)
	want := []int{first, pid}
	slices.Sort(want)
	if !slices.Equal(pids, want) {
		t.Errorf("processes %v, want %v", pids, want)
	}
	if out := e.do(0, "ps", "c"); strings.Count(out, "sleep") != 2 || strings.Count(out, "\n") != 3 {
		t.Errorf("ps says\n%s", out)
	}
	e.do(0, "kill", "--all", "c", "TERM") // which the first of a pid namespace ignores
	if status := reap(t, pid); status.Signal() != unix.SIGTERM {
		t.Errorf("the second process ended with %v", status)
	}
	if text := e.do(1, "exec", "c", "dance"); !strings.Contains(text, "exec dance: no such file or directory") {
		t.Errorf("a program that isn't there: %s", text)
	}
}

func TestOCI_ExecNeedsARunningContainer(t *testing.T) {
	adopt(t)
	e := newEngine(t)
	if text := e.do(1, "exec", "c", "sh"); !strings.Contains(text, "does not exist") {
		t.Errorf("no container: %s", text)
	}
	e.configure("exit 0", nil)
	e.create("c")
	pid := e.state("c").Pid
	e.do(0, "start", "c")
	reap(t, pid)
	if text := e.do(1, "exec", "c", "sh"); !strings.Contains(text, "container not running: it is stopped") {
		t.Errorf("a stopped container: %s", text)
	}
}

func TestOCI_FeaturesAreThoseThatThereAre(t *testing.T) {
	e := newEngine(t)
	var f features.Features
	if out := e.do(0, "features"); json.Unmarshal([]byte(out), &f) != nil {
		t.Fatal(out)
	}
	if f.OCIVersionMax != specs.Version || !slices.Contains(f.MountOptions, "rro") || *f.Linux.Cgroup.Systemd || !*f.Linux.Seccomp.Enabled || !*f.Linux.Apparmor.Enabled {
		t.Errorf("%+v", f)
	}
	for _, o := range f.MountOptions { // each is taken
		e.configure("exit 0", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt", Type: "bind", Source: "/etc", Options: []string{"bind", o}})
		})
		if o == "idmap" || o == "ridmap" { // for user namespaces
			continue
		}
		if out := e.do(0, "run", "c"); out != "" {
			t.Errorf("option %s: %s", o, out)
		}
	}
}

func TestOCI_TheSpecThatItWritesRuns(t *testing.T) {
	e := newEngine(t)
	e.do(0, "spec")
	if text := e.do(1, "spec"); !strings.Contains(text, "file exists") {
		t.Errorf("a second spec says %s", text)
	}
	data, err := os.ReadFile(e.bundle + "/config.json")
	var s specs.Spec
	if err != nil || json.Unmarshal(data, &s) != nil {
		t.Fatal(err)
	}
	s.Process.Terminal, s.Process.Args = false, []string{"sh", "-c", "hostname; cat /proc/self/uid_map"}
	s.Linux.CgroupsPath = e.parent + "/c"
	if data, err = json.Marshal(s); err == nil {
		err = os.WriteFile(e.bundle+"/config.json", data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out := strings.Fields(e.do(0, "run", "c")); strings.Join(out, " ") != "skep 0 0 4294967295" {
		t.Errorf("got %q", out)
	}
}

func TestOCI_EventsTellWhatAContainerUses(t *testing.T) {
	e := newEngine(t)
	e.running(func(s *specs.Spec) {
		limit, pids := int64(64<<20), int64(50)
		s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}, Pids: &specs.LinuxPids{Limit: &pids}}
	})
	var event bundle.Event
	if out := e.do(0, "events", "--stats", "c"); json.Unmarshal([]byte(out), &event) != nil {
		t.Fatal(out)
	}
	u := event.Data
	if event.Type != "stats" || event.ID != "c" || u.Pids.Current != 1 || u.Pids.Limit != 50 || u.Memory.Usage.Limit != 64<<20 ||
		u.Memory.Usage.Usage == 0 || u.CPU.Usage.Total == 0 {
		t.Errorf("%+v", event)
	}
}
