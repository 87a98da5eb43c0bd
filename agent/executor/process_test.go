package executor

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

func TestCompile_SetsTheKernelsParametersAndLimits(t *testing.T) {
	task := newTask(&api.ContainerSpec{
		Command: []string{"/x"}, Tty: true, OomScoreAdj: -998, ShmSizeBytes: 1 << 20,
		Sysctls: map[string]string{"net.ipv4.ip_unprivileged_port_start": "1024", "kernel.msgmax": "9000"},
		Ulimits: []*api.Ulimit{{Name: "core", Soft: 1, Hard: -1}, {Name: "nproc", Soft: 5, Hard: 6}},
		Mounts: []*api.Mount{{
			Type: api.MountType_MOUNT_TYPE_TMPFS, Target: "/run", TmpfsExec: true, TmpfsUid: 7, TmpfsMode: 0o700,
		}},
	})
	s, err := compiled(t, plan{task: task, idBase: 1 << 28})
	if err != nil {
		t.Fatal(err)
	}
	if !s.Process.Terminal || *s.Process.OOMScoreAdj != -998 {
		t.Errorf("terminal %v, OOM score %d", s.Process.Terminal, *s.Process.OOMScoreAdj)
	}
	sysctls := map[string]string{"net.ipv4.ip_unprivileged_port_start": "1024", "kernel.msgmax": "9000"}
	if diff := cmp.Diff(sysctls, s.Linux.Sysctl); diff != "" {
		t.Errorf("sysctls (-want +got):\n%s", diff)
	}
	limits := []specs.POSIXRlimit{
		{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 1 << 20},
		{Type: "RLIMIT_CORE", Soft: 1, Hard: 1<<64 - 1},
		{Type: "RLIMIT_NPROC", Soft: 5, Hard: 6},
	}
	if diff := cmp.Diff(limits, s.Process.Rlimits); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
	options := map[string][]string{}
	for _, m := range s.Mounts {
		options[m.Destination] = m.Options
	}
	if diff := cmp.Diff([]string{"nosuid", "noexec", "nodev", "mode=1777", "size=1048576"}, options["/dev/shm"]); diff != "" {
		t.Errorf("/dev/shm (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"nosuid", "nodev", "mode=700", "uid=7", "gid=0"}, options["/run"]); diff != "" {
		t.Errorf("/run (-want +got):\n%s", diff)
	}
}

func TestCompile_RunsTheProgramUnderAnInit(t *testing.T) {
	for _, tt := range []struct {
		path string
		want []string
	}{
		{"x", []string{initPath, "/a/x", "/b/x", "--", "x", "1"}},
		{"/bin/x", []string{initPath, "/bin/x", "--", "/bin/x", "1"}},
	} {
		task := newTask(&api.ContainerSpec{Init: true, Command: []string{tt.path}, Args: []string{"1"}, Env: []string{"PATH=/a:rel:/b"}})
		s, err := compiled(t, plan{task: task, idBase: 1 << 28})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, s.Process.Args); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	files, err := initFiles(&api.ContainerSpec{Init: true})
	if err != nil || len(files) != 1 || files[0].Path != initPath || !files[0].Exec || len(files[0].Data) == 0 {
		t.Errorf("%v, %v", files, err)
	}
}

func TestCompile_AsManyFilesAsTheNodeHas(t *testing.T) {
	most, err := mostFiles()
	if err != nil {
		t.Fatal(err)
	}
	files := func(hard int64) (*specs.Spec, error) {
		task := newTask(&api.ContainerSpec{Command: []string{"/x"}, Ulimits: []*api.Ulimit{{Name: "nofile", Soft: 512, Hard: hard}}})
		return compiled(t, plan{task: task, idBase: 1 << 28})
	}
	s, err := files(-1)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: 512, Hard: most}, s.Process.Rlimits[0]); diff != "" {
		t.Errorf("without a limit (-want +got):\n%s", diff)
	}
	if _, err := files(int64(most) + 1); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "(fs.nr_open)") {
		t.Errorf("more than the node has: %v", err)
	}
}

func TestCompile_RefusesWhatTheManagersWould(t *testing.T) {
	for want, c := range map[string]*api.ContainerSpec{
		"OOM score -999":                      {OomScoreAdj: -999},
		"the soft limit must not be above":    {Ulimits: []*api.Ulimit{{Name: "core", Soft: 2, Hard: 1}}},
		"core=-2:-1: the soft limit must not": {Ulimits: []*api.Ulimit{{Name: "core", Soft: -2, Hard: -1}}},
	} {
		c.Command = []string{"/x"}
		if _, err := compiled(t, plan{task: newTask(c), idBase: 1 << 28}); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestLookup_AddsGroups(t *testing.T) {
	a := accounts{passwd: []byte("app:x:7:8::/:/x\n"), group: []byte("staff:x:50:app\nwww:x:33:\nbig:x:65536:\n")}
	got, err := a.lookup("app", "www", "staff", "1000")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(account{uid: 7, gid: 8, groups: []uint32{8, 50, 33, 1000}, home: "/"}, got, cmp.AllowUnexported(account{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for group, want := range map[string]string{"nope": "not in the image's /etc/group", "big": "not within the 65536 ids", "70000": "not within"} {
		if _, err := a.lookup("app", group); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("group %s: got %v, want %q", group, err, want)
		}
	}
	many := make([]string, maxGroups+1)
	for i := range many {
		many[i] = string(rune('0' + i%10))
	}
	if got, err := a.lookup("", many...); err != nil || len(got.groups) != 10 {
		t.Errorf("repeated groups: %d of them, %v", len(got.groups), err)
	}
}
