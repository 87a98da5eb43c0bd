package spec

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/cgroup"
)

func base(t testing.TB) *specs.Spec {
	t.Helper()
	s, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	s.Process.Args = []string{"/bin/true"}
	return s
}

func ptr[T any](v T) *T { return &v }

func TestDefault_CompilesToLeastPrivilege(t *testing.T) {
	p, err := Compile(base(t), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	caps := Capabilities{Bounding: 0xa80425fb, Effective: 0xa80425fb, Permitted: 0xa80425fb}
	if diff := cmp.Diff(caps, p.Process.Capabilities); diff != "" {
		t.Errorf("capabilities (-want +got):\n%s", diff)
	}
	if !p.Process.NoNewPrivs || p.Seccomp == nil || p.Limits.Pids != defaultPids || p.OOMScoreAdj != 0 {
		t.Errorf("no new privileges %v, seccomp %v, limits %+v, oom score %d", p.Process.NoNewPrivs, p.Seccomp != nil,
			p.Limits, p.OOMScoreAdj)
	}
	if diff := cmp.Diff([]IDRange{{0, DefaultIDBase, DefaultIDs}}, p.UIDs); diff != "" {
		t.Errorf("ids (-want +got):\n%s", diff)
	}
	for _, m := range p.Mounts {
		if !m.Trusted || m.Bind() || m.Attr&unix.MOUNT_ATTR_NOSUID == 0 {
			t.Errorf("mount %+v", m)
		}
	}
	if _, err := Compile(base(t), "arm64"); err != nil {
		t.Errorf("on arm64: %v", err)
	}
}

func TestDefault_IsTheCallersOwn(t *testing.T) {
	a, b := base(t), base(t)
	a.Linux.UIDMappings[0].HostID = 1
	a.Linux.MaskedPaths[0] = "/x"
	a.Process.Capabilities.Bounding[0] = "CAP_X"
	if diff := cmp.Diff(base(t), b); diff != "" {
		t.Errorf("changing one default changed another:\n%s", diff)
	}
	if a.Linux.GIDMappings[0].HostID == 1 {
		t.Error("user and group mappings share memory")
	}
}

func TestCompile_Limits(t *testing.T) {
	s := base(t)
	s.Linux.Resources = &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(64 << 20)), Reservation: ptr(int64(32 << 20))},
		CPU:    &specs.LinuxCPU{Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Shares: ptr(uint64(512))},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(10))},
	}
	p, err := Compile(s, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	want := cgroup.Limits{
		Memory: 64 << 20, MemoryReservation: 32 << 20, CPUQuota: 50 * time.Millisecond, CPUPeriod: 100 * time.Millisecond,
		CPUShares: 512, Pids: 10,
	}
	if diff := cmp.Diff(want, p.Limits); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
	s.Linux.Resources = &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(-1))}, CPU: &specs.LinuxCPU{Quota: ptr(int64(-1))},
		Pids: &specs.LinuxPids{Limit: ptr(int64(-1))},
	}
	if p, err := Compile(s, "amd64"); err != nil || !cmp.Equal(p.Limits, cgroup.Limits{}) {
		t.Errorf("unlimited: %+v, %v", p, err)
	}
}

func TestCompile_Mounts(t *testing.T) {
	s := base(t)
	s.Linux.Sysctl = nil // which needs /proc
	s.Mounts = []specs.Mount{
		{Destination: "/data/", Type: "bind", Source: "/srv//data", Options: []string{"rbind", "ro", "dev", "idmap", "X-skep.nolinks", "X-mount.subdir=a/../b"}},
		{Destination: "/tmp", Type: "tmpfs", Options: []string{"size=1m", "noexec", "suid"}},
		{Destination: "/dev/pts", Type: "devpts", Options: []string{"newinstance", "gid=5"}},
		{Destination: "/all", Type: "bind", Source: "/srv", Options: []string{"rbind", "ro", "rro", "rslave"}},
		{Destination: "/top", Type: "bind", Source: "/srv", Options: []string{"bind", "rprivate", "shared"}},
		{Destination: "/image", Type: "overlay", Options: []string{"lowerdir+=/l/2", "lowerdir+=/l//1", "rw", "X-mount.subdir=a/b"}},
		{Destination: "/own", Type: "bind", Source: "/srv", Options: []string{"bind", "shared", "rprivate"}},
	}
	p, err := Compile(s, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	const nosuid, nodev = unix.MOUNT_ATTR_NOSUID, unix.MOUNT_ATTR_NODEV
	want := []Mount{
		{Target: "data", Source: "/srv/data", Subdir: "b", Recursive: true, IDMap: true, NoLinks: true, Attr: unix.MOUNT_ATTR_RDONLY | nosuid | nodev, AllAttr: nosuid | nodev},
		{Target: "tmp", Type: "tmpfs", Options: []Option{{"size", "1m"}}, Attr: unix.MOUNT_ATTR_NOEXEC | nosuid | nodev},
		{Target: "dev/pts", Trusted: true, Type: "devpts", Options: []Option{{"newinstance", ""}, {"gid", "5"}}, Attr: nosuid},
		{Target: "all", Source: "/srv", Recursive: true, Attr: unix.MOUNT_ATTR_RDONLY | nosuid | nodev, AllAttr: unix.MOUNT_ATTR_RDONLY | nosuid | nodev, Propagation: unix.MS_SLAVE | unix.MS_REC},
		{Target: "top", Source: "/srv", Attr: nosuid | nodev, AllAttr: nosuid | nodev, Propagation: unix.MS_SHARED},
		{Target: "image", Type: "overlay", Layers: []string{"/l/2", "/l/1"}, Subdir: "a/b", Attr: unix.MOUNT_ATTR_RDONLY | nosuid | nodev},
		{Target: "own", Source: "/srv", Attr: nosuid | nodev, AllAttr: nosuid | nodev},
	}
	if diff := cmp.Diff(want, p.Mounts); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
}

func TestCompile_Programs(t *testing.T) {
	for _, tc := range []struct {
		name, path string
		want       []string
	}{
		{"/bin/x", "/a", []string{"/bin/x"}},
		{"./x", "/a", []string{"./x"}},
		{"x", "/a:b::/c", []string{"/a/x", "/c/x"}},
		{"x", "", []string{"/bin/x"}},
	} {
		if diff := cmp.Diff(tc.want, Programs(tc.name, tc.path)); diff != "" {
			t.Errorf("Programs(%q, %q) (-want +got):\n%s", tc.name, tc.path, diff)
		}
	}
}

func TestCompile_Refuses(t *testing.T) {
	mount := func(m specs.Mount) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Mounts = append(s.Mounts, m) }
	}
	ids := func(m ...specs.LinuxIDMapping) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Linux.UIDMappings = m }
	}
	for _, tc := range []struct {
		name  string
		edit  func(*specs.Spec)
		field string
	}{
		{"no program", func(s *specs.Spec) { s.Process.Args = nil }, "process.args"},
		{"NUL in an argument", func(s *specs.Spec) { s.Process.Args = []string{"/a", "b\x00c"} }, "process.args"},
		{"variable without a value", func(s *specs.Spec) { s.Process.Env = []string{"X"} }, "process.env[0]"},
		{"too many bytes", func(s *specs.Spec) { s.Process.Args = []string{strings.Repeat("x", maxStrings+1)} }, "process.args"},
		{"deep directory", func(s *specs.Spec) { s.Process.Cwd = strings.Repeat("/d", maxDepth+1) }, "process.cwd"},
		{"relative directory", func(s *specs.Spec) { s.Process.Cwd = "x" }, "process.cwd"},
		{"bind mount over /proc", mount(specs.Mount{Destination: "/proc", Type: "bind", Source: "/srv"}), "mounts[7] /proc"},
		{"parameters without /proc", func(s *specs.Spec) { s.Mounts = s.Mounts[1:] }, "linux.sysctl"},
		{"hooks", func(s *specs.Spec) { s.Hooks = &specs.Hooks{} }, "hooks"},
		{"unmapped user", func(s *specs.Spec) { s.Process.User.UID = 70000 }, "process.user.uid"},
		{"unmapped group", func(s *specs.Spec) { s.Process.User.AdditionalGids = []uint32{70000} }, "process.user.gid"},
		{"unknown capability", func(s *specs.Spec) { s.Process.Capabilities.Bounding = []string{"CAP_FLY"} }, "process.capabilities"},
		{"capability beyond the bound", func(s *specs.Spec) { s.Process.Capabilities.Permitted = []string{"CAP_SYS_ADMIN"} }, "process.capabilities"},
		{"ambient beyond inheritable", func(s *specs.Spec) { s.Process.Capabilities.Ambient = []string{"CAP_CHOWN"} }, "process.capabilities"},
		{"soft above hard", func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_AS", Soft: 2, Hard: 1}} }, "process.rlimits"},
		{"oom score", func(s *specs.Spec) { s.Process.OOMScoreAdj = ptr(-999) }, "process.oomScoreAdj"},
		{"apparmor", func(s *specs.Spec) { s.Process.ApparmorProfile = "a b" }, "process.apparmorProfile"},
		{"host network", func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[:3] }, "linux.namespaces"},
		{"joined namespace", func(s *specs.Spec) { s.Linux.Namespaces[3].Path = "/proc/1/ns/net" }, "linux.namespaces"},
		{"namespace twice", func(s *specs.Spec) { s.Linux.Namespaces[1] = s.Linux.Namespaces[0] }, "linux.namespaces"},
		{"host root", ids(specs.LinuxIDMapping{Size: 65536}), "linux.uidMappings"},
		{"no mapping", ids(), "linux.uidMappings"},
		{"no root", ids(specs.LinuxIDMapping{ContainerID: 1, HostID: 100000, Size: 10}), "linux.uidMappings"},
		{"wraps around", ids(specs.LinuxIDMapping{HostID: 1 << 31, Size: 1<<32 - 1}), "linux.uidMappings"},
		{"overlap", ids(specs.LinuxIDMapping{HostID: 100000, Size: 10}, specs.LinuxIDMapping{ContainerID: 10, HostID: 100005, Size: 10}), "linux.uidMappings"},
		{"device", func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{}} }, "linux.devices"},
		{"device of every container", func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/null", Type: "c", Major: 10, Minor: 229}}
		}, "linux.devices"},
		{"device elsewhere", func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/etc/x", Type: "c", Major: 10, Minor: 229}}
		}, "linux.devices"},
		{"rule for every device", func(s *specs.Spec) {
			s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Type: "a", Access: "rwm"}}
		}, "linux.resources.devices"},
		{"rule to make a device", func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229}}
			s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: ptr(int64(10)), Minor: ptr(int64(229)), Access: "rwm"}}
		}, "linux.resources.devices"},
		{"rule for another device", func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229}}
			s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: ptr(int64(10)), Minor: ptr(int64(-1)), Access: "r"}}
		}, "linux.resources.devices"},
		{"sysctl of the host", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.panic": "1"} }, "linux.sysctl"},
		{"sysctl with a path", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.../../kernel": "1"} }, "linux.sysctl"},
		{"little memory", func(s *specs.Spec) {
			s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(MinMemory - 1))}
		}, "linux.resources.memory.limit"},
		{"swap", func(s *specs.Spec) {
			s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(2 * MinMemory)), Swap: ptr(int64(MinMemory))}
		}, "linux.resources.memory.swap"},
		{"swap alone", func(s *specs.Spec) {
			s.Linux.Resources.Memory = &specs.LinuxMemory{Swap: ptr(int64(MinMemory))}
		}, "linux.resources.memory.swap"},
		{"cpuset", func(s *specs.Spec) { s.Linux.Resources.CPU = &specs.LinuxCPU{Cpus: "0\n1"} }, "linux.resources.cpu.cpus"},
		{"every device", func(s *specs.Spec) {
			s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		}, "linux.resources.devices"},
		{"a kind of device", func(s *specs.Spec) {
			s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Type: "b", Major: ptr(int64(8)), Access: "r"}}
		}, "linux.resources.devices"},
		{"access to a device", func(s *specs.Spec) {
			s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Type: "b", Major: ptr(int64(8)), Minor: ptr(int64(0)), Access: "x"}}
		}, "linux.resources.devices"},
		{"rate of nothing", func(s *specs.Spec) {
			s.Linux.Resources.BlockIO = &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{{}}}
		}, "linux.resources.blockIO.throttleReadBpsDevice"},
		{"tiny quota", func(s *specs.Spec) { s.Linux.Resources.CPU = &specs.LinuxCPU{Quota: ptr(int64(1))} }, "linux.resources.cpu.quota"},
		{"seccomp", func(s *specs.Spec) { s.Linux.Seccomp.DefaultAction = "X" }, "linux.seccomp"},
		{"masked root", func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"/x/.."} }, "linux.maskedPaths"},
		{"long hostname", func(s *specs.Spec) { s.Hostname = strings.Repeat("h", 65) }, "hostname"},
		{"mount over the root", mount(specs.Mount{Destination: "/.", Type: "tmpfs"}), "mounts"},
		{"mount in proc", mount(specs.Mount{Destination: "/x/../proc/sys", Type: "tmpfs"}), "mounts"},
		{"tmpfs for proc", mount(specs.Mount{Destination: "/proc", Type: "tmpfs"}), "mounts"},
		{"proc elsewhere", mount(specs.Mount{Destination: "/x", Type: "proc"}), "mounts"},
		{"disk", mount(specs.Mount{Destination: "/x", Type: "ext4", Source: "/dev/vda"}), "mounts"},
		{"cgroup elsewhere", mount(specs.Mount{Destination: "/sys/fs/x", Type: "cgroup"}), "mounts"},
		{"bind over the cgroups", mount(specs.Mount{Destination: "/sys/fs/cgroup", Type: "bind", Source: "/x"}), "mounts"},
		{"relative bind", mount(specs.Mount{Destination: "/x", Type: "bind", Source: "y"}), "mounts"},
		{"unbindable bind", mount(specs.Mount{Destination: "/x", Type: "bind", Source: "/y", Options: []string{"unbindable"}}), "mounts"},
		{"overlay without layers", mount(specs.Mount{Destination: "/x", Type: "overlay", Options: []string{"ro"}}), "0 layers, 1 to 256 are possible"},
		{"overlay with a writable layer", mount(specs.Mount{Destination: "/x", Type: "overlay", Options: []string{"lowerdir+=/a", "upperdir=/b"}}), "mounts"},
		{"overlay of relative layers", mount(specs.Mount{Destination: "/x", Type: "overlay", Options: []string{"lowerdir+=a"}}), `layer "a" is not an absolute path`},
		{"overlay over devices", mount(specs.Mount{Destination: "/dev/x", Type: "overlay", Options: []string{"lowerdir+=/a"}}), "would replace a kernel file system"},
		{"shared tmpfs", mount(specs.Mount{Destination: "/x", Type: "tmpfs", Options: []string{"rshared"}}), "mounts"},
		{"unknown option", mount(specs.Mount{Destination: "/x", Type: "tmpfs", Options: []string{"huge=always"}}), "mounts"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := base(t)
			tc.edit(s)
			p, err := Compile(s, "amd64")
			if !errors.Is(err, ErrSpec) || p != nil || !strings.Contains(err.Error(), tc.field) {
				t.Errorf("got %v, %v; want an error about %s", p, err, tc.field)
			}
		})
	}
	for _, s := range []*specs.Spec{nil, {}, {Process: &specs.Process{}}} {
		if _, err := Compile(s, "amd64"); !errors.Is(err, ErrSpec) {
			t.Errorf("%v: %v, want ErrSpec", s, err)
		}
	}
}

func TestCompile_Resources(t *testing.T) {
	s := base(t)
	rate := func(minor int64, rate uint64) []specs.LinuxThrottleDevice {
		d := specs.LinuxThrottleDevice{Rate: rate}
		d.Major, d.Minor = 8, minor
		return []specs.LinuxThrottleDevice{d}
	}
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/kvm", Type: "c", Major: 10, Minor: 232}}
	s.Linux.Resources = &specs.LinuxResources{
		Devices: []specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: ptr(int64(10)), Minor: ptr(int64(232)), Access: "rw"}},
		Memory:  &specs.LinuxMemory{Limit: ptr(int64(MinMemory)), Swap: ptr(int64(cgroup.Unlimited))},
		CPU:     &specs.LinuxCPU{Cpus: "0-1,3", Mems: "0"},
		BlockIO: &specs.LinuxBlockIO{
			ThrottleReadBpsDevice: rate(0, 1), ThrottleWriteBpsDevice: rate(0, 2),
			ThrottleReadIOPSDevice: rate(16, 3), ThrottleWriteIOPSDevice: rate(0, 4),
		},
	}
	p, err := Compile(s, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	want := cgroup.Limits{
		Memory: MinMemory, MemorySwap: cgroup.Unlimited, CPUs: "0-1,3", Mems: "0",
		Devices: append(cgroup.StockDevices(), cgroup.DeviceRule{Allow: true, Type: 'c', Major: 10, Minor: 232, Access: "rw"}),
		IO:      []cgroup.IORate{{Major: 8, ReadBPS: 1, WriteBPS: 2, WriteIOPS: 4}, {Major: 8, Minor: 16, ReadIOPS: 3}},
	}
	if diff := cmp.Diff(want, p.Limits); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
}
