package executor

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	moby "github.com/moby/profiles/seccomp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/runtime/lsm"
	"github.com/skep-io/skep/runtime/spec"
)

// isolated compiles a container with these privileges and capabilities to add.
func isolated(t *testing.T, pr *api.Privileges, add ...string) (*specs.Spec, error) {
	t.Helper()
	return compiled(t, plan{
		task:   newTask(&api.ContainerSpec{Privileges: pr, CapabilityAdd: add}),
		image:  ocispec.ImageConfig{Cmd: []string{"/x"}},
		idBase: 1 << 28,
	})
}

func seccompOf(mode api.SeccompMode, profile string) *api.Privileges {
	return &api.Privileges{Seccomp: &api.SeccompOptions{Mode: mode, Profile: []byte(profile)}}
}

// allows reports whether a profile has a rule that allows a call without a condition.
func allows(p *specs.LinuxSeccomp, name string) bool {
	return slices.ContainsFunc(p.Syscalls, func(s specs.LinuxSyscall) bool {
		return s.Action == specs.ActAllow && len(s.Args) == 0 && slices.Contains(s.Names, name)
	})
}

func TestPrivileges_DefaultIsTheStrictest(t *testing.T) {
	s, err := isolated(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Process.NoNewPrivileges || s.Linux.Seccomp == nil || len(s.Linux.UIDMappings) != 1 || len(s.Linux.Namespaces) != 7 {
		t.Errorf("no new privileges %v, seccomp %v, ids %v, namespaces %v", s.Process.NoNewPrivileges, s.Linux.Seccomp != nil,
			s.Linux.UIDMappings, s.Linux.Namespaces)
	}
}

func TestPrivileges_SeccompFollowsTheCapabilities(t *testing.T) {
	plain, err := isolated(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	more, err := isolated(t, nil, "SYS_TIME")
	if err != nil {
		t.Fatal(err)
	}
	if allows(plain.Linux.Seccomp, "clock_settime") || !allows(more.Linux.Seccomp, "clock_settime") {
		t.Errorf("clock_settime: %v by default, %v with the capability", allows(plain.Linux.Seccomp, "clock_settime"),
			allows(more.Linux.Seccomp, "clock_settime"))
	}
}

func TestPrivileges_Seccomp(t *testing.T) {
	s, err := isolated(t, seccompOf(api.SeccompMode_SECCOMP_MODE_UNCONFINED, ""))
	if err != nil || s.Linux.Seccomp != nil {
		t.Errorf("unconfined: %v, %v", s.Linux.Seccomp, err)
	}
	const tiny = `{"defaultAction":"SCMP_ACT_KILL","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"},
		{"names":["bpf"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_BPF"]}}]}`
	if s, err = isolated(t, seccompOf(api.SeccompMode_SECCOMP_MODE_CUSTOM, tiny)); err != nil {
		t.Fatal(err)
	}
	if p := s.Linux.Seccomp; p.DefaultAction != specs.ActKill || !allows(p, "read") || allows(p, "write") || allows(p, "bpf") {
		t.Errorf("a profile of its own: %+v", p)
	}
	if s, err = isolated(t, seccompOf(api.SeccompMode_SECCOMP_MODE_CUSTOM, tiny), "BPF"); err != nil || !allows(s.Linux.Seccomp, "bpf") {
		t.Errorf("a rule for a capability is left out: %v", err)
	}
	whole, err := json.Marshal(moby.DefaultProfile())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := isolated(t, seccompOf(api.SeccompMode_SECCOMP_MODE_CUSTOM, string(whole))); err != nil {
		t.Errorf("Docker's own: %v", err)
	}
}

func TestPrivileges_RefusesProfilesThatRestrictNothing(t *testing.T) {
	for profile, want := range map[string]string{
		`{}`: "no default action", `{"defaultAction":"SCMP_ACT_KILL","syscals":[]}`: `unknown field "syscals"`, `x`: "invalid character",
		`{"defaultAction":"SCMP_ACT_KILL"}{}`: "something follows", strings.Repeat(" ", maxProfile+1): "at most 262144",
	} {
		if _, err := isolated(t, seccompOf(api.SeccompMode_SECCOMP_MODE_CUSTOM, profile)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", profile, err, want)
		}
	}
}

func TestPrivileges_Weakened(t *testing.T) {
	s, err := isolated(t, &api.Privileges{NewPrivileges: true, Userns: api.UsernsMode_USERNS_MODE_HOST})
	if err != nil {
		t.Fatal(err)
	}
	if s.Process.NoNewPrivileges || len(s.Linux.UIDMappings)+len(s.Linux.GIDMappings) > 0 || len(s.Linux.Namespaces) != 6 {
		t.Errorf("no new privileges %v, ids %v, namespaces %v", s.Process.NoNewPrivileges, s.Linux.UIDMappings, s.Linux.Namespaces)
	}
}

// A container that shares namespaces with the node is one that the runtime takes, if it is told so, and not otherwise.
func TestPrivileges_SharedNamespaces(t *testing.T) {
	const host = api.NamespaceMode_NAMESPACE_MODE_HOST
	for name, tc := range map[string]struct {
		privileges  *api.Privileges
		share       []specs.LinuxNamespaceType
		proc, shm   string // what is mounted there
		user1, root uint32 // on the node
	}{
		"pid":     {&api.Privileges{Pid: host}, []specs.LinuxNamespaceType{specs.PIDNamespace}, "bind", "tmpfs", 1<<28 + 1, 1 << 28},
		"ipc":     {&api.Privileges{Ipc: host}, []specs.LinuxNamespaceType{specs.IPCNamespace}, "proc", "bind", 1<<28 + 1, 1 << 28},
		"user":    {&api.Privileges{Userns: api.UsernsMode_USERNS_MODE_HOST}, []specs.LinuxNamespaceType{specs.UserNamespace}, "proc", "tmpfs", 1, 0},
		"network": {&api.Privileges{Network: host}, []specs.LinuxNamespaceType{specs.NetworkNamespace}, "proc", "tmpfs", 1<<28 + 1, 1 << 28},
		"all": {
			&api.Privileges{Pid: host, Ipc: host, Userns: api.UsernsMode_USERNS_MODE_HOST, Network: host},
			[]specs.LinuxNamespaceType{specs.UserNamespace, specs.PIDNamespace, specs.IPCNamespace, specs.NetworkNamespace},
			"proc", "bind", 1, 0,
		},
	} {
		task := newTask(&api.ContainerSpec{
			Privileges: tc.privileges, Mounts: []*api.Mount{{Type: api.MountType_MOUNT_TYPE_VOLUME, Source: "v", Target: "/v"}},
		})
		task.Grants = []*api.Grant{{Spec: &api.GrantSpec{Mounts: []*api.GrantMount{{Source: "/srv", Target: "/srv"}}}}}
		p := plan{task: task, image: ocispec.ImageConfig{Cmd: []string{"/x"}}, idBase: 1 << 28, volumes: map[string]string{"v": "/volume"}}
		s, err := compiled(t, p)
		if err != nil {
			t.Fatal(err)
		}
		if got := shared(task.GetSpec().GetContainer()); !slices.Equal(got, tc.share) || len(s.Linux.Namespaces) != 7-len(tc.share) {
			t.Errorf("%s: shares %v, has %v", name, got, s.Linux.Namespaces)
		}
		if p.onNode(0) != tc.root || p.onNode(1) != tc.user1 {
			t.Errorf("%s: root is %d on the node, user 1 is %d", name, p.onNode(0), p.onNode(1))
		}
		for _, m := range s.Mounts {
			if m.Destination == "/proc" && m.Type != tc.proc || m.Destination == "/dev/shm" && m.Type != tc.shm {
				t.Errorf("%s: %+v", name, m)
			}
			if network := slices.Contains(tc.share, specs.NetworkNamespace); m.Destination == "/sys" && (m.Type == "bind") != network {
				t.Errorf("%s: %+v", name, m)
			}
		}
		if _, err := spec.CompileGranted(s, "amd64", spec.Granted{Namespaces: tc.share}); err != nil {
			t.Errorf("%s: the runtime refuses it: %v", name, err)
		}
		if _, err := spec.Compile(s, "amd64"); err == nil {
			t.Errorf("%s: the runtime takes it without being told", name)
		}
	}
}

// On the node's network a container has its names: what they lead to on 127.0.0.1 is in reach there, and only there.
func TestNameFiles_OnTheNodesNetworkAreTheNodes(t *testing.T) {
	files := map[string]string{hostNames: "127.0.0.1 n1\n10.0.0.9 db\n", hostResolvers: "nameserver 127.0.0.53\n", systemdResolvers: "nameserver 10.0.0.1\n"}
	read := func(name string) ([]byte, error) { return []byte(files[name]), nil }
	address := netip.MustParseAddr("172.31.240.2")
	hosts, dns, err := nameFiles(&api.ContainerSpec{}, "c", address, read)
	if err != nil || strings.Contains(string(hosts), "db") || !strings.Contains(string(hosts), "172.31.240.2\tc") || string(dns) != files[systemdResolvers] {
		t.Errorf("its own network: %q, %q, %v", hosts, dns, err)
	}
	c := &api.ContainerSpec{Privileges: &api.Privileges{Network: api.NamespaceMode_NAMESPACE_MODE_HOST}}
	hosts, dns, err = nameFiles(c, "c", netip.Addr{}, read)
	if err != nil || string(hosts) != files[hostNames] || string(dns) != files[hostResolvers] {
		t.Errorf("the node's network: %q, %q, %v", hosts, dns, err)
	}
}

// What a service says of names stands after the container's own hosts, or the node's, and in the place of what the node has of that kind.
func TestNameFiles_HaveWhatTheServiceSays(t *testing.T) {
	files := map[string]string{
		hostNames:     "127.0.0.1 n1",
		hostResolvers: "# by hand\nnameserver 192.0.2.53\n search\texample.org\ndomain example.net\noptions edns0",
	}
	read := func(name string) ([]byte, error) { return []byte(files[name]), nil }
	address, shared := netip.MustParseAddr("172.31.240.2"), &api.Privileges{Network: api.NamespaceMode_NAMESPACE_MODE_HOST}
	own := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n172.31.240.2\tc\n"
	for name, tc := range map[string]struct {
		c          *api.ContainerSpec
		hosts, dns string
	}{
		"hosts": {
			&api.ContainerSpec{Hosts: []string{"192.0.2.9 db old", "2001:db8::1 six"}}, own + "192.0.2.9\tdb old\n2001:db8::1\tsix\n",
			"nameserver 192.0.2.53\nsearch example.org\ndomain example.net\noptions edns0\n",
		},
		"name servers": {
			&api.ContainerSpec{Dns: &api.DNSConfig{Nameservers: []string{"127.0.0.1", "192.0.2.1"}}}, own,
			"search example.org\ndomain example.net\noptions edns0\nnameserver 127.0.0.1\nnameserver 192.0.2.1\n",
		},
		"search domains": {
			&api.ContainerSpec{Dns: &api.DNSConfig{Search: []string{"a.test", ".", "b.test"}}}, own,
			"nameserver 192.0.2.53\noptions edns0\nsearch a.test b.test\n",
		},
		"no search domains": {&api.ContainerSpec{Dns: &api.DNSConfig{Search: []string{"."}}}, own, "nameserver 192.0.2.53\noptions edns0\n"},
		"options": {
			&api.ContainerSpec{Dns: &api.DNSConfig{Options: []string{"ndots:2", "rotate"}}}, own,
			"nameserver 192.0.2.53\nsearch example.org\ndomain example.net\noptions ndots:2 rotate\n",
		},
		"the node's network": {
			&api.ContainerSpec{
				Privileges: shared, Hosts: []string{"192.0.2.9 db"},
				Dns: &api.DNSConfig{Nameservers: []string{"192.0.2.1"}, Search: []string{"a.test"}},
			},
			"127.0.0.1 n1\n192.0.2.9\tdb\n", "# by hand\noptions edns0\nnameserver 192.0.2.1\nsearch a.test\n",
		},
	} {
		hosts, dns, err := nameFiles(tc.c, "c", address, read)
		if err != nil || string(hosts) != tc.hosts || string(dns) != tc.dns {
			t.Errorf("%s: %q, %q, %v, want %q, %q", name, hosts, dns, err, tc.hosts, tc.dns)
		}
	}
}

func TestPrivileges_AppArmor(t *testing.T) {
	profile := func(mode api.AppArmorMode, name string) *api.Privileges {
		return &api.Privileges{Apparmor: &api.AppArmorOptions{Mode: mode, Profile: name}}
	}
	for _, tc := range []struct {
		name, node string
		privileges *api.Privileges
		want, err  string
	}{
		{name: "a node without it"},
		{name: "by default", node: "skep-default", want: "skep-default"},
		{name: "none", node: "skep-default", privileges: profile(api.AppArmorMode_APP_ARMOR_MODE_UNCONFINED, "")},
		{name: "another", node: "skep-default", privileges: profile(api.AppArmorMode_APP_ARMOR_MODE_PROFILE, "web"), want: "web"},
		{name: "another, without it", privileges: profile(api.AppArmorMode_APP_ARMOR_MODE_PROFILE, "web"), err: "AppArmor profile web: AppArmor confines nothing"},
		{name: "of the future", privileges: profile(99, ""), err: "none that this node knows"},
	} {
		s, err := compiled(t, plan{
			task: newTask(&api.ContainerSpec{Privileges: tc.privileges}), image: ocispec.ImageConfig{Cmd: []string{"/x"}},
			idBase: 1 << 28, appArmor: tc.node,
		})
		switch {
		case tc.err != "":
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s: %v, want %q", tc.name, err, tc.err)
			}
		case err != nil || s.Process.ApparmorProfile != tc.want:
			t.Errorf("%s: profile %q, %v, want %q", tc.name, s.Process.ApparmorProfile, err, tc.want)
		}
	}
}

// A label that is asked for is there or refused; without SELinux there is none, and nothing to disable.
func TestPrivileges_SELinux(t *testing.T) {
	s, err := compiled(t, plan{
		task: newTask(&api.ContainerSpec{}), image: ocispec.ImageConfig{Cmd: []string{"/x"}}, idBase: 1 << 28,
		selinux: lsm.Labels{Process: "u:r:t:s0:c1,c2", Mount: "u:object_r:f:s0:c1,c2"},
	})
	if err != nil || s.Process.SelinuxLabel != "u:r:t:s0:c1,c2" || s.Linux.MountLabel != "u:object_r:f:s0:c1,c2" {
		t.Fatalf("labels %q and %q, %v", s.Process.SelinuxLabel, s.Linux.MountLabel, err)
	}
	if _, err := spec.Compile(s, "amd64"); err != nil {
		t.Errorf("the runtime refuses it: %v", err)
	}
	if lsm.SELinux() {
		return // what follows is of nodes without it
	}
	if labels, err := selinuxLabels(&api.SELinuxContext{Disable: true}); err != nil || labels != (lsm.Labels{}) {
		t.Errorf("disabled: %+v, %v", labels, err)
	}
	if _, err := selinuxLabels(&api.SELinuxContext{Type: "t"}); err == nil || !strings.Contains(err.Error(), "label=type:t: SELinux confines nothing on this node") {
		t.Errorf("got %v", err)
	}
}
