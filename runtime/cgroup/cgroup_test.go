package cgroup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// tree opens a parent group of its own for the test and removes it afterwards.
func tree(t *testing.T) *Tree {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to create control groups")
	}
	tr, err := Open(fmt.Sprintf("skep-cgroup-test-%d", os.Getpid()))
	if errors.Is(err, ErrUnsupported) {
		t.Skipf("needs control groups: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Remove(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

func create(t *testing.T, tr *Tree, name string, l Limits) *Group {
	t.Helper()
	g, err := tr.Create(name, l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(g.KillAll(), g.Remove(context.Background())); err != nil {
			t.Error(err)
		}
	})
	return g
}

// put moves a process into the group.
func put(t *testing.T, g *Group, pid int) {
	t.Helper()
	for _, dir := range g.dirs {
		if err := write(dir, setting{file: "cgroup.procs", value: fmt.Sprint(pid)}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLimits_Unified(t *testing.T) {
	got := Limits{
		Memory: 64 << 20, MemoryReservation: 32 << 20, CPUQuota: 50 * time.Millisecond, CPUShares: 1024, Pids: 100,
		CPUs: "0-1", IO: []IORate{{Major: 8, Minor: 16, ReadBPS: 1000, WriteIOPS: 7}, {Major: 9, WriteBPS: 5}},
	}.unified()
	want := []setting{
		{"memory.oom.group", "1", true},
		{"memory.high", "66584576", false},
		{"memory.max", "67108864", false},
		{"memory.swap.max", "0", true},
		{"memory.low", "33554432", false},
		{"cpu.max", "50000 100000", false},
		{"cpu.weight", "39", false},
		{"cpuset.cpus", "0-1", false},
		{"pids.max", "100", false},
		{"io.max", "8:16 rbps=1000 wiops=7", false},
		{"io.max", "9:0 wbps=5", false},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(setting{})); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
	want = []setting{{"memory.oom.group", "1", true}}
	if diff := cmp.Diff(want, (Limits{}).unified(), cmp.AllowUnexported(setting{})); diff != "" {
		t.Errorf("settings without limits (-want +got):\n%s", diff)
	}
}

func TestLimits_Swap(t *testing.T) {
	const limit = 64 << 20
	for _, tc := range []struct {
		swap    int64
		unified string
		legacy  string // "" for none
	}{
		{0, "0", "67108864"},
		{limit, "0", "67108864"},
		{limit + 4096, "4096", "67112960"},
		{Unlimited, "max", ""},
	} {
		l := Limits{Memory: limit, MemorySwap: tc.swap}
		if got := value(l.unified(), "memory.swap.max"); got != tc.unified {
			t.Errorf("swap %d is %q on v2, want %q", tc.swap, got, tc.unified)
		}
		if got := value(l.legacy([]string{"memory"}), "memory.memsw.limit_in_bytes"); got != tc.legacy {
			t.Errorf("swap %d is %q on v1, want %q", tc.swap, got, tc.legacy)
		}
	}
}

// value gives what is written into a file, or "" if nothing is.
func value(all []setting, file string) string {
	for _, s := range all {
		if s.file == file {
			return s.value
		}
	}
	return ""
}

func TestLimits_Weight(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 1, 2: 1, 1024: 39, 262144: 10000, 1 << 40: 10000} {
		if got := weight(shares); got != want {
			t.Errorf("weight(%d) = %d, want %d", shares, got, want)
		}
	}
}

func TestLimits_Legacy(t *testing.T) {
	got := Limits{
		Memory: 64 << 20, CPUQuota: 50 * time.Millisecond, CPUShares: 512, Pids: 9,
		CPUs: "0", IO: []IORate{{Major: 8, ReadBPS: 1, WriteBPS: 2, ReadIOPS: 3, WriteIOPS: 4}},
	}.legacy([]string{"cpu", "cpuacct", "memory", "pids", "cpuset", "blkio"})
	want := []setting{
		{"cpu.shares", "512", false},
		{"cpu.cfs_period_us", "100000", false},
		{"cpu.cfs_quota_us", "50000", false},
		{"memory.limit_in_bytes", "67108864", false},
		{"memory.memsw.limit_in_bytes", "67108864", true},
		{"pids.max", "9", false},
		{"cpuset.cpus", "0", false},
		{"blkio.throttle.read_bps_device", "8:0 1", false},
		{"blkio.throttle.write_bps_device", "8:0 2", false},
		{"blkio.throttle.read_iops_device", "8:0 3", false},
		{"blkio.throttle.write_iops_device", "8:0 4", false},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(setting{})); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
}

func TestOpenLegacy_ControllersMountedTogether(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"cpu,pids", "memory"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tr, err := openLegacy(map[string]string{
		"cpu": dir + "/cpu,pids", "pids": dir + "/cpu,pids", "memory": dir + "/memory",
	}, "skep")
	if err != nil {
		t.Fatal(err)
	}
	g, err := tr.Create("c", Limits{})
	if err != nil {
		t.Fatal(err)
	}
	want := []View{
		{[]string{"memory"}, dir + "/memory/skep/c"}, {[]string{"cpu", "pids"}, dir + "/cpu,pids/skep/c"},
	}
	if diff := cmp.Diff(want, g.Views()); diff != "" {
		t.Errorf("views (-want +got):\n%s", diff)
	}
}

func TestMounts(t *testing.T) {
	table := `22 1 0:20 / /sys/fs/cgroup rw - tmpfs tmpfs rw
23 22 0:21 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
24 22 0:22 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
25 22 0:23 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
26 22 0:23 / /other rw,relatime - cgroup cgroup rw,memory
garbage
`
	unified, legacy, err := mounts(strings.NewReader(table))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"cpu": "/sys/fs/cgroup/cpu", "cpuacct": "/sys/fs/cgroup/cpu", "memory": "/sys/fs/cgroup/memory"}
	if diff := cmp.Diff(want, legacy); diff != "" || unified != "/sys/fs/cgroup/unified" {
		t.Errorf("unified at %q, legacy (-want +got):\n%s", unified, diff)
	}
	if _, err := openLegacy(legacy, "x"); !errors.Is(err, ErrUnsupported) {
		t.Errorf("without pids: %v, want ErrUnsupported", err)
	}
}

func TestGroup_LimitsAreInForce(t *testing.T) {
	tr := tree(t)
	g := create(t, tr, "limits", Limits{Memory: 16 << 20, CPUQuota: 50 * time.Millisecond, Pids: 7})
	files := map[string]string{"memory.limit_in_bytes": "16777216", "cpu.cfs_quota_us": "50000", "pids.max": "7"}
	if tr.Unified() {
		files = map[string]string{"memory.max": "16777216", "memory.high": "16646144", "cpu.max": "50000 100000", "pids.max": "7"}
	}
	checkFiles(t, g, files)
}

// checkFiles compares files of a group, in whichever of its directories.
func checkFiles(t *testing.T, g *Group, files map[string]string) {
	t.Helper()
	for file, want := range files {
		found := false
		for _, dir := range g.dirs {
			text, err := os.ReadFile(filepath.Join(dir, file))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			found = true
			if got := strings.TrimSpace(string(text)); err != nil || got != want {
				t.Errorf("%s is %q, error %v; want %q", file, got, err, want)
			}
		}
		if !found {
			t.Errorf("no %s in %v", file, g.dirs)
		}
	}
}

func TestGroup_RunsOnItsProcessorsOnly(t *testing.T) {
	tr := tree(t)
	g, err := tr.Create("cpus", Limits{CPUs: "0"})
	if errors.Is(err, ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if err := g.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	put(t, g, cmd.Process.Pid)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil || !strings.Contains(string(status), "\nCpus_allowed_list:\t0\n") {
		t.Errorf("status, error %v:\n%s", err, status)
	}
	same, err := tr.Group("cpus") // after a restart of the supervisor
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(g.Views(), same.Views()); diff != "" {
		t.Errorf("views (-created +found):\n%s", diff)
	}
}

func TestGroup_AProcessEnters(t *testing.T) {
	tr := tree(t)
	create(t, tr, "entered", Limits{Pids: 100})
	g, err := tr.Group("entered") // which no process can begin in
	if err != nil {
		t.Fatal(err)
	}
	entrances, err := g.Entrances()
	if err != nil || len(entrances) != len(g.Views()) {
		t.Fatalf("%d entrances to %d directories, error %v", len(entrances), len(g.Views()), err)
	}
	cmd := exec.Command("sh", "-c", fmt.Sprintf("for fd in $(seq 3 %d); do echo %s >&$fd; done; echo in; exec sleep 600", 2+len(entrances), Entering))
	for _, fd := range entrances {
		f := os.NewFile(uintptr(fd), "entrance")
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	for _, v := range g.Views() {
		pids, err := pidsIn(v.Dir)
		if err != nil || !slices.Contains(pids, cmd.Process.Pid) {
			t.Errorf("%s: in it are %v, error %v, not %d", v.Dir, pids, err, cmd.Process.Pid)
		}
	}
}

// A machine without block devices other than those in memory can't show a rate in force.
func TestGroup_RatesOfADeviceAreInForce(t *testing.T) {
	tr := tree(t)
	var st unix.Stat_t
	if err := unix.Stat("/dev/loop0", &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		t.Skipf("needs a block device at /dev/loop0: %v", err)
	}
	device := IORate{Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)), ReadBPS: 1 << 20, WriteIOPS: 50}
	g, err := tr.Create("io", Limits{IO: []IORate{device}})
	if errors.Is(err, ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	id := fmt.Sprintf("%d:%d", device.Major, device.Minor)
	files := map[string]string{
		"blkio.throttle.read_bps_device": id + " 1048576", "blkio.throttle.write_iops_device": id + " 50",
	}
	if tr.Unified() {
		files = map[string]string{"io.max": id + " rbps=1048576 wbps=max riops=max wiops=50"}
	}
	checkFiles(t, g, files)
}

func TestTree_RefusesLimitsWithoutTheirController(t *testing.T) {
	dir := t.TempDir()
	mounted := map[string]string{}
	for _, c := range []string{"cpu", "memory", "pids"} {
		mounted[c] = filepath.Join(dir, c)
		if err := os.Mkdir(mounted[c], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tr, err := openLegacy(mounted, "skep")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []Limits{{CPUs: "0"}, {IO: []IORate{{Major: 8, ReadBPS: 1}}}} {
		if _, err := tr.Create("c", l); !errors.Is(err, ErrUnsupported) {
			t.Errorf("Create with %+v: %v, want ErrUnsupported", l, err)
		}
	}
}

func TestGroup_KillAndRemove(t *testing.T) {
	tr := tree(t)
	g := create(t, tr, "kill", Limits{})
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	put(t, g, cmd.Process.Pid)
	same, err := tr.Group("kill")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := same.OOMKills(); err != nil || n != 0 {
		t.Errorf("OOM kills: %d, %v; want none", n, err)
	}
	if err := same.KillAll(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Errorf("process ended with %v, want killed", err)
	}
	if err := g.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if same.Exists() {
		t.Error("the group is there after Remove")
	}
	if err := g.Remove(t.Context()); err != nil {
		t.Errorf("second Remove: %v", err)
	}
}

func TestGroup_RemoveOfABusyGroupFails(t *testing.T) {
	g := create(t, tree(t), "busy", Limits{})
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	put(t, g, cmd.Process.Pid)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := g.Remove(ctx); !errors.Is(err, ErrBusy) {
		t.Errorf("Remove: %v, want ErrBusy", err)
	}
	for _, dir := range g.dirs {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestTree_CreateRefuses(t *testing.T) {
	tr := tree(t)
	for _, name := range []string{"", ".", "..", "a/b", "-x", strings.Repeat("x", 200), "a\x00"} {
		if _, err := tr.Create(name, Limits{}); !errors.Is(err, ErrName) {
			t.Errorf("Create(%q): %v, want ErrName", name, err)
		}
	}
	first := create(t, tr, "twice", Limits{})
	if _, err := tr.Create("twice", Limits{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Create: %v, want exists", err)
	}
	if !first.Exists() {
		t.Error("the refused Create removed the first group") // I2
	}
	if _, err := tr.Create("bad", Limits{CPUQuota: time.Nanosecond * 1000}); err == nil {
		t.Error("a quota of 1 µs was taken")
	}
	if bad, err := tr.Group("bad"); err != nil || bad.Exists() {
		t.Errorf("a group is there after a failed Create, error %v", err) // I2
	}
}
