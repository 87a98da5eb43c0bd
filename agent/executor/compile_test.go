package executor

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"pgregory.net/rapid"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/runtime/spec"
)

func newTask(c *api.ContainerSpec) *api.Task {
	return &api.Task{
		Id: "0123456789abcdefghijklmno", ServiceId: "s1", ServiceName: "web", Slot: 3,
		Spec: &api.TaskSpec{Container: c},
	}
}

// compiled compiles a plan onto the defaults.
func compiled(t interface {
	Helper()
	Fatal(...any)
}, p plan,
) (*specs.Spec, error) {
	t.Helper()
	s, err := spec.Default()
	if err != nil {
		t.Fatal(err)
	}
	return s, p.compile(s)
}

func TestCompile_TakesTheProgramAsDockerDoes(t *testing.T) {
	image := ocispec.ImageConfig{Entrypoint: []string{"/entry"}, Cmd: []string{"cmd"}, WorkingDir: "app"}
	tests := []struct {
		name string
		spec *api.ContainerSpec
		args []string
		cwd  string
	}{
		{"image", &api.ContainerSpec{}, []string{"/entry", "cmd"}, "/app"},
		{"args replace cmd", &api.ContainerSpec{Args: []string{"a", "b"}}, []string{"/entry", "a", "b"}, "/app"},
		{"command replaces both", &api.ContainerSpec{Command: []string{"/c"}}, []string{"/c"}, "/app"},
		{"command and args", &api.ContainerSpec{Command: []string{"/c"}, Args: []string{"a"}, Dir: "/d/../e"}, []string{"/c", "a"}, "/e"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, err := compiled(t, plan{task: newTask(test.spec), image: image, idBase: 1 << 28})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.args, s.Process.Args); diff != "" || s.Process.Cwd != test.cwd {
				t.Errorf("args %s, directory %s", diff, s.Process.Cwd)
			}
		})
	}
}

func TestCompile_Environment(t *testing.T) {
	p := plan{
		task:   newTask(&api.ContainerSpec{Env: []string{"A=service", "B", "C=", "SKEP_TASK_ID=forged"}}),
		image:  ocispec.ImageConfig{Env: []string{"A=image", "B=image", "PATH=/bin", "=nameless"}},
		nodeID: "n1", nodeName: "host", idBase: 1 << 28,
	}
	want := []string{
		"PATH=/bin", "A=service", "HOSTNAME=0123456789ab",
		"SPIFFE_ENDPOINT_SOCKET=unix:///run/skep/identity/workload.sock", "C=", "SKEP_TASK_ID=0123456789abcdefghijklmno", "SKEP_NODE_ID=n1",
		"SKEP_NODE_HOSTNAME=host", "SKEP_SERVICE_ID=s1", "SKEP_SERVICE_NAME=web", "SKEP_TASK_SLOT=3",
		"SKEP_TASK_NAME=web.3.0123456789abcdefghijklmno",
	}
	if diff := cmp.Diff(want, p.env()); diff != "" {
		t.Error(diff)
	}
	for env, want := range map[string]string{"": "HOME=/srv/app", "HOME": "HOME=/srv/app", "HOME=/data": "HOME=/data"} {
		p.task, p.user.home = newTask(&api.ContainerSpec{Env: []string{env}}), "/srv/app"
		if got := p.env(); !slices.Contains(got, want) {
			t.Errorf("with %q: %q, want %s", env, got, want)
		}
	}
	p.task.GenericResources = []*api.GenericResource{{Kind: "gpu", Ids: []string{"GPU-1", "GPU-2"}}, {Kind: "ssd", Count: 3}}
	p.task.Spec.Container.Env = append(p.task.Spec.Container.Env, "DOCKER_RESOURCE_SSD=forged")
	for _, want := range []string{"DOCKER_RESOURCE_GPU=GPU-1,GPU-2", "DOCKER_RESOURCE_SSD=3"} {
		if got := p.env(); !slices.Contains(got, want) {
			t.Errorf("with generic resources: %q, want %s", got, want)
		}
	}
	for env, want := range map[string]string{"": "TERM=xterm", "TERM=vt100": "TERM=vt100"} {
		p.task = newTask(&api.ContainerSpec{Tty: true, Env: []string{env}})
		if got := p.env(); !slices.Contains(got, want) {
			t.Errorf("with a terminal and %q: %q, want %s", env, got, want)
		}
	}
}

func TestCompile_LimitsAndMounts(t *testing.T) {
	task := newTask(&api.ContainerSpec{
		Command: []string{"/x"}, ReadOnly: true, Hostname: "db",
		Mounts: []*api.Mount{{Type: api.MountType_MOUNT_TYPE_TMPFS, Target: "/tmp", TmpfsSizeBytes: 1 << 20, ReadOnly: true}},
	})
	task.Spec.Resources = &api.ResourceRequirements{
		Limits:       &api.Resources{MemoryBytes: 64 << 20, NanoCpus: 500_000_000, Pids: 100},
		Reservations: &api.Resources{MemoryBytes: 32 << 20},
	}
	s, err := compiled(t, plan{task: task, idBase: 1 << 28})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := spec.Compile(s, "amd64"); err != nil {
		t.Errorf("the runtime refuses it: %v", err)
	}
	r := s.Linux.Resources
	got := []int64{*r.Memory.Limit, *r.Memory.Swap, *r.Memory.Reservation, *r.CPU.Quota, int64(*r.CPU.Period), *r.Pids.Limit}
	if diff := cmp.Diff([]int64{64 << 20, 64 << 20, 32 << 20, 50_000, 100_000, 100}, got); diff != "" {
		t.Error(diff)
	}
	want := specs.Mount{
		Destination: "/tmp", Type: "tmpfs", Source: "tmpfs",
		Options: []string{"nosuid", "nodev", "noexec", "mode=1777", "size=1048576", "ro"},
	}
	if diff := cmp.Diff(want, s.Mounts[len(s.Mounts)-1]); diff != "" || !s.Root.Readonly || s.Hostname != "db" {
		t.Errorf("mount %s, read-only %v, host name %s", diff, s.Root.Readonly, s.Hostname)
	}
}

func TestCompile_RefusesMistakes(t *testing.T) {
	limits := func(r *api.Resources) *api.Task {
		task := newTask(&api.ContainerSpec{Command: []string{"/x"}})
		task.Spec.Resources = &api.ResourceRequirements{Limits: r}
		return task
	}
	mount := func(target string) *api.Task {
		return newTask(&api.ContainerSpec{Command: []string{"/x"}, Mounts: []*api.Mount{{Type: api.MountType_MOUNT_TYPE_TMPFS, Target: target}}})
	}
	tests := map[string]struct {
		task *api.Task
		want string
	}{
		"no program":  {newTask(nil), "give the service a command"},
		"memory":      {limits(&api.Resources{MemoryBytes: 4<<20 - 1}), "the least is 4MiB"},
		"cpu":         {limits(&api.Resources{NanoCpus: 1}), "the least is 0.01"},
		"pids":        {limits(&api.Resources{Pids: -1}), "the least is 1"},
		"capability":  {newTask(&api.ContainerSpec{Command: []string{"/x"}, CapabilityAdd: []string{"CAP_FLY"}}), "CAP_FLY"},
		"mount proc":  {mount("/proc/x"), "would hide"},
		"mount root":  {mount("/tmp/.."), "below /"},
		"mount where": {mount("tmp"), "absolute"},
		"mount type":  {newTask(&api.ContainerSpec{Command: []string{"/x"}, Mounts: []*api.Mount{{Target: "/a"}}}), "tmpfs and volume only"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := compiled(t, plan{task: test.task, idBase: 1 << 28})
			if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestCompile_LeavesTheDefaultsAlone(t *testing.T) {
	base, err := spec.Default()
	if err != nil {
		t.Fatal(err)
	}
	want, err := spec.Default()
	if err != nil {
		t.Fatal(err)
	}
	task := newTask(&api.ContainerSpec{
		Command: []string{"/x"}, ReadOnly: true, CapabilityAdd: []string{"NET_ADMIN"}, Env: []string{"A=b"},
		Mounts:  []*api.Mount{{Type: api.MountType_MOUNT_TYPE_TMPFS, Target: "/tmp"}},
		Sysctls: map[string]string{"net.ipv4.ip_forward": "1"}, Ulimits: []*api.Ulimit{{Name: "core", Soft: -1, Hard: -1}},
		ShmSizeBytes: 1 << 20, OomScoreAdj: 5, Tty: true,
	})
	task.Spec.Resources = &api.ResourceRequirements{Limits: &api.Resources{MemoryBytes: 64 << 20, NanoCpus: 1e9, Pids: 5}}
	if err := (plan{task: task, user: account{uid: 1}, idBase: 1 << 28}).compile(copySpec(base)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, base); diff != "" {
		t.Errorf("one container's settings reached the next: %s", diff)
	}
}

// TestCompile_TheImageNeverWeakensIsolation compares what comes of any image with what comes of none (E2).
func TestCompile_TheImageNeverWeakensIsolation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SampledFrom([]string{"", "root", "/", "..", "CAP_SYS_ADMIN", "SKEP_NODE_ID=x", "PATH=/x", "privileged", "65536"})
		list := rapid.SliceOfN(text, 0, 4)
		image := ocispec.ImageConfig{
			User: text.Draw(t, "user"), Env: list.Draw(t, "env"), Entrypoint: list.Draw(t, "entrypoint"), Cmd: list.Draw(t, "cmd"),
			WorkingDir: text.Draw(t, "dir"), StopSignal: text.Draw(t, "signal"), Labels: map[string]string{text.Draw(t, "label"): "true"},
			Volumes: map[string]struct{}{text.Draw(t, "volume"): {}}, ExposedPorts: map[string]struct{}{"80/tcp": {}},
		}
		p := plan{task: newTask(&api.ContainerSpec{Command: []string{"/x"}}), idBase: 1 << 28}
		want, err := compiled(t, p)
		if err != nil {
			t.Fatal(err)
		}
		p.image = image
		got, err := compiled(t, p)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []*specs.Spec{want, got} {
			s.Process.Env, s.Process.Args, s.Process.Cwd = nil, nil, ""
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestCapabilities(t *testing.T) {
	base := []string{"CAP_CHOWN", "CAP_KILL"}
	tests := []struct {
		name      string
		add, drop []string
		want      []string
	}{
		{"as they are", nil, nil, []string{"CAP_CHOWN", "CAP_KILL"}},
		{"add", []string{"net_admin", "CAP_KILL"}, nil, []string{"CAP_CHOWN", "CAP_KILL", "CAP_NET_ADMIN"}},
		{"drop all but one", []string{"CAP_KILL"}, []string{"ALL"}, []string{"CAP_KILL"}},
		{"drop all", nil, []string{"all"}, nil},
		{"drop wins", []string{"KILL"}, []string{"KILL"}, []string{"CAP_CHOWN"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := changeCapabilities(base, test.add, test.drop)
			if diff := cmp.Diff(test.want, got); diff != "" || err != nil {
				t.Errorf("%s, %v", diff, err)
			}
		})
	}
	all, err := changeCapabilities(base, []string{"ALL"}, []string{"SYS_ADMIN"})
	if err != nil || len(all) != 40 || slices.Contains(all, "CAP_SYS_ADMIN") {
		t.Errorf("all but one: %d, %v", len(all), err)
	}
}

func TestCompile_OnlyRootHasCapabilitiesInEffect(t *testing.T) {
	for uid, want := range map[uint32]int{0: 14, 1000: 0} {
		s, err := compiled(t, plan{task: newTask(&api.ContainerSpec{Command: []string{"/x"}}), user: account{uid: uid}, idBase: 1 << 28})
		if err != nil {
			t.Fatal(err)
		}
		if c := s.Process.Capabilities; len(c.Effective) != want || len(c.Permitted) != want || len(c.Bounding) != 14 || len(c.Ambient) != 0 {
			t.Errorf("user %d: %+v", uid, c)
		}
	}
}

// TestCompile_GivesWhatIsGranted: a task has the capabilities of its grants, unless its service drops them.
func TestCompile_GivesWhatIsGranted(t *testing.T) {
	task := newTask(&api.ContainerSpec{Command: []string{"/x"}, CapabilityDrop: []string{"ALL"}})
	task.Grants = []*api.Grant{{Spec: &api.GrantSpec{Capabilities: []string{"CAP_NET_ADMIN"}}}}
	s, err := compiled(t, plan{task: task, idBase: 1 << 28})
	if err != nil || !slices.Equal(s.Process.Capabilities.Effective, []string{"CAP_NET_ADMIN"}) {
		t.Errorf("got %v, %v", s.Process.Capabilities, err)
	}
	task.Spec.Container.CapabilityDrop = []string{"NET_ADMIN"}
	s, err = compiled(t, plan{task: task, idBase: 1 << 28})
	if err != nil || len(s.Process.Capabilities.Bounding) != 14 || slices.Contains(s.Process.Capabilities.Bounding, "CAP_NET_ADMIN") {
		t.Errorf("dropped: got %v, %v", s.Process.Capabilities, err)
	}
}

func TestCheckHostname(t *testing.T) {
	for name, want := range map[string]bool{
		"": true, "web-1.example": true, "WEB": true, "a b": false, "a\n1.2.3.4 bank": false, strings.Repeat("a", 65): false,
	} {
		if err := checkHostname(name); (err == nil) != want {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestParseSignal(t *testing.T) {
	for name, want := range map[string]int{
		"": 15, "SIGTERM": 15, "term": 15, "9": 9, "SIGQUIT": 3, "RTMIN": 34, "SIGRTMIN+3": 37, "sigrtmax-1": 63, "RTMAX": 64,
	} {
		if got, err := parseSignal(name); int(got) != want || err != nil {
			t.Errorf("%q: %d, %v, want %d", name, got, err, want)
		}
	}
	for _, name := range []string{"0", "65", "-1", "SIG", "nonsense", "RTMIN+31", "RTMAX-31", "RTMIN-1", "RTMINx"} {
		if got, err := parseSignal(name); err == nil {
			t.Errorf("%q: %d, want an error", name, got)
		}
	}
}

func TestSecretFiles(t *testing.T) {
	ref := func(name string, target *api.SecretTarget) *api.SecretReference {
		return &api.SecretReference{SecretId: "id-" + name, SecretName: name, Target: target}
	}
	got, err := secretFiles(newTask(&api.ContainerSpec{Secrets: []*api.SecretReference{
		ref("db", nil), ref("tls", &api.SecretTarget{Name: "key", Uid: 10, Gid: 11, Mode: 0o400}), ref("abs", &api.SecretTarget{Name: "/etc/app/key"}),
	}}))
	want := []secretFile{
		{id: "id-db", name: "db", path: "/run/secrets/db", mode: 0o444},
		{id: "id-tls", name: "tls", named: "key", path: "/run/secrets/key", uid: 10, gid: 11, mode: 0o400},
		{id: "id-abs", name: "abs", named: "/etc/app/key", path: "/etc/app/key", mode: 0o444},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(secretFile{})); diff != "" || err != nil {
		t.Errorf("%s, %v", diff, err)
	}
	for name, refs := range map[string][]*api.SecretReference{
		"above":  {ref("a", &api.SecretTarget{Name: "../passwd"})},
		"itself": {ref("a", &api.SecretTarget{Name: "."})},
		"proc":   {ref("a", &api.SecretTarget{Name: "/proc/1/mem"})},
		"nested": {ref("a", &api.SecretTarget{Name: "certs/key"})},
		"SVID":   {ref("a", &api.SecretTarget{Name: "/run/skep/identity/svid.pem"})},
		"twice":  {ref("a", nil), ref("b", &api.SecretTarget{Name: "a"})},
		"owner":  {ref("a", &api.SecretTarget{Uid: rangeSize})},
	} {
		if got, err := secretFiles(newTask(&api.ContainerSpec{Secrets: refs})); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestRanges_AreDisjoint(t *testing.T) {
	r := newRanges(maxHostID - 3*rangeSize)
	seen := map[uint32]bool{}
	for range 3 {
		first, err := r.take()
		if err != nil || seen[first] {
			t.Fatalf("E1: %d, %v", first, err)
		}
		seen[first] = true
	}
	if _, err := r.take(); err == nil {
		t.Error("a fourth range")
	}
	r.give(maxHostID - 2*rangeSize)
	if first, err := r.take(); first != maxHostID-2*rangeSize || err != nil {
		t.Errorf("got %d, %v", first, err)
	}
	for first, want := range map[uint32]bool{maxHostID - 3*rangeSize: false, maxHostID: false, 1: false} {
		if got := r.hold(first); got != want {
			t.Errorf("hold %d: %v", first, got)
		}
	}
}

func TestResolvers(t *testing.T) {
	files := map[string]string{}
	read := func(name string) ([]byte, error) { return []byte(files[name]), nil }
	files[hostResolvers] = "# made by hand\nnameserver 127.0.0.53\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nsearch  example.org\nsortlist 1.2.3.4\n"
	files[systemdResolvers] = "nameserver 198.51.100.53\n"
	check := func(want string) {
		t.Helper()
		if got, err := resolvers(read); string(got) != want || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	check("nameserver 192.0.2.53\nsearch example.org\n")
	files[hostResolvers] = "nameserver 127.0.0.53\noptions edns0\n"
	check("nameserver 198.51.100.53\n")
	files[systemdResolvers] = ""
	check("options edns0\n")
}

func TestCompile_LimitsOfDevices(t *testing.T) {
	task := newTask(nil)
	compile := func(path string) (*specs.LinuxBlockIO, error) {
		task.Spec.Resources = &api.ResourceRequirements{DeviceRates: []*api.DeviceRate{{Path: path, ReadBps: 5, WriteIops: 6}}}
		s, err := compiled(t, plan{task: task, image: ocispec.ImageConfig{Cmd: []string{"x"}}, idBase: 1 << 28})
		return s.Linux.Resources.BlockIO, err
	}
	for path, want := range map[string]string{
		"/dev/null":    "it is no block device on this node",
		"/dev/missing": "this node has no such device",
	} {
		if _, err := compile(path); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", path, err, want)
		}
	}
	if _, err := os.Stat("/dev/loop0"); err != nil {
		t.Skipf("needs a block device: %v", err)
	}
	got, err := compile("/dev/loop0")
	if err != nil {
		t.Fatal(err)
	}
	device := specs.LinuxThrottleDevice{Rate: 5}
	device.Major = 7
	want := &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{device}}
	device.Rate = 6
	want.ThrottleWriteIOPSDevice = []specs.LinuxThrottleDevice{device}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(specs.LinuxThrottleDevice{})); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
}

func TestCompile_SwapAndProcessors(t *testing.T) {
	for _, tc := range []struct{ asked, want int64 }{{0, 8 << 20}, {-1, -1}, {12 << 20, 12 << 20}} {
		task := newTask(nil)
		task.Spec.Resources = &api.ResourceRequirements{
			Limits: &api.Resources{MemoryBytes: 8 << 20}, MemorySwapBytes: tc.asked, CpusetCpus: "0",
		}
		s, err := compiled(t, plan{task: task, image: ocispec.ImageConfig{Cmd: []string{"x"}}, idBase: 1 << 28})
		if err != nil {
			t.Fatal(err)
		}
		if got := *s.Linux.Resources.Memory.Swap; got != tc.want || s.Linux.Resources.CPU.Cpus != "0" {
			t.Errorf("swap %d gives %d and CPUs %q, want %d", tc.asked, got, s.Linux.Resources.CPU.Cpus, tc.want)
		}
	}
}

func TestCheckCPUs(t *testing.T) {
	for list, online := range map[string]string{"0": "0", "0-3,5": "0-7", "2,1": "1-2"} {
		if err := checkCPUs(list, online); err != nil {
			t.Errorf("%s of %s: %v", list, online, err)
		}
	}
	for list, online := range map[string]string{"99": "0-1", "0-2": "0-1", "0,3": "0-2,4", "99999": "0"} {
		want := "CPUs " + list + ": this node has " + online
		if err := checkCPUs(list, online); fault.KindOf(err) != fault.Invalid || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s of %s: %v", list, online, err)
		}
	}
}

// TestCompile_GivesWhatIsGrantedOfTheNode: files with the node's ids, and devices that the node lets others use, and no more.
func TestCompile_GivesWhatIsGrantedOfTheNode(t *testing.T) {
	task := newTask(&api.ContainerSpec{Command: []string{"/x"}})
	granted := &api.GrantSpec{
		Annotations: &api.Annotations{Name: "g"}, Mounts: []*api.GrantMount{{Source: "/srv", Target: "/data", ReadOnly: true}},
		Devices: []*api.GrantDevice{{Path: "/dev/full", Permissions: "r"}},
	}
	task.Grants = []*api.Grant{{Spec: granted}}
	s, err := compiled(t, plan{task: task, idBase: 1 << 28})
	if err != nil {
		t.Fatal(err)
	}
	want := specs.Mount{Destination: "/data", Type: "bind", Source: "/srv", Options: []string{"rbind", "nosuid", "nodev", "idmap", "X-skep.nolinks", "rprivate", "ro", "rro"}}
	if diff := cmp.Diff(want, s.Mounts[len(s.Mounts)-1]); diff != "" {
		t.Error(diff)
	}
	if len(s.Linux.Resources.Devices) != 1 || *s.Linux.Resources.Devices[0].Minor != 7 || s.Linux.Resources.Devices[0].Access != "r" {
		t.Errorf("got rules %v", s.Linux.Resources.Devices)
	}
	for device, text := range map[string]string{
		"/dev/nothere": "this node has no device /dev/nothere", "/etc/passwd": "is no device", "/dev/mem": "who need rw: set the mode",
	} {
		if _, err := os.Lstat(device); err != nil && device == "/dev/mem" {
			continue // not every machine has one
		}
		granted.Devices = []*api.GrantDevice{{Path: device, Permissions: "rw"}}
		if _, err := compiled(t, plan{task: task, idBase: 1 << 28}); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: got %v", device, err)
		}
	}
}
