package spec

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// bundle is a configuration as engines write it: no user namespace, a network that another container has.
func bundle() *specs.Spec {
	return &specs.Spec{
		Process:  &specs.Process{Args: []string{"sh"}, Cwd: "/"},
		Hostname: "web",
		Mounts:   []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.MountNamespace},
			{Type: specs.PIDNamespace},
			{Type: specs.UTSNamespace},
			{Type: specs.NetworkNamespace, Path: "/proc/7/ns/net"},
		}},
	}
}

func TestCompileBundle_GivesWhatTheBundleAsksForAndNoMore(t *testing.T) {
	s := bundle()
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, GID: ptr(uint32(7))}}
	s.Linux.RootfsPropagation = "rslave"
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: "data", Type: "bind", Source: "/srv", Options: []string{"rbind", "ro", "rnosuid", "dev", "rshared"}},
		specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup2", Source: "cgroup"},
		specs.Mount{Destination: "/mnt", Type: "ext4", Source: "/dev/vda", Options: []string{"noexec", "errors=panic", "dax"}},
	)
	p, err := CompileBundle(s, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if want := uint64(unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS); p.Namespaces != want || p.UserNS() {
		t.Errorf("namespaces %#x, want %#x", p.Namespaces, want)
	}
	if diff := cmp.Diff([]Join{{Kind: unix.CLONE_NEWNET, Path: "/proc/7/ns/net"}}, p.Join); diff != "" {
		t.Errorf("joined (-want +got):\n%s", diff)
	}
	wantDevices := []Device{{
		Target: "dev/fuse", Source: "/dev/fuse", Type: unix.S_IFCHR, Major: 10, Minor: 229, Mode: 0o666, GID: 7,
	}}
	if diff := cmp.Diff(wantDevices, p.Devices); diff != "" || !p.StockDev {
		t.Errorf("usual devices: %v, others (-want +got):\n%s", p.StockDev, diff)
	}
	wantMounts := []Mount{
		{Target: "proc", Trusted: true, Type: "proc", Source: "proc"},
		{
			Target: "data", Source: "/srv", Recursive: true, Attr: unix.MOUNT_ATTR_RDONLY, Clear: unix.MOUNT_ATTR_NODEV,
			AllAttr: unix.MOUNT_ATTR_NOSUID, Propagation: unix.MS_SHARED | unix.MS_REC,
		},
		{Target: "sys/fs/cgroup", Trusted: true, Type: "cgroup", Source: "cgroup"},
		{
			Target: "mnt", Type: "ext4", Source: "/dev/vda", Attr: unix.MOUNT_ATTR_NOEXEC,
			Options: []Option{{"errors", "panic"}, {"dax", ""}},
		},
	}
	if diff := cmp.Diff(wantMounts, p.Mounts); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	if p.RootPropagation != unix.MS_SLAVE|unix.MS_REC || !p.InheritScore {
		t.Errorf("root propagation %#x, OOM score inherited: %v", p.RootPropagation, p.InheritScore)
	}
}

func TestCompileBundle_Refuses(t *testing.T) {
	mount := func(m specs.Mount) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Mounts = append(s.Mounts, m) }
	}
	for name, tc := range map[string]struct {
		edit func(*specs.Spec)
		want string
	}{
		"the host's mounts":     {func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] }, "new mount namespace is required"},
		"the host's name":       {func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[:2] }, "hostname: needs a uts namespace"},
		"a parameter it shares": {func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.shmmax": "1"} }, "does not share"},
		"a parameter of all":    {func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"vm.swappiness": "1"} }, "does not share"},
		"ids without a namespace": {func(s *specs.Spec) {
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 1, Size: 1}}
		}, "needs a new user namespace"},
		"a joined user namespace": {func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: "/proc/7/ns/user"})
		}, "joining the user namespace"},
		"a time namespace": {func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
		}, `"time" is unknown`},
		"another /proc":      {mount(specs.Mount{Destination: "/proc", Type: "tmpfs"}), "would replace /proc"},
		"a mount below it":   {mount(specs.Mount{Destination: "/proc/sys", Type: "bind", Source: "/"}), "can't be a mount point"},
		"a mount on /":       {mount(specs.Mount{Destination: "/", Type: "tmpfs"}), "can't be a mount point"},
		"a mount of nothing": {mount(specs.Mount{Destination: "/x"}), "has neither a type nor the option bind"},
		"a device in /proc": {func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/proc/x", Type: "c"}}
		}, "can't be the place of a device"},
		"a device of no kind": {func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "z"}}
		}, "is no device"},
		"a propagation of no kind": {func(s *specs.Spec) { s.Linux.RootfsPropagation = "rare" }, `"rare" is not a propagation`},
		"a label":                  {func(s *specs.Spec) { s.Process.SelinuxLabel = "x" }, `process.selinuxLabel: "x" is no label of SELinux`},
		"a label with a space":     {func(s *specs.Spec) { s.Linux.MountLabel = "u:r:t:s0 x" }, "linux.mountLabel: "},
		"a capability above": {func(s *specs.Spec) {
			s.Process.Capabilities = &specs.LinuxCapabilities{Effective: []string{"CAP_KILL"}}
		}, "effective must be within permitted"},
	} {
		t.Run(name, func(t *testing.T) {
			s := bundle()
			tc.edit(s)
			if _, err := CompileBundle(s, "amd64"); !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error about %q", err, tc.want)
			}
		})
	}
}

// TestCompile_IsAsStrictAsBefore holds that nothing of a bundle's freedom gets into a request to the supervisor.
func TestCompile_IsAsStrictAsBefore(t *testing.T) {
	_, err := Compile(bundle(), "amd64")
	for _, want := range []string{
		"a new user namespace is required", "a new cgroup namespace is required", "a new ipc namespace is required",
		`joining the network namespace "/proc/7/ns/net" is not supported`, "linux.uidMappings: must map",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}
