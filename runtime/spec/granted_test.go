package spec

import (
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// without takes namespaces out of a configuration, and what only they make sense of.
func without(t *testing.T, kinds ...specs.LinuxNamespaceType) *specs.Spec {
	t.Helper()
	s := base(t)
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return slices.Contains(kinds, n.Type) })
	if slices.Contains(kinds, specs.UserNamespace) {
		s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
	}
	return s
}

// The configuration alone shares no namespace with the host: who asks for a container says so beside it, and both must agree (I1).
func TestCompileGranted_SharesWhatBothSay(t *testing.T) {
	const pid, ipc, user = specs.PIDNamespace, specs.IPCNamespace, specs.UserNamespace
	p, err := CompileGranted(without(t, pid, ipc, user), "amd64", Granted{Namespaces: []specs.LinuxNamespaceType{pid, ipc, user}})
	if err != nil {
		t.Fatal(err)
	}
	if want := uint64(unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP); p.Namespaces != want || p.MakeNodes || p.UIDs != nil {
		t.Errorf("namespaces %#x, want %#x; %v, %v", p.Namespaces, want, p.MakeNodes, p.UIDs)
	}
	if uid, ok := p.HostUID(7); !ok || uid != 7 {
		t.Errorf("user 7 is %d, %v on the host", uid, ok)
	}
	if !p.Landlock || p.Seccomp == nil || !p.Process.NoNewPrivs {
		t.Errorf("what else isolates the container is gone: %v", p)
	}
	for want, compile := range map[string]func() (*Plan, error){
		"a new pid namespace is required": func() (*Plan, error) { return Compile(without(t, pid), "amd64") },
		`"user" is unknown, shared with the host`: func() (*Plan, error) {
			return CompileGranted(base(t), "amd64", Granted{Namespaces: []specs.LinuxNamespaceType{user}})
		},
		`the "mount" namespace can't be shared`: func() (*Plan, error) {
			return CompileGranted(without(t, specs.MountNamespace), "amd64", Granted{Namespaces: []specs.LinuxNamespaceType{specs.MountNamespace}})
		},
		"linux.uidMappings: needs a new user namespace": func() (*Plan, error) {
			s := without(t, user)
			s.Linux.UIDMappings = base(t).Linux.UIDMappings
			return CompileGranted(s, "amd64", Granted{Namespaces: []specs.LinuxNamespaceType{user}})
		},
		"linux.sysctl[kernel.shmmax]: is not a parameter ": func() (*Plan, error) {
			s := without(t, ipc)
			s.Linux.Sysctl["kernel.shmmax"] = "1"
			return CompileGranted(s, "amd64", Granted{Namespaces: []specs.LinuxNamespaceType{ipc}})
		},
		"linux.sysctl[net.ipv4.ip_forward]: is not a parameter ": func() (*Plan, error) {
			s := without(t, specs.NetworkNamespace)
			s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
			return CompileGranted(s, "amd64", Granted{Namespaces: []specs.LinuxNamespaceType{specs.NetworkNamespace}})
		},
		"idmap needs a new user namespace": func() (*Plan, error) {
			s := without(t, user)
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/d", Type: "bind", Source: "/srv", Options: []string{"idmap"}})
			return CompileGranted(s, "amd64", Granted{Namespaces: []specs.LinuxNamespaceType{user}})
		},
	} {
		if _, err := compile(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

// The host's processes are shown by the host's procfs, and only to whom they were given; nothing else is put at /proc (I8).
func TestCompileGranted_ShowsTheHostsProcfs(t *testing.T) {
	shown := func(source string, granted ...specs.LinuxNamespaceType) error {
		s := without(t, granted...)
		s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == "/proc" })
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/proc", Type: "bind", Source: source, Options: []string{"bind", "nosuid"}})
		_, err := CompileGranted(s, "amd64", Granted{Namespaces: granted})
		return err
	}
	if err := shown("/proc", specs.PIDNamespace); err != nil {
		t.Error(err)
	}
	for _, err := range []error{shown("/proc"), shown("/srv", specs.PIDNamespace), shown("/proc", specs.IPCNamespace)} {
		if err == nil || !strings.Contains(err.Error(), "/proc is the kernel's file system") {
			t.Errorf("got %v", err)
		}
	}
}
