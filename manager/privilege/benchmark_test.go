package privilege_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/privilege"
)

// running is a task of a service that asks for nothing, as admission completes it.
func running(changes ...func(*api.Task)) *api.Task {
	t := &api.Task{
		ServiceName: "web", Endpoint: &api.EndpointSpec{},
		Spec: &api.TaskSpec{
			Container: &api.ContainerSpec{Image: "docker.io/library/app:1@sha256:x"},
			Restart:   &api.RestartPolicy{Condition: api.RestartCondition_RESTART_CONDITION_ANY, Delay: durationpb.New(5e9)},
		},
	}
	for _, change := range changes {
		change(t)
	}
	return t
}

func withGrant(spec *api.GrantSpec) func(*api.Task) {
	return func(t *api.Task) {
		spec.Annotations = &api.Annotations{Name: "given"}
		t.Grants = append(t.Grants, &api.Grant{Spec: spec})
	}
}

func results(t *testing.T, tasks ...*api.Task) map[string]*api.SecurityCheck {
	t.Helper()
	found := map[string]*api.SecurityCheck{}
	for _, c := range privilege.Benchmark(tasks, map[string][]string{"mac": {"seccomp", "apparmor"}}) {
		if c.GetReason() == "" || c.GetTitle() == "" || found[c.GetId()] != nil {
			t.Errorf("check %v", c)
		}
		found[c.GetId()] = c
	}
	if len(found) != 31 {
		t.Errorf("%d items, section 5 has 31", len(found))
	}
	return found
}

// A service that asks for nothing passes all but what it has to say itself (5.10 to 5.12), and one that says it passes that, too.
func TestBenchmark_TheDefaultPasses(t *testing.T) {
	for id, c := range results(t, running()) {
		want := api.CheckResult_CHECK_RESULT_PASS
		switch id {
		case "5.10", "5.11", "5.12", "5.26":
			want = api.CheckResult_CHECK_RESULT_WARN
		case "5.1", "5.2", "5.23":
			want = api.CheckResult_CHECK_RESULT_NOT_APPLICABLE
		}
		if c.GetResult() != want {
			t.Errorf("%s: %v, want %v: %s", id, c.GetResult(), want, c.GetReason())
		}
	}
	careful := running(func(t *api.Task) {
		t.Spec.Container.ReadOnly = true
		t.Spec.Resources = &api.ResourceRequirements{Limits: &api.Resources{NanoCpus: 1, MemoryBytes: 1}}
		t.Status = &api.TaskStatus{Container: &api.ContainerStatus{
			Isolation: []string{"seccomp", "apparmor=skep-default", "selinux=container_t"}, Health: api.HealthState_HEALTH_STATE_HEALTHY,
		}}
	})
	for _, id := range []string{"5.1", "5.2", "5.10", "5.11", "5.12", "5.26"} {
		if c := results(t, careful)[id]; c.GetResult() != api.CheckResult_CHECK_RESULT_PASS {
			t.Errorf("%s: %v", id, c)
		}
	}
}

// Each weakness is found by its item, with the grant that has it and the service.
func TestBenchmark_FindsEachWeakness(t *testing.T) {
	const fails, warns = api.CheckResult_CHECK_RESULT_FAIL, api.CheckResult_CHECK_RESULT_WARN
	privileged := func(p *api.Privileges) func(*api.Task) { return func(t *api.Task) { t.Spec.Container.Privileges = p } }
	for _, tt := range []struct {
		id     string
		want   api.CheckResult
		reason string
		change []func(*api.Task)
	}{
		{"5.1", fails, "no grant has it", []func(*api.Task){privileged(&api.Privileges{Apparmor: &api.AppArmorOptions{Mode: api.AppArmorMode_APP_ARMOR_MODE_UNCONFINED}})}},
		{"5.1", fails, "its node has AppArmor in force, and reports the task as not confined", []func(*api.Task){func(t *api.Task) { t.NodeId = "mac" }}},
		{"5.4", warns, "CAP_SYS_ADMIN with the node's user ids is as much as --privileged gives, by grant given", []func(*api.Task){
			privileged(&api.Privileges{Userns: api.UsernsMode_USERNS_MODE_HOST}),
			withGrant(&api.GrantSpec{Capabilities: []string{"ALL"}, SecurityOptions: []string{"userns=host"}}),
		}},
		{"5.26", warns, "unhealthy", []func(*api.Task){func(t *api.Task) {
			t.Status = &api.TaskStatus{Container: &api.ContainerStatus{Health: api.HealthState_HEALTH_STATE_UNHEALTHY}}
		}}},
		{"5.2", fails, "label=disable", []func(*api.Task){privileged(&api.Privileges{SelinuxContext: &api.SELinuxContext{Disable: true}})}},
		{"5.3", warns, "CAP_NET_ADMIN, by grant given", []func(*api.Task){withGrant(&api.GrantSpec{Capabilities: []string{"CAP_NET_ADMIN"}})}},
		{"5.3", fails, "no grant has it", []func(*api.Task){func(t *api.Task) { t.Spec.Container.CapabilityAdd = []string{"CAP_NET_ADMIN"} }}},
		{"5.5", fails, "/etc of the node", []func(*api.Task){withGrant(&api.GrantSpec{Mounts: []*api.GrantMount{{Source: "/etc", Target: "/e", ReadOnly: true}}})}},
		{"5.6", fails, "sshd", []func(*api.Task){func(t *api.Task) { t.Spec.Container.Command = []string{"/usr/sbin/sshd"} }}},
		{"5.7", warns, "port 80", []func(*api.Task){func(t *api.Task) { t.Endpoint.Ports = []*api.PortConfig{{PublishedPort: 80}} }}},
		{"5.13", warns, "all addresses", []func(*api.Task){func(t *api.Task) { t.Endpoint.Ports = []*api.PortConfig{{PublishedPort: 8080}} }}},
		{"5.14", warns, "for ever", []func(*api.Task){func(t *api.Task) { t.Spec.Restart.Delay = nil }}},
		{"5.15", warns, "pid=host, by grant given", []func(*api.Task){
			privileged(&api.Privileges{Pid: api.NamespaceMode_NAMESPACE_MODE_HOST}), withGrant(&api.GrantSpec{SecurityOptions: []string{"pid=host"}}),
		}},
		{"5.15", fails, "no grant has it", []func(*api.Task){privileged(&api.Privileges{Pid: api.NamespaceMode_NAMESPACE_MODE_HOST})}},
		{"5.9", fails, "network=host", []func(*api.Task){privileged(&api.Privileges{Network: api.NamespaceMode_NAMESPACE_MODE_HOST})}},
		{"5.16", fails, "ipc=host", []func(*api.Task){privileged(&api.Privileges{Ipc: api.NamespaceMode_NAMESPACE_MODE_HOST})}},
		{"5.19", warns, "mounts of the container below /srv are the node's, too, by grant given", []func(*api.Task){withGrant(&api.GrantSpec{
			Mounts: []*api.GrantMount{{Source: "/srv", Target: "/srv", Propagation: api.MountPropagation_MOUNT_PROPAGATION_RSHARED}},
		})}},
		{"5.17", warns, "device /dev/kvm, by grant given", []func(*api.Task){withGrant(&api.GrantSpec{Devices: []*api.GrantDevice{{Path: "/dev/kvm"}}})}},
		{"5.17", warns, "device vendor.com/gpu=all, by grant given", []func(*api.Task){withGrant(&api.GrantSpec{CdiDevices: []string{"vendor.com/gpu=all"}})}},
		{"5.21", warns, "seccomp=unconfined, by grant given", []func(*api.Task){
			privileged(&api.Privileges{Seccomp: &api.SeccompOptions{Mode: api.SeccompMode_SECCOMP_MODE_UNCONFINED}}),
			withGrant(&api.GrantSpec{SecurityOptions: []string{"seccomp=unconfined"}}),
		}},
		{"5.25", fails, "no-new-privileges=false", []func(*api.Task){privileged(&api.Privileges{NewPrivileges: true})}},
		{"5.27", fails, "without its digest", []func(*api.Task){func(t *api.Task) { t.Spec.Container.Image = "app:1" }}},
		{"5.30", fails, "userns=host", []func(*api.Task){privileged(&api.Privileges{Userns: api.UsernsMode_USERNS_MODE_HOST})}},
		{"5.31", fails, "/run/docker.sock is within /, which grant given mounts", []func(*api.Task){withGrant(&api.GrantSpec{Mounts: []*api.GrantMount{{Source: "/", Target: "/host"}}})}},
	} {
		bad := running(tt.change...)
		bad.ServiceName = "bad"
		good := running(func(t *api.Task) {
			t.Status = &api.TaskStatus{Container: &api.ContainerStatus{Health: api.HealthState_HEALTH_STATE_HEALTHY}}
		})
		c := results(t, good, bad)[tt.id]
		if c.GetResult() != tt.want || !strings.Contains(c.GetReason(), tt.reason) || !slices.Equal(c.GetServices(), []string{"bad"}) {
			t.Errorf("%s: got %v, want %v: %s", tt.id, c, tt.want, tt.reason)
		}
	}
}

func TestDifferences_SayWhatWhyAndWhoGrantedIt(t *testing.T) {
	task := running(withGrant(&api.GrantSpec{
		Capabilities: []string{"CAP_NET_ADMIN", "CAP_SYS_ADMIN"}, SecurityOptions: []string{"seccomp=unconfined"},
		Mounts:  []*api.GrantMount{{Source: "/srv", Target: "/srv"}, {Source: "/var/run", Target: "/x", ReadOnly: true}},
		Devices: []*api.GrantDevice{{Path: "/dev/kvm", Permissions: "rw"}},
	}))
	c := task.Spec.Container
	c.ReadOnly, c.User, c.CapabilityDrop = true, "1000", []string{"CAP_NET_RAW"}
	c.Privileges = &api.Privileges{Seccomp: &api.SeccompOptions{Mode: api.SeccompMode_SECCOMP_MODE_UNCONFINED}}
	got := privilege.Differences(task.GetSpec(), task.GetGrants())
	var texts []string
	for _, d := range got {
		if d.GetWhy() == "" || d.GetStricter() == (d.GetPoints() > 0) || !d.GetStricter() && d.GetGrant() != "given" {
			t.Errorf("difference %v", d)
		}
		texts = append(texts, d.GetWhat())
	}
	want := []string{
		"/var/run of the node, to read, at /x", "capability CAP_SYS_ADMIN", "seccomp=unconfined", "/srv of the node, to write, at /srv",
		"device /dev/kvm (rw)", "capability CAP_NET_ADMIN", "without the capabilities NET_RAW", "read-only root file system", "user 1000",
	}
	if !slices.Equal(texts, want) {
		t.Errorf("got %q\nwant %q", texts, want)
	}
	if score := privilege.Score(got); score != 0 {
		t.Errorf("score %d", score)
	}
	if got := privilege.Differences(running().GetSpec(), nil); len(got) != 0 || privilege.Score(got) != 100 {
		t.Errorf("the default differs from itself: %v", got)
	}
}

func TestDifferences_OfSecretsOnDisks(t *testing.T) {
	c := &api.ContainerSpec{SecretOffline: true}
	if got := privilege.Differences(&api.TaskSpec{Container: c}, nil); len(got) != 0 {
		t.Errorf("without secrets: %v", got)
	}
	c.Configs = []*api.SecretReference{{SecretId: "x1"}}
	got := privilege.Differences(&api.TaskSpec{Container: c}, nil)
	if len(got) != 1 || got[0].GetStricter() || got[0].GetWhat() != "secrets and configs on the disks of its nodes" || privilege.Score(got) != 95 {
		t.Errorf("got %v", got)
	}
}

// A capability weighs more where the container has the node's user ids, and so is root there.
func TestDifferences_OnTheNodesUserIDs(t *testing.T) {
	task := running(withGrant(&api.GrantSpec{
		Capabilities: []string{"CAP_SYS_PTRACE", "CAP_NET_ADMIN"}, SecurityOptions: []string{"userns=host", "pid=host", "ipc=host", "network=host"},
	}))
	host := api.NamespaceMode_NAMESPACE_MODE_HOST
	task.Spec.Container.Privileges = &api.Privileges{Userns: api.UsernsMode_USERNS_MODE_HOST, Pid: host, Ipc: host, Network: host}
	var got []string
	for _, d := range privilege.Differences(task.GetSpec(), task.GetGrants()) {
		if d.GetGrant() != "given" {
			t.Errorf("by %q: %v", d.GetGrant(), d)
		}
		got = append(got, fmt.Sprintf("%s %d", d.GetWhat(), d.GetPoints()))
	}
	if want := []string{"capability CAP_SYS_PTRACE 50", "userns=host 50", "capability CAP_NET_ADMIN 25", "pid=host 25", "network=host 25", "ipc=host 15"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What a spec asks for without a grant is an excess; what the grant allows is none (P2).
func TestExcesses_OfSecurityOptions(t *testing.T) {
	c := &api.ContainerSpec{Privileges: &api.Privileges{NewPrivileges: true}}
	excesses := privilege.Excesses(&api.TaskSpec{Container: c}, nil)
	if len(excesses) != 1 || excesses[0].Option != "--security-opt no-new-privileges=false" {
		t.Fatalf("got %v", excesses)
	}
	allowed := []*api.Grant{{Spec: &api.GrantSpec{SecurityOptions: []string{"no-new-privileges=false"}}}}
	if left := privilege.Excesses(&api.TaskSpec{Container: c}, allowed); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

// What a directory of the node is worth to whoever gets it.
func TestDifferences_WeighWhatIsMounted(t *testing.T) {
	for _, tt := range []struct {
		source   string
		readOnly bool
		points   uint32
		why      string
	}{
		{"/", true, 50, "the socket /run/docker.sock"},
		{"/var/run/docker.sock", false, 50, "the socket /run/docker.sock"},
		{"/run/systemd", true, 50, "the socket /run/systemd/private"},
		{"/etc", false, 50, "who writes there as root is the node's root"},
		{"/etc/shadow", true, 25, "the node's own files"},
		{"/var", true, 25, "the node's own files, its keys among them"},
		{"/var/lib", true, 25, "the node's own files, its keys among them"},
		{"/proc", false, 50, "the kernel's settings"},
		{"/sys/kernel", true, 15, "what the kernel tells"},
		{"/dev/shm", false, 15, "the files beside the node's devices"},
		{"/srv", false, 15, "files of the node can be changed"},
		{"/srv", true, 10, "files of the node can be read"},
	} {
		grants := []*api.Grant{{Spec: &api.GrantSpec{Mounts: []*api.GrantMount{{Source: tt.source, Target: "/x", ReadOnly: tt.readOnly}}}}}
		got := privilege.Differences(&api.TaskSpec{Container: &api.ContainerSpec{}}, grants)
		if len(got) != 1 || got[0].GetPoints() != tt.points || !strings.HasPrefix(got[0].GetWhy(), tt.why) {
			t.Errorf("%s, read-only %v: got %v, want %d: %s", tt.source, tt.readOnly, got, tt.points, tt.why)
		}
	}
}
